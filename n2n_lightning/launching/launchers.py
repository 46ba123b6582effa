"""Hydra launchers that run each job of a sweep as a plain command line in a process of its own.

``conf/hydra/launcher/`` explains their settings. Imports nothing of submitit and Ray before a sweep asks for it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from n2n_lightning.launching.sweep_job import SweepJob, make_job, run_jobs
from n2n_lightning.reporting.sweep import Outcome, append_outcome, job_value, outcomes_file
from n2n_lightning.system import errors
from n2n_lightning.system.hydra_app import plain, register_plugin
from n2n_lightning.system.processes import Slots

NAMES = ("devices", "submitit_local", "submitit_slurm", "ray")  # in ``conf/hydra/launcher/``
OnEnd: TypeAlias = Callable[[int, Outcome], None]  # number in the sweep, and how the job ended


class CommandLauncher(Launcher):
    """Run the jobs of a sweep as single runs; a job that dies is one line of the sweep's table."""

    hydra_context: HydraContext  # from ``setup`` on, and so is this:
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what ``launch`` needs; refuse settings that cannot be, which Hydra would wrap in words of its own."""
        self.hydra_context, self.config = hydra_context, config
        self.check()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return their values in their order."""
        setup_globals()
        configs = [self.compose(overrides, number) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        jobs = [make_job(config.hydra, config.trainer, run_folder(config)) for config in configs]
        ended: dict[int, Outcome] = {}

        def note(number: int, outcome: Outcome) -> None:
            ended[number] = outcome
            append_outcome(outcomes_file(), number, outcome)

        received = self.run(jobs, configs, note)
        if received is not None:
            sys.exit(errors.SIGNALS[signal.Signals(received)])
        return [job_return(config, ended[job.number]) for job, config in zip(jobs, configs, strict=True)]

    def compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the configuration of a job, with Hydra's own part."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    @abstractmethod
    def check(self) -> None:
        """Raise an InputError for a setting that cannot be, or a package that is not installed."""

    @abstractmethod
    def run(self, jobs: Sequence[SweepJob], configs: Sequence[DictConfig], on_end: OnEnd) -> int | None:
        """Run the jobs, call ``on_end`` for each, and return the last signal received, if any."""


class DevicesLauncher(CommandLauncher):
    """One job a device on this machine. On CPUs, several jobs share the cores.

    Args:
        n_jobs: jobs at a time; None for one an accelerator, or as many as there are cores.
    """

    def __init__(self, *, n_jobs: int | None) -> None:
        self.n_jobs = n_jobs

    def check(self) -> None:
        """Refuse a number of jobs below 1."""
        if self.n_jobs is not None and not (isinstance(self.n_jobs, int) and self.n_jobs >= 1):
            raise errors.InputError(f"hydra.launcher.n_jobs must be 1 or more, got {self.n_jobs}; null: one a device")

    def run(self, jobs: Sequence[SweepJob], configs: Sequence[DictConfig], on_end: OnEnd) -> int | None:
        """Run the jobs side by side."""
        on_cpu = all(config.trainer.get("accelerator") == "cpu" for config in configs)
        return run_jobs(jobs, device_slots(self.n_jobs, [] if on_cpu else visible_devices()), on_end)[1]


class SubmititLauncher(CommandLauncher):
    """Jobs of SLURM, or of a cluster that submitit imitates on this machine.

    Args:
        cluster: "slurm" or "local".
        folder: for submitit's files; ``%j`` is the id of a job.
        max_num_timeout: how often a job goes on after its time was over.
        parameters: submitit's own, which ``conf/hydra/launcher/`` lists.
    """

    def __init__(self, *, cluster: str, folder: str, max_num_timeout: int, **parameters: Any) -> None:
        self.cluster, self.folder, self.max_num_timeout = cluster, folder, max_num_timeout
        self.parameters = {key: plain(value) for key, value in parameters.items()}

    def check(self) -> None:
        """Refuse to start without submitit."""
        require("submitit", f"submitit_{self.cluster}", "cluster")

    def run(self, jobs: Sequence[SweepJob], configs: Sequence[DictConfig], on_end: OnEnd) -> int | None:
        """Submit the jobs, and wait for them."""
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")  # training handles it; submitit reads it at its import
        from n2n_lightning.launching.cluster import submit_jobs

        return submit_jobs(
            jobs,
            on_end,
            cluster=self.cluster,
            folder=self.folder,
            max_num_timeout=self.max_num_timeout,
            parameters=self.parameters,
        )


class RayLauncher(CommandLauncher):
    """Jobs on a Ray cluster.

    Args:
        address: of its head, or "auto"; None for a cluster of this machine alone.
        num_cpus: cores for each job.
        num_gpus: GPUs for each job, or a part of one.
    """

    def __init__(self, *, address: str | None, num_cpus: float, num_gpus: float) -> None:
        self.address, self.num_cpus, self.num_gpus = address, num_cpus, num_gpus

    def check(self) -> None:
        """Refuse to start without Ray."""
        require("ray", "ray", "ray")

    def run(self, jobs: Sequence[SweepJob], configs: Sequence[DictConfig], on_end: OnEnd) -> int | None:
        """Run the jobs, and wait for them."""
        from n2n_lightning.launching.ray_cluster import run_on_ray

        return run_on_ray(jobs, on_end, address=self.address, num_cpus=self.num_cpus, num_gpus=self.num_gpus)


def device_slots(n_jobs: int | None, devices: Sequence[str]) -> Slots:
    """Return the slots for jobs: CUDA devices, or shares of the cores.

    Args:
        n_jobs: jobs at a time, or None; see ``DevicesLauncher``.
        devices: as in ``CUDA_VISIBLE_DEVICES``.
    """
    from joblib import cpu_count  # respects the limits of containers

    cores = int(cpu_count())
    if not devices:
        names, variable = [""] * (n_jobs or cores), None
    else:
        names, variable = list(devices[:n_jobs]), "CUDA_VISIBLE_DEVICES"

    def environment(taken: Sequence[str], asked: int) -> Mapping[str, str]:
        threads = max(1, cores * len(taken) // (len(names) * asked))  # of each process, one for each slot asked for
        shared = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        return shared if variable is None else {**shared, variable: ",".join(taken)}

    return Slots(names, environment)


def visible_devices() -> list[str]:
    """Return the CUDA devices that this process may use, as in ``CUDA_VISIBLE_DEVICES``."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [name.strip() for name in named[:count]] if named != [""] else [str(number) for number in range(count)]


def run_folder(config: DictConfig) -> Path:
    """Return the absolute path of the folder that Hydra gives to a job of a sweep."""
    HydraConfig.instance().set_config(config)  # which the resolvers of its name read
    return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()


def job_return(config: DictConfig, outcome: Outcome) -> JobReturn:
    """Return what Hydra's sweepers and callbacks expect of a job."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    returned = JobReturn(overrides=list(config.hydra.overrides.task), cfg=own, hydra_cfg=config)
    returned.status, returned.task_name = JobStatus.COMPLETED, config.hydra.job.name
    returned.return_value = job_value(outcome)
    return returned


def require(module: str, launcher: str, extra: str) -> None:
    """Refuse a launcher whose package is not installed."""
    if importlib.util.find_spec(module) is None:
        raise errors.InputError(f"hydra/launcher={launcher} needs {module}; pip install 'n2n_lightning[{extra}]'")


def register_launchers() -> None:
    """Let Hydra find the launchers, which other applications would find in a package ``hydra_plugins`` too.

    Launchers of the same names, of hydra-submitit-launcher and hydra-ray-launcher, give way.
    """
    for launcher in (DevicesLauncher, SubmititLauncher, RayLauncher):
        register_plugin(launcher)
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in {f"{name}.yaml" for name in NAMES} & set(stored):
        del stored[name]
