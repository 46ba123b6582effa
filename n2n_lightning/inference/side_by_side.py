"""Tasks on files that run side by side in threads, within one budget of memory; what they say is told in order."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NamedTuple

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from n2n_lightning.system.memory import KEPT_BYTES, trim_heaps


class Message(NamedTuple):
    """A line for the console."""

    text: str
    is_warning: bool = False  # goes to standard error

    def show(self) -> None:
        print(self.text, file=sys.stderr if self.is_warning else sys.stdout, flush=True)


class StoppedError(BaseException):
    """Ends a task whose result nobody waits for any more. No handler of errors of files takes it."""


class Task(NamedTuple):
    """Work on a file."""

    needed_bytes: float  # memory that it takes while it runs
    work: Callable[[Reporter], None]


@dataclass(frozen=True)
class Reporter:
    """Takes what a task says, until it is its turn on the console.

    Args:
        shares: of all tasks.
        said: messages; None comes last.
    """

    shares: Shares
    said: SimpleQueue[Message | None] = field(default_factory=SimpleQueue)

    def say(self, text: str, *, is_warning: bool = False) -> None:
        """Say a line, on standard error if it is a warning."""
        self.said.put(Message(text, is_warning))

    def check(self) -> None:
        """Raise a StoppedError if the command was stopped."""
        self.shares.check()


class Progress(NamedTuple):
    """A task that waits, runs or is done."""

    reporter: Reporter
    future: Future[None]

    def finish(self) -> None:
        """Show what the task says, as soon as it says it, until it is done; raise the exception that ended it."""
        while not self.show_next():
            pass
        self.future.result()

    def show_next(self) -> bool:
        """Show the next message, if there is one soon; return whether it was the last."""
        try:
            message = self.reporter.said.get(timeout=0.5)  # Windows answers no Ctrl-C while it waits
        except Empty:
            return False
        if message is not None:
            message.show()
        return message is None

    def show_rest(self) -> None:
        """Show what a task that was done in time has said, and nobody has heard."""
        if self.future.done() and not self.future.cancelled() and self.future.exception() is None:
            while not self.reporter.said.empty() and not self.show_next():
                pass


class Shares:
    """What tasks share: memory, and the cores.

    Args:
        free_bytes: memory for all tasks that run at one time. A task that needs more runs alone.
        cores: number of threads for all nets together.
    """

    def __init__(self, free_bytes: float, cores: int) -> None:
        self.free_bytes, self.cores = free_bytes, cores
        self._started = self._running = 0  # numbers of tasks
        self._is_stopped = False
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, number: int, needed_bytes: float) -> Iterator[None]:
        """Wait until all tasks before this one have started and there is memory for it, which it has until the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._may_start(number, needed_bytes))
            self.check()
            self._started, self._running = self._started + 1, self._running + 1
            self.free_bytes -= needed_bytes
            is_tight = self.free_bytes < self.cores * KEPT_BYTES
            self._changed.notify_all()
        if is_tight:
            trim_heaps()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self.free_bytes += needed_bytes
                self._changed.notify_all()

    def _may_start(self, number: int, needed_bytes: float) -> bool:
        return number == self._started and (needed_bytes <= self.free_bytes or self._running == 0)

    def stop(self) -> None:
        """End all tasks: those that wait at once, those that run at their next ``check``."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise a StoppedError after ``stop``."""
        if self._is_stopped:
            raise StoppedError

    def before_layer(self, *_: object) -> None:
        """Give a net in a task's thread its share of the cores, before each of its layers."""
        self.check()
        torch.set_num_threads(max(self.cores // max(self._running, 1), 1))


@contextmanager
def side_by_side(tasks: Sequence[Task], working_bytes: float) -> Iterator[list[Progress]]:
    """Start tasks in their order, as many at one time as there are cores and memory; end all of them at the exit.

    Nets that run side by side on a thread each take less time than one after the other on all cores, and a core that
    decodes or encodes a file keeps no other waiting.

    Args:
        tasks: their threads call nets.
        working_bytes: memory for them.

    Yields:
        The tasks in their order.
    """
    cores = torch.get_num_threads()
    shares = Shares(working_bytes, cores)

    def run(number: int, task: Task, reporter: Reporter) -> None:
        try:
            with shares.taken(number, task.needed_bytes):
                task.work(reporter)
        finally:
            reporter.said.put(None)

    hook = register_module_forward_pre_hook(shares.before_layer)  # of all modules: no others run meanwhile
    pool = ThreadPoolExecutor(max(min(len(tasks), cores), 1))
    started: list[Progress] = []
    try:
        for number, task in enumerate(tasks):
            reporter = Reporter(shares)
            started.append(Progress(reporter, pool.submit(run, number, task, reporter)))
        yield started
    finally:
        shares.stop()
        pool.shutdown(cancel_futures=True)
        for progress in started:
            progress.show_rest()
        hook.remove()
        torch.set_num_threads(cores)  # torch takes the last number for threads that it has not seen yet
