"""A job of a sweep as a plain command line in a process of its own, and how it ended. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from n2n_lightning.reporting.sweep import Outcome, append_outcome, read_outcomes
from n2n_lightning.system import errors
from n2n_lightning.system.command_words import quoted
from n2n_lightning.system.processes import ONE_SLOT, OUTCOME, Command, Slots, run_commands

RANK_ENVIRONMENT = (  # of torchrun and Lightning: a job's process is no rank of the process that starts it
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
)
SWEEP_WORDS = ("launcher", "sweeper", "sweep", "run", "mode")  # of Hydra's own settings, those of the sweep alone


class SweepJob(NamedTuple):
    """A job of a sweep, as another machine needs it."""

    number: int  # in the sweep
    folder: Path  # of the run
    words: tuple[str, ...]  # of its command line
    cwd: Path  # where it runs: paths in its settings may be relative
    devices: int = 1


def make_job(hydra_config: Any, trainer: Mapping[str, Any], folder: Path) -> SweepJob:
    """Return the job of a sweep that Hydra has composed.

    Args:
        hydra_config: Hydra's own part of its configuration.
        trainer: the group ``trainer`` of its configuration.
        folder: of the run.
    """
    given = hydra_config.runtime.config_sources
    options = [word for source in given if source.provider == "command-line" for word in ("--config-dir", source.path)]
    if hydra_config.job.config_name != "train":
        options += ["--config-name", hydra_config.job.config_name]
    kept = [word for word in hydra_config.overrides.hydra if not is_of_sweep(word)]
    place = f"hydra.run.dir={quoted(str(folder))}"
    words = (*options, *hydra_config.overrides.task, *kept, place)
    return SweepJob(int(hydra_config.job.num), folder, words, Path.cwd(), count_devices(trainer))


def is_of_sweep(word: str) -> bool:
    """Return whether an override of Hydra's own settings is about the sweep and not about its jobs.

    >>> is_of_sweep("hydra/launcher=joblib"), is_of_sweep("+hydra.sweep.dir=a"), is_of_sweep("hydra.job.env_set.A=1")
    (True, True, False)
    """
    _, _, rest = word.partition("=")[0].replace("/", ".").partition("hydra.")
    return rest.partition(".")[0] in SWEEP_WORDS


def count_devices(trainer: Mapping[str, Any]) -> int:
    """Return how many devices of this machine a run uses; 1 for a value that the run will refuse."""
    devices = trainer.get("devices")
    return devices if isinstance(devices, int) and devices > 1 else 1


def needs_own_processes(trainer: Mapping[str, Any]) -> bool:
    """Return whether a run has processes of its own, which cannot be those of the sweep."""
    usual = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    return any(trainer.get(key, value) != value for key, value in usual.items())


def run_jobs(
    jobs: Sequence[SweepJob], slots: Slots = ONE_SLOT, on_end: Callable[[int, Outcome], None] = lambda *_: None
) -> tuple[list[Outcome], int | None]:
    """Run each job in a process of its own, which may die without harm to the others.

    Args:
        jobs: the jobs of the sweep.
        slots: see ``run_commands``.
        on_end: called with a job's number in the sweep and its outcome as soon as it has ended.

    Returns:
        How the jobs that were started ended, in the order of the sweep, and the last signal received, if any.
    """
    found: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        files = [Path(folder) / str(job.number) for job in jobs]

        def note(index: int, code: int) -> None:
            job = jobs[index]
            found[index] = read_outcomes(files[index]).get(None) or without_outcome(job, code)
            on_end(job.number, found[index])

        commands = [
            Command(command_line(job), job.cwd, job_environment(file), job.devices)
            for job, file in zip(jobs, files, strict=True)
        ]
        received = run_commands(commands, slots, note)
    return [found[index] for index in sorted(found)], received


def command_line(job: SweepJob) -> list[str]:
    """Return the words that run a job as a single run."""
    return [sys.executable, "-m", "n2n_lightning.train", *job.words]


def job_environment(file: Path) -> dict[str, str]:
    """Return the environment of a job's process: this one's without ranks, with the user's ``HYDRA_FULL_ERROR``."""
    kept = {key: value for key, value in os.environ.items() if key not in RANK_ENVIRONMENT}
    full_error = kept.pop(errors.USER_FULL_ERROR, kept.get(errors.HYDRA_FULL_ERROR, "0"))
    return kept | {OUTCOME: str(file), errors.HYDRA_FULL_ERROR: full_error}


def without_outcome(job: SweepJob, code: int) -> Outcome:
    """Return the outcome of a job whose process has ended with this return code, but has left none."""
    if code in (errors.SIGINT, errors.SIGTERM) or -code in SIGNAL_NUMBERS:
        return Outcome(job.folder, "interrupted", errors.SIGTERM, "before its training")
    if code == errors.BAD_INPUT:
        return Outcome(job.folder, "refused", errors.BAD_INPUT, "its message is above")
    if code < 0:
        name = signal.Signals(-code).name
        cause = "; memory may have run out" if name == "SIGKILL" else ""
        return Outcome(job.folder, "failed", errors.FAILED, f"killed by {name}{cause}; the same command goes on")
    return Outcome(job.folder, "failed", errors.FAILED, f"its process ended with exit code {code}")


SIGNAL_NUMBERS = {int(number) for number in errors.SIGNALS}


def report_outcome(outcome: Outcome) -> None:
    """Tell the process that started this job how it ended."""
    file = os.environ.get(OUTCOME)
    if file:
        append_outcome(Path(file), None, outcome)


def run_one(job: SweepJob) -> tuple[Outcome, int | None]:
    """Run one job in a process of its own; return its outcome, and the last signal received, if any."""
    ended, received = run_jobs([job])
    if not ended:  # a signal came first
        return Outcome(job.folder, "interrupted", errors.SIGTERM, "before its training"), received
    return ended[0], received
