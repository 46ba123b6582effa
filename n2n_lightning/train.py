"""Train one denoiser, or sweep many: ``python -m n2n_lightning.train [-m] [group=choice] [key=value] ...``."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from n2n_lightning.launching.launchers import register_launchers
from n2n_lightning.launching.sweep_job import make_job, needs_own_processes, report_outcome, run_one
from n2n_lightning.reporting.sweep import (
    JOBS,
    Outcome,
    append_outcome,
    best_text,
    is_worker,
    job_value,
    outcomes_file,
    print_outcomes,
    read_outcomes,
)
from n2n_lightning.search.sweeper import register_sweeper
from n2n_lightning.search.trial import is_trial, search_pruning
from n2n_lightning.system import errors, hydra_app, ranks
from n2n_lightning.system.folders import config_folder
from n2n_lightning.system.processes import OUTCOME, obey_parent
from n2n_lightning.system.run_names import another_folder, find_run_folder, named_overrides, run_name

LOCK = ".lock"  # in a run's folder, while a process trains there
outcomes: dict[int | None, Outcome] = {}  # jobs of this process: number in the sweep, or None for a single run


@hydra.main(config_path=str(config_folder()), config_name="train", version_base="1.3")
def job(cfg: DictConfig) -> float | str:
    """Train one run, and return the best value of its monitor, which Hydra's sweepers optimize, or how it failed.

    In a sweep, the next run starts even if this one fails, but not after a signal.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then uses huge pages: the U-Net trains 5 % faster
    hydra_cfg: Any = HydraConfig.get()
    single = hydra_cfg.mode is RunMode.RUN

    def make_config() -> dict[str, Any]:
        searching = hydra_cfg.runtime.choices["hydra/sweeper"] == "optuna"
        if searching and single and not is_trial():  # a launcher may run a trial so
            raise errors.InputError("a search needs -m; put -m first, or set hydra/sweeper=basic for a single run")
        return hydra_app.resolve_config(cfg)

    if single and OmegaConf.select(cfg, "trainer.strategy") == "ddp" and ranks.follows():
        sys.exit(follow_job(make_config))
    model, task = hydra_cfg.runtime.choices.model, list(hydra_cfg.overrides.task)
    folder = find_folder(Path(hydra_cfg.runtime.output_dir), model, task)
    labels = {"model": model, "overrides": named_overrides(task)}

    def save(config: dict[str, Any]) -> None:
        save_hydra_files(folder, config, task, OmegaConf.to_container(hydra_cfg, resolve=False))

    number = None if single else hydra_cfg.job.num
    if number is not None and needs_own_processes(cfg.trainer):
        outcome, received = run_one(make_job(hydra_cfg, cfg.trainer, folder))
    else:
        received = None
        outcome = run_job(folder, labels, make_config, save)
        report_outcome(outcome)
    outcomes[number] = outcome
    if is_worker():
        append_outcome(outcomes_file(), number, outcome)
    gc.collect()  # trainers hold reference cycles, which would pile up over a long sweep
    if received is not None or outcome.code in (errors.SIGINT, errors.SIGTERM):
        sys.exit(outcome.code if received is None else errors.SIGNALS[signal.Signals(received)])
    return job_value(outcome)


