"""Run commands in processes of their own, side by side, so that none outlives this one. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from n2n_lightning.system.errors import SIGNALS

OUTCOME = "N2N_OUTCOME"  # environment of a job of a sweep in a process of its own: the file for how it ended
POLL_SECONDS = 0.05
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


class Command(NamedTuple):
    """A command line, where it runs, and how many slots it takes."""

    words: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]  # all of it but what the slots add
    slots: int = 1


class Slots(NamedTuple):
    """What the processes share out, such as devices.

    Args:
        names: of the slots.
        environment: called with the slots that a command gets, and how many it has asked for; returns its environment.
    """

    names: Sequence[str]
    environment: Callable[[Sequence[str], int], Mapping[str, str]]


ONE_SLOT = Slots(("",), lambda taken, asked: {})


def run_commands(commands: Sequence[Command], slots: Slots, on_end: Callable[[int, int], None]) -> int | None:
    """Run each command in a process of its own, as many at a time as there are slots.

    A signal is passed on to the processes that run. No other is started after it.

    Args:
        commands: they are started in this order.
        slots: a command that needs more than there are takes all of them.
        on_end: called with the number of a command and its return code, which is negative if a signal ended it.

    Returns:
        The last signal received; None without one.
    """
    waiting, free = deque(enumerate(commands)), list(slots.names)
    running: dict[int, tuple[subprocess.Popen[bytes], list[str]]] = {}
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process, _ in running.values():
            process.send_signal(number)

    with handling_signals(pass_on):
        try:
            while running or (waiting and not received):
                while waiting and not received and (needed := min(waiting[0][1].slots, len(slots.names))) <= len(free):
                    (number, command), taken = waiting.popleft(), [free.pop(0) for _ in range(needed)]
                    running[number] = start(command, slots.environment(taken, command.slots)), taken
                    for late in received:  # while it was started
                        running[number][0].send_signal(late)
                time.sleep(POLL_SECONDS)
                for number, (process, taken) in list(running.items()):
                    if process.poll() is not None:
                        del running[number]
                        free += taken
                        end_group(process)
                        on_end(number, process.returncode)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    return received[-1] if received else None


def start(command: Command, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, which a terminal's signals do not reach: they come from here."""
    return subprocess.Popen(command.words, cwd=command.cwd, env={**command.environment, **more}, start_new_session=True)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what a killed process has left behind, such as workers that load data."""
    if process.returncode < 0:
        with suppress(ProcessLookupError, PermissionError):  # there is nothing, or on macOS only zombies
            os.killpg(process.pid, signal.SIGKILL)


def obey_parent() -> None:
    """Unblock signals, which Ray's workers block; let Linux send SIGTERM when the parent ends, however it ends."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals with ``handler`` while the block runs. Python allows this only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
