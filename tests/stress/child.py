"""Run the real ``train`` command in a forked process, which starts at once, and disturb it at a chosen moment."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch

from n2n_lightning import train
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.system import atomic
from n2n_lightning.training import callbacks, checkpointing

Trap = Callable[[], None]  # patches the child so that something happens to it later


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code, below 0 for a signal, and its output."""

    code: int
    output: str


def run_train(arguments: Sequence[str], cwd: Path, trap: Trap | None = None) -> Ending:
    """Run ``python -m n2n_lightning.train ARGUMENT...`` in ``cwd``, in a fork of this process.

    This process must not have computed with torch yet.
    """
    log = cwd / "output.txt"
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        become_train(arguments, cwd, log, trap)
    _, status = os.waitpid(process, 0)
    return Ending(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def train_to_end(arguments: Sequence[str], cwd: Path) -> Path:
    """Train in the new folder ``cwd`` without a disturbance; return the folder of the only run there."""
    cwd.mkdir(parents=True)
    ending = run_train(arguments, cwd)
    assert ending.code == 0, ending.output
    return only_run(cwd)


def only_run(cwd: Path) -> Path:
    """Return the folder of the only run that was started in ``cwd``."""
    (path,) = cwd.glob("outputs/*/*/result.json")
    return path.parent


def become_train(arguments: Sequence[str], cwd: Path, log: Path, trap: Trap | None) -> NoReturn:
    """Run the command in the child, and end the process with its exit code."""
    code = 99
    try:
        with log.open("wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        os.chdir(cwd)
        gc.freeze()  # what is loaded needs no collection after every job
        torch.set_num_threads(1)
        sys.argv = ["train", *arguments]
        if trap is not None:
            trap()
        code = train.main()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(
    owner: Any,
    function: Callable[..., Any],
    nth: int,
    action: Callable[[], None],
    *,
    after: bool = False,
    match: str = "",
) -> Trap:
    """Do ``action`` at the ``nth`` call of a function whose arguments as text contain ``match``.

    Args:
        owner: the class or module that it is called from.
        function: the function, which ``owner`` has under the function's own name.
        nth: number of the call, from 1.
        action: what to do.
        after: do it after the call instead of before.
        match: text.
    """
    name = function.__name__
    assert hasattr(owner, name), f"{owner} does not use {name}"

    def set_trap() -> None:
        original, calls = getattr(owner, name), 0

        def trapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            hit = match in str(args)
            calls += hit
            if hit and calls == nth and not after:
                action()
            result = original(*args, **kwargs)
            if hit and calls == nth and after:
                action()
            return result

        setattr(owner, name, trapped)

    return set_trap


def half_written(suffix: str, nth: int, action: Callable[[], None]) -> Trap:
    """Do ``action`` when a file with this suffix has been opened for the ``nth`` time and holds 4 KiB."""

    def look(path: str, opened: int, size: int) -> None:
        if path.endswith(suffix) and opened == nth and size > 4096:
            action()

    return lambda: on_write(look)


def disk_full_from(nth: int) -> Trap:
    """Let the ``nth`` write of the run, and every later one, fail as on a full disk."""
    written = 0

    def refuse(*_: Any) -> None:
        nonlocal written
        written += 1
        if written >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def set_trap() -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        on_write(refuse)
        for owner, name in ((RecordWriter, "write"), (os, "link"), (shutil, "copyfile"), (os, "mkdir")):
            original = getattr(owner, name)

            def full(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                refuse()
                return _original(*args, **kwargs)

            setattr(owner, name, full)

    return set_trap


def on_write(look: Callable[[str, int, int], None]) -> None:
    """Call ``look(path, times opened, bytes so far)`` before each write to a file that ``Path.open`` opened."""
    opened: dict[str, int] = {}
    original = Path.open

    class Watched:
        """A file that reports its writes."""

        def __init__(self, file: Any, path: str) -> None:
            self.file, self.path, self.size = file, path, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: Any) -> Any:
            look(self.path, opened[self.path], self.size)
            self.size += memoryview(content).nbytes if not isinstance(content, str) else len(content)
            return self.file.write(content)

    def watched(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = original(self, mode, *args, **kwargs)
        if not set(mode) & set("wax"):
            return file
        opened[str(self)] = opened.get(str(self), 0) + 1
        return Watched(file, str(self))

    Path.open = watched  # type: ignore[method-assign]


def within_training(seconds: float) -> Trap:
    """Kill the run ``seconds`` after training has started."""

    def set_trap() -> None:
        original = pl.Trainer.fit

        def timed(*args: Any, **kwargs: Any) -> Any:
            timer = threading.Timer(seconds, kill)
            timer.daemon = True
            timer.start()
            return original(*args, **kwargs)

        pl.Trainer.fit = timed  # type: ignore[method-assign]

    return set_trap


def named_moments() -> dict[str, Trap]:
    """Return traps that kill a run of several epochs, with a checkpoint every five steps, at ten named moments."""
    module, record = DenoiserModule, callbacks.RunRecord
    writer, optimizer = checkpointing.AtomicCheckpointIO, torch.optim.Adam
    return {
        "before the first step": at(module, module.training_step, 1, kill),
        "within a step, weights half updated": at(optimizer, optimizer.step, 17, kill, after=True),
        "last step of an epoch": at(module, module.training_step, 24, kill, after=True),
        "validation": at(module, module.validation_step, 2, kill),
        "a checkpoint is about to be written": at(writer, writer.save_checkpoint, 5, kill),
        "half a checkpoint is written": half_written("last.ckpt.part", 4, kill),
        "a checkpoint is written, not renamed": at(os, os.replace, 2, kill, match="best.ckpt"),
        "best is renamed, last is not": at(checkpointing, atomic.link_or_copy, 2, kill, match="best.ckpt"),
        "the table is written, the result is not": at(callbacks, atomic.write_json, 3, kill),
        "trained, and not recorded as done": at(record, record.write, 1, kill, match="'d"),
    }
