"""What the ranks do around a run: rank 0 leads the others, and they follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytorch_lightning as pl

from n2n_lightning.system import errors
from n2n_lightning.system.ranks import launched_count
from n2n_lightning.training.check import check_config
from n2n_lightning.training.pruning import Pruning
from n2n_lightning.training.ranks import RankStrategy, meet
from n2n_lightning.training.run import fit, prepare_run, quiet_lightning
from n2n_lightning.training.settings import Config
from n2n_lightning.training.trainer_settings import DDP, trainer_arguments


@contextmanager
def leading(config: Config) -> Iterator[None]:
    """Send away the ranks that wait for this one if the block ends without having met them.

    After a signal they are left alone, as it reaches all ranks.
    """
    RankStrategy.has_met = False
    try:
        yield
    except errors.Interrupted:
        raise
    except Exception:
        with suppress(Exception):  # the first error counts
            send_away(config)
        raise
    send_away(config)


def send_away(config: Config) -> None:
    """Meet the ranks that torchrun or SLURM has started, and tell them that there is nothing to train.

    None of them waits if the configuration is wrong, because all of them check it.
    """
    if RankStrategy.has_met or config["trainer"].get("strategy") != DDP or (launched_count() or 1) == 1:
        return
    try:
        settings = check_config(config)
    except (ValueError, OSError):
        return
    meet(pl.Trainer(**trainer_arguments(settings.trainer)))


def follow(config: Config, *, in_search: bool = False) -> None:
    """Train as a rank other than 0, which has the same configuration, says what to do, and writes everything.

    Args:
        config: the resolved configuration.
        in_search: rank 0 asks after each epoch whether the run is hopeless.

    Raises:
        errors.InputError: the configuration or the data is wrong.
        errors.Interrupted: by a signal to any of the ranks; the state is saved.
    """
    quiet_lightning()
    try:
        settings = check_config(config)
        plan = meet(pl.Trainer(**trainer_arguments(settings.trainer)))
        if plan is not None:
            run = prepare_run(plan.settings, plan.folder, {}, plan, in_search=in_search)
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error
    if plan is not None:
        pruning = Pruning(lambda epoch, value: False)  # rank 0's answer counts
        pruning.monitor = run.datamodule.monitor
        fit(run, [pruning] if in_search else (), ())
