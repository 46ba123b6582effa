"""One run in several processes, the ranks: how they meet, agree and end.

Rank 0 checks the input and decides what is trained (its ``RankPlan``), and it alone writes and prints. The others wait
for the plan, and then take part in each step and each validation.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # torch does not list its public names

from n2n_lightning.system import errors
from n2n_lightning.system.ranks import follows
from n2n_lightning.training.settings import RunSettings
from n2n_lightning.training.single_noise import MeasuredNoise

LEADER = "N2N_LEADER"  # environment of the processes that rank 0 starts: its process id
GRACE_S = 10.0  # for a process to end by itself when another has died
POLL_S = 0.2  # between two looks at whether all ranks are there
ARRIVED = "n2n_lightning_arrived"  # in the store that the ranks share: how many are there


@dataclass(frozen=True)
class RankPlan:
    """What rank 0 tells the others."""

    settings: RunSettings  # with the length of the run
    folder: Path
    resume_from: Path | None
    resume_step: int
    noise: MeasuredNoise | None  # of single images


class RankStrategy(DDPStrategy):
    """Lightning's DDP, in which all ranks receive the plan of rank 0 when they meet; None: there is nothing to train.

    Several processes average the gradients. Tensors on the CPU go over gloo, those on CUDA devices over nccl.
    """

    has_met = False  # in this process, whichever strategy it was
    plan: RankPlan | None = None
    watch: RankWatch | None = None

    def on_wait(self) -> None:
        """Do nothing while other ranks are missing; a run may set what ends it after a signal."""

    def _get_process_group_backend(self) -> str:
        return "gloo" if self.root_device.type == "cpu" else "cpu:gloo,cuda:nccl"

    def setup_environment(self) -> None:
        """Meet the other ranks, unless this process has done so before."""
        if dist.is_initialized():
            super().setup_environment()
            return
        self.watch = RankWatch(self)
        super().setup_environment()
        self.plan = self.broadcast(self.plan)

    def setup_distributed(self) -> None:
        """Wait for the other ranks, and then connect to them, unless this process has done so before."""
        store = None
        if not dist.is_initialized():
            self.set_world_ranks()
            assert self.cluster_environment is not None and self._timeout is not None
            store = await_ranks(self.cluster_environment, self._timeout, self.on_wait)
            RankStrategy.has_met = True
        super().setup_distributed()
        del store  # rank 0 serves it, until torch does

    def leave(self) -> None:
        """Leave the other ranks, and wait until those that were started here have ended."""
        if dist.is_initialized():
            dist.destroy_process_group()
        if self.watch is not None:
            self.watch.end(stop=not RankStrategy.has_met)


def await_ranks(environment: ClusterEnvironment, limit: timedelta, on_wait: Callable[[], None]) -> Store:
    """Wait until all ranks are there; return the store that they share.

    Torch waits too, but would act on no signal meanwhile.

    Args:
        environment: says where the ranks meet, and how many there are.
        limit: wait so long.
        on_wait: called now and then.
    """
    ends = time.monotonic() + limit.total_seconds()
    address, port, ranks = environment.main_address, environment.main_port, environment.world_size()
    agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # that of torchrun
    serves = environment.global_rank() == 0 and not agent_serves

    def wait(arrived: int) -> None:
        if time.monotonic() > ends:
            minutes = limit.total_seconds() / 60
            raise RuntimeError(f"only {arrived} of {ranks} processes came to {address}:{port} in {minutes:.0f} minutes")
        on_wait()
        time.sleep(POLL_S)

    while not serves and not is_served(address, port):
        wait(0)
    store = TCPStore(address, port, ranks, serves, timeout=limit, wait_for_workers=False, multi_tenant=True)
    key = f"{ARRIVED}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"  # the agent's store outlives a restart
    store.add(key, 1)
    while (arrived := store.add(key, 0)) < ranks:
        wait(arrived)
    return store


def is_served(address: str, port: int) -> bool:
    """Return whether a process listens there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def meet(trainer: pl.Trainer, plan: RankPlan | None = None) -> RankPlan | None:
    """Meet the other ranks before anything is trained; return the plan of rank 0."""
    strategy = trainer.strategy
    assert isinstance(strategy, RankStrategy)
    strategy.plan = plan
    strategy.setup_environment()
    return strategy.plan


def largest(trainer: pl.Trainer, *values: int) -> list[int]:
    """Return the largest of each value over all ranks."""
    if trainer.world_size == 1:
        return list(values)
    found = torch.tensor(values)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    numbers: list[int] = found.tolist()
    return numbers


def gather(values: torch.Tensor) -> torch.Tensor:
    """Return the values of each rank: (n,) -> (ranks, n)."""
    if not dist.is_initialized():
        return values[None]
    found = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(found, values)
    return torch.stack(found)


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of each value over all ranks: (n,) -> (n,)."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def port_fault() -> str | None:
    """Return why rank 0 could not listen at MASTER_PORT of the environment; None if it can, or may choose a port."""
    port = os.environ.get("MASTER_PORT")
    if port is None:
        return None
    try:
        with socket.create_server((os.environ.get("MASTER_ADDR", "127.0.0.1"), int(port))):
            return None
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"MASTER_PORT must be a free port, got {port} ({reason}); set another, or leave it out"


class RankWatch:
    """End this process if a rank on this machine has died and the main thread still waits for it.

    It watches what Lightning's launcher has started; torchrun and SLURM watch theirs. Lightning's own observer would
    kill rank 0 before it can say why.
    """

    def __init__(self, strategy: RankStrategy) -> None:
        self.procs: list[subprocess.Popen[bytes]] = getattr(strategy.launcher, "procs", [])
        self.ended = threading.Event()
        self.leader = int(os.environ.get(LEADER, os.getppid()))  # it may have died before this process looks
        if not isinstance(strategy.cluster_environment, LightningEnvironment):
            return
        for thread in threading.enumerate():
            if thread.name == "child-process-observer":
                thread._run = lambda: True  # type: ignore[attr-defined]  # there is no public way to end it
        dead = self.parent_died if follows() else self.child_died
        threading.Thread(target=self.watch, args=(dead,), daemon=True).start()

    def child_died(self) -> bool:
        return any(process.poll() for process in self.procs)

    def parent_died(self) -> bool:
        return os.getppid() != self.leader

    def watch(self, dead: Callable[[], bool]) -> None:
        """Look once a second, until the training has ended."""
        while not self.ended.wait(1):
            if dead() and not self.ended.wait(GRACE_S):
                print(f"error: {LOST}", file=sys.__stderr__, flush=True)
                self.kill()
                os._exit(errors.FAILED)

    def kill(self) -> None:
        for process in self.procs:
            if process.poll() is None:
                process.kill()

    def end(self, *, stop: bool) -> None:
        """Wait until the processes that were started here have ended; ``stop`` those that wait for this one."""
        self.ended.set()
        for process in self.procs:
            if stop:
                process.terminate()
        for process in self.procs:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


LOST = "another process of this run has died; the same command goes on from the last checkpoint"


def lost_rank(error: BaseException) -> bool:
    """Return whether an error says that the connection to another rank is gone."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL")
    )
