"""Jobs of a sweep on a Ray cluster, each as a plain command line."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import ray
from ray.exceptions import RayError

from n2n_lightning.launching.sweep_job import SweepJob, run_one
from n2n_lightning.reporting.sweep import Outcome
from n2n_lightning.system import errors
from n2n_lightning.system.processes import handling_signals

POLL_SECONDS = 0.5
CONNECT_SECONDS = 10
FIX = "start one with `ray start --head`, or set hydra.launcher.address=null"


def run_on_ray(
    jobs: Sequence[SweepJob],
    on_end: Callable[[int, Outcome], None],
    *,
    address: str | None,
    num_cpus: float,
    num_gpus: float,
) -> int | None:
    """Run the jobs on a cluster; a signal cancels them.

    Args:
        jobs: the jobs of the sweep.
        on_end: called with a job's number in the sweep and its outcome.
        address: see ``conf/hydra/launcher/ray.yaml``.
        num_cpus: cores for each job.
        num_gpus: GPUs for each job.

    Returns:
        The last signal received; None without one.
    """
    connect(address)
    run = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(run_one)
    received: list[int] = []
    pending = {run.remote(job): job for job in jobs}
    running = True
    with handling_signals(lambda number, frame: received.append(number)):
        while pending:
            for task in ray.wait(list(pending), timeout=POLL_SECONDS)[0]:
                job = pending.pop(task)
                on_end(job.number, outcome_of(job, task, interrupted=bool(received)))
            if received and running:
                running = False
                for task in pending:
                    ray.cancel(task)  # its worker gets SIGINT, and passes it on to the training
    return received[-1] if received else None


def connect(address: str | None) -> None:
    """Connect to a cluster, or start one; its processes have our variables of the environment."""
    if ray.is_initialized():  # by an earlier part of the sweep
        return
    if address and not answers(address):
        raise errors.InputError(f"no Ray cluster at {address}: nothing listens there; {FIX}")
    variables = {key: value for key, value in os.environ.items() if key.startswith(("N2N_", "HYDRA_", "GOMP_"))}
    try:
        ray.init(address, include_dashboard=False, configure_logging=False, runtime_env={"env_vars": variables})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise errors.InputError(f"no Ray cluster at {address}: {errors.one_line(error)}; {FIX}") from error


def answers(address: str) -> bool:
    """Return whether something listens at HOST:PORT, which Ray would try for minutes; True for "auto" and the like."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True


def outcome_of(job: SweepJob, task: ray.ObjectRef[tuple[Outcome, int | None]], *, interrupted: bool) -> Outcome:
    """Return how a job ended, also where its worker or its node has died."""
    try:
        outcome: Outcome = ray.get(task)[0]
        return outcome
    except (RayError, KeyboardInterrupt) as error:
        if interrupted:
            return Outcome(job.folder, "interrupted", errors.SIGTERM, "cancelled; the same command goes on")
        reason = f"its worker has died ({type(error).__name__}); the same command goes on"
        return Outcome(job.folder, "failed", errors.FAILED, reason)
