"""Train one denoiser, or sweep many: ``python -m n2n_lightning.train [-m] [group=choice] [key=value] ...``."""

from __future__ import annotations

import gc
import os
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

from n2n_lightning.reporting.sweep import Outcome, append_outcome, best_text, one_line, print_outcomes, read_outcomes
from n2n_lightning.system import errors, hydra_app
from n2n_lightning.system.folders import UNNAMED_OVERRIDES, config_folder

LOCK = ".lock"  # in a run's folder, while a process trains there
JOBS = "N2N_JOBS"  # environment: launching process, and the file where workers of hydra/launcher=joblib note their jobs
outcomes: dict[int | None, Outcome] = {}  # of this process's jobs, by their number in the sweep; None of a single run


@hydra.main(config_path=str(config_folder()), config_name="train", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One run; in a sweep a run that fails leaves the others their turn."""
    # torch reads it when it first takes memory: big pages, which the U-Net trains 5 % faster on
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    hydra_cfg: Any = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    task = list(hydra_cfg.overrides.task)
    names = {"model": hydra_cfg.runtime.choices.model, "overrides": overrides(task)}

    def save(config: dict[str, Any]) -> None:
        save_hydra_files(folder, config, task, OmegaConf.to_container(hydra_cfg, resolve=False))

    outcome = run_job(folder, names, lambda: hydra_app.resolve_config(cfg), save)
    number = hydra_cfg.job.num if hydra_cfg.mode is RunMode.MULTIRUN else None
    outcomes[number] = outcome
    launcher, _, file = os.environ.get(JOBS, f"{os.getpid()}:").partition(":")
    if int(launcher) != os.getpid():
        append_outcome(Path(file), number, outcome)
    gc.collect()  # trainers are full of cycles: left to themselves they pile up over a long sweep
    if outcome.code in (errors.SIGINT, errors.SIGTERM):
        sys.exit(outcome.code)


def run_job(
    folder: Path,
    names: dict[str, Any],
    make_config: Callable[[], dict[str, Any]],
    save: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Train and turn every way to end into an exit code, a message and a record.

    Args:
        folder: the run's. Only one process at a time trains in it.
        names: further entries for ``result.json``: ``model``, ``overrides``.
        make_config: gives the resolved configuration.
        save: called with it once the input is known to be right, before anything is written.
    """
    from n2n_lightning.system.lock import file_lock
    from n2n_lightning.training.run import Interrupted, train

    started = False

    def on_start() -> None:
        nonlocal started
        started = True
        save(config)

    busy = f"{folder} is being trained in by another process; wait for it to end, or set another study=NAME"
    try:
        config = make_config()
        with file_lock(folder / LOCK, busy):
            train(config, folder, names, on_start)
            status, text = best_text(folder)
    except errors.InputError as error:
        errors.report_error(error)
        return Outcome(folder, "refused", errors.BAD_INPUT, one_line(error))
    except Interrupted as error:
        how = "" if config["resume"] else " with resume=true"
        print(f"{folder.name}: interrupted; the same command{how} goes on from there", file=sys.stderr)
        return Outcome(folder, "interrupted", error.code, "the same command goes on")
    except (KeyboardInterrupt, SystemExit) as error:  # a signal before training
        code = errors.SIGINT if isinstance(error, KeyboardInterrupt) else errors.signal_exit_code(error)
        return Outcome(folder, "interrupted", code, "outside of its training")
    except Exception as error:
        where = write_log(folder, error)
        errors.report_error(error, f"{folder.name} failed: {error}; {where}")
        return Outcome(folder, "failed", errors.FAILED, f"{type(error).__name__}: {one_line(error)}; {where}")
    finally:
        remove_if_empty(folder)
    if not started:
        return Outcome(folder, "skipped", errors.DONE, f"{status} before, {text}")
    return Outcome(folder, status, errors.FAILED if status == "failed" else errors.DONE, text)


def overrides(task: list[str]) -> dict[str, str]:
    """Override key -> value, as given, but for those that a run's name leaves out."""
    pairs = (override.lstrip("+~").partition("=") for override in task)
    return {key: value for key, _, value in pairs if key not in UNNAMED_OVERRIDES}


def save_hydra_files(folder: Path, config: dict[str, Any], task: list[str], hydra_cfg: object = None) -> None:
    """``.hydra/`` as Hydra writes it; written once the run is sure to start, so that a refused one leaves none."""
    target = folder / ".hydra"
    target.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(config), target / "config.yaml")
    OmegaConf.save(OmegaConf.create(task), target / "overrides.yaml")
    if hydra_cfg is not None:
        OmegaConf.save(OmegaConf.create({"hydra": hydra_cfg}), target / "hydra.yaml")


def write_log(folder: Path, error: Exception) -> str:
    """The traceback into ``train.log``, also of what went wrong before training; says where it is."""
    log = folder / "train.log"
    try:
        log.write_text("".join(traceback.format_exception(error)))
    except OSError:  # a full disk, which may be the very error
        return "HYDRA_FULL_ERROR=1 shows where"
    return f"{log} has the traceback"


def remove_if_empty(folder: Path) -> None:
    """Hydra makes the folder, in its study's, in outputs, before the job can look at its input."""
    for path in (folder, *folder.parents[:2]):
        try:
            if path == Path.cwd():
                return
            path.rmdir()
        except OSError:  # it holds something, or is not there
            return


def main() -> int:
    """Exit code 0 when every run is done, else that of the worst."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        jobs = Path(folder) / "jobs"
        os.environ[JOBS] = f"{os.getpid()}:{jobs}"
        code = hydra_app.run_hydra(job, "train")
        ended = list((outcomes | read_outcomes(jobs)).values())
    if ended and None not in outcomes:
        print_outcomes(ended)
    codes = [code, *(outcome.code for outcome in ended)]
    return next((c for c in (errors.SIGTERM, errors.SIGINT, errors.FAILED, errors.BAD_INPUT) if c in codes), code)


if __name__ == "__main__":
    sys.exit(main())
