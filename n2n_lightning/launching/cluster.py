"""Jobs of a sweep on a cluster: submitit starts them, and each runs as a plain command line."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from n2n_lightning.launching.sweep_job import SweepJob, run_one
from n2n_lightning.reporting.sweep import Outcome
from n2n_lightning.system import errors
from n2n_lightning.system.processes import handling_signals

POLL_SECONDS = 0.5  # submitit asks SLURM less often
REPEAT_SECONDS = 30  # until a job of this machine gets the signal again: submitit drops one that comes too early
COMMON = (  # parameters that all of submitit's clusters have; of others, the cluster's name comes first
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"),
    "stderr_to_stdout",
)


class SubmittedJob:
    """What submitit calls on a node: it runs the job, and lets submitit requeue it when SLURM wants the node back."""

    def __init__(self, job: SweepJob) -> None:
        self.job = job

    def __call__(self) -> Outcome:
        """Run the job; after a pre-emption, which has saved its state, let submitit's handler requeue it."""
        outcome, received = run_one(self.job)
        if received is not None and received == submitit.JobEnvironment._usr_sig():
            signal.raise_signal(received)
        return outcome

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what is submitted again: the same command line, which goes on from the run's checkpoint."""
        return submitit.helpers.DelayedSubmission(self)


def submit_jobs(
    jobs: Sequence[SweepJob],
    on_end: Callable[[int, Outcome], None],
    *,
    cluster: str,
    folder: str,
    max_num_timeout: int,
    parameters: Mapping[str, Any],
) -> int | None:
    """Submit the jobs and wait for them; a signal cancels them.

    Args:
        jobs: the jobs of the sweep.
        on_end: called with a job's number in the sweep and its outcome.
        cluster: "slurm" or "local".
        folder: for submitit's files; ``%j`` is the id of a job.
        max_num_timeout: see ``conf/hydra/launcher/submitit_slurm.yaml``.
        parameters: submitit's; those that are None are left to it.

    Returns:
        The last signal received; None without one.
    """
    received: list[int] = []
    with handling_signals(lambda number, frame: received.append(number)):
        pending = dict(zip(jobs, submit(jobs, cluster, folder, max_num_timeout, parameters), strict=True))
        cancelled = None
        while pending:
            due = cancelled is None or (cluster == "local" and time.monotonic() > cancelled + REPEAT_SECONDS)
            if received and due:
                cancel(pending.values(), cluster)
                cancelled = time.monotonic()
            for job, submitted in list(pending.items()):
                if submitted.done():
                    del pending[job]
                    on_end(job.number, outcome_of(job, submitted, interrupted=bool(received)))
            time.sleep(POLL_SECONDS)
    return received[-1] if received else None


def cancel(jobs: Iterable[submitit.Job[Outcome]], cluster: str) -> None:
    """Cancel jobs so that they save their state."""
    for submitted in jobs:
        if cluster == "local":  # SIGTERM, after which the state is saved; ``cancel`` would kill the job
            os.kill(int(submitted.job_id), signal.SIGTERM)
        else:
            submitted.cancel(check=False)


def submit(
    jobs: Sequence[SweepJob], cluster: str, folder: str, max_num_timeout: int, parameters: Mapping[str, Any]
) -> list[submitit.Job[Outcome]]:
    """Submit the jobs, in SLURM as one array; refuse what the cluster refuses."""
    try:
        timeouts = {f"{cluster}_max_num_timeout": max_num_timeout}
        executor = submitit.AutoExecutor(folder=Path(folder).absolute(), cluster=cluster, **timeouts)
        given = {key: value for key, value in parameters.items() if value is not None}
        executor.update_parameters(
            **{key if key in COMMON else f"{cluster}_{key}": value for key, value in given.items()}
        )
        with executor.batch():
            return [executor.submit(SubmittedJob(job)) for job in jobs]
    except (RuntimeError, ValueError, NameError, FailedJobError, FailedSubmissionError) as error:
        fix = "set hydra.launcher.partition and the other parameters to what it has, or hydra/launcher=devices"
        raise errors.InputError(f"{cluster} took no job: {errors.one_line(error)}; {fix}") from error


def outcome_of(job: SweepJob, submitted: submitit.Job[Outcome], *, interrupted: bool) -> Outcome:
    """Return how a job ended; of one that left nothing, such as a node that failed, where its output is."""
    try:
        outcome: Outcome = submitted.results()[0]  # of the first rank
        return outcome
    except (UncompletedJobError, FailedJobError, RuntimeError):
        if interrupted:
            return Outcome(job.folder, "interrupted", errors.SIGTERM, "cancelled; the same command goes on")
        where = f"job {submitted.job_id} ended without a result ({submitted.state}); {submitted.paths.stderr} says more"
        return Outcome(job.folder, "failed", errors.FAILED, where)