def run_job(
    folder: Path,
    labels: dict[str, Any],
    make_config: Callable[[], dict[str, Any]],
    save: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Train, and turn every result and exception into an Outcome and a message.

    Args:
        folder: the run's folder. Only one process at a time trains in it.
        labels: see ``training.run.train``.
        make_config: returns the resolved configuration.
        save: called with the configuration when the input has been checked, before anything else is written.
    """
    from n2n_lightning.system.lock import file_lock
    from n2n_lightning.training.rank_roles import leading
    from n2n_lightning.training.run import train

    try:
        config = make_config()
        fix = f"wait for it to end, or {another_folder(folder, str(config['study']))}"
        busy = f"{folder} is being trained in by another process; {fix}"
        with leading(config), file_lock(folder / LOCK, busy):
            trained = train(config, folder, labels, save, pruning=search_pruning(folder))
            status, text = best_text(folder)
    except errors.InputError as error:
        errors.report_error(error)
        return Outcome(folder, "refused", errors.BAD_INPUT, errors.one_line(error))
    except errors.Interrupted as error:
        how = "" if config["resume"] else " with resume=true"
        print(f"{folder.name}: interrupted; the same command{how} goes on from there", file=sys.stderr)
        return Outcome(folder, "interrupted", error.code, "the same command goes on")
    except (KeyboardInterrupt, SystemExit) as error:  # a signal before training
        code = errors.SIGINT if isinstance(error, KeyboardInterrupt) else errors.signal_exit_code(error)
        return Outcome(folder, "interrupted", code, "outside of its training")
    except Exception as error:
        where = write_log(folder, error)
        errors.report_error(error, f"{folder.name} failed: {str(error) or type(error).__name__}; {where}")
        return Outcome(folder, "failed", errors.FAILED, f"{type(error).__name__}: {errors.one_line(error)}; {where}")
    finally:
        remove_if_empty(folder)
    if not trained:
        return Outcome(folder, "skipped", errors.DONE, f"{status} before, {text}")
    return Outcome(folder, status, errors.FAILED if status == "failed" else errors.DONE, text)


def follow_job(make_config: Callable[[], dict[str, Any]]) -> int:
    """Train as a rank other than 0, without a word; return 0 unless this rank alone has failed."""
    from n2n_lightning.training.rank_roles import follow
    from n2n_lightning.training.ranks import lost_rank

    told = sys.__stderr__ or sys.stderr
    ranks.silence()
    try:
        follow(make_config(), in_search=is_trial())
    except (FloatingPointError, errors.Interrupted):  # so has rank 0, which tells it
        pass
    except Exception as error:
        if isinstance(error, errors.InputError) and ranks.is_on_first_machine():
            return errors.DONE  # rank 0 finds the same, and tells it
        if not lost_rank(error):
            print(f"error: {type(error).__name__}: {errors.one_line(error)}", file=told, flush=True)
        return errors.FAILED
    return errors.DONE


def find_folder(given: Path, model: str, task: list[str]) -> Path:
    """Return the run's folder: the one that Hydra made, or that of an earlier version, which named it differently."""
    found = find_run_folder(given.parent, model, task)
    if given.name != run_name(model, task) or found == given:  # hydra.run.dir may be any folder
        return given
    remove_if_empty(given)
    return found


def save_hydra_files(folder: Path, config: dict[str, Any], task: list[str], hydra_cfg: object = None) -> None:
    """Write ``.hydra/`` as Hydra does. Hydra would write it too early, also for a run that is then refused."""
    target = folder / ".hydra"
    target.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(config), target / "config.yaml")
    OmegaConf.save(OmegaConf.create(task), target / "overrides.yaml")
    if hydra_cfg is not None:
        OmegaConf.save(OmegaConf.create({"hydra": hydra_cfg}), target / "hydra.yaml")


def write_log(folder: Path, error: Exception) -> str:
    """Write the traceback to ``train.log``, also of errors before training; return where it can be found."""
    log = folder / "train.log"
    try:
        log.write_text("".join(traceback.format_exception(error)))
    except OSError:  # the disk is full, which may have been the error
        return "HYDRA_FULL_ERROR=1 shows where"
    return f"{log} has the traceback"


def remove_if_empty(folder: Path) -> None:
    """Remove the folders of the run, the study and the outputs if empty. Hydra creates them before it calls us."""
    for path in (folder, *folder.parents[:2]):
        try:
            if path == Path.cwd():
                return
            path.rmdir()
        except OSError:  # not empty, or missing
            return


def check_starter() -> None:
    """Refuse a sweep in each of torchrun's processes, which would all run all of its jobs."""
    if hydra_app.is_sweep() and ranks.find_starter() == "torchrun":
        raise errors.InputError("torchrun must start one run, got a sweep (-m); start the sweep without torchrun")


def main() -> int:
    """Run the command; return 0 if every run is done, else the exit code of the worst."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        jobs = Path(folder) / "jobs"
        os.environ[JOBS] = f"{os.getpid()}:{jobs}"
        register_sweeper()
        if OUTCOME in os.environ:
            obey_parent()
        register_launchers()
        code = errors.run_command(check_starter) or hydra_app.run_hydra(job, "train")
        ended = list((outcomes | read_outcomes(jobs)).values())
    codes = [code, *(outcome.code for outcome in ended)]
    if ended and None not in outcomes:
        codes.append(errors.run_command(lambda: print_outcomes(ended)))
    return next((c for c in (errors.SIGTERM, errors.SIGINT, errors.FAILED, errors.BAD_INPUT) if c in codes), code)


if __name__ == "__main__":
    sys.exit(main())
