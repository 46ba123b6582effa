"""When a run's state is kept, and how: checkpoints that are never half there, and what a signal or a NaN does."""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from n2n_lightning.system import errors
from n2n_lightning.system.atomic import atomic_write, link_or_copy
from n2n_lightning.training.callbacks import RunRecord

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
CHECKED_EVERY = 50  # steps, where a look at the loss would have to wait for the device
FULL = (errno.ENOSPC, errno.EDQUOT)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint aside, flushes it and renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_write(Path(path)) as file:
            torch.save(checkpoint, file)


class FiniteLoss(pl.Callback):
    """Ends the run when a step's loss is NaN or infinite, with the step, the batch and the values."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, int, Tensor]] = []  # step, batch and loss, not looked at yet
        self.recent: deque[float] = deque(maxlen=4)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor = outputs["loss"] * trainer.accumulate_grad_batches  # by which Lightning has divided it
        self.pending.append((trainer.global_step, batch_idx + 1, loss))
        if loss.device.type == "cpu" or len(self.pending) >= CHECKED_EVERY:
            self.check(trainer.current_epoch + 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check(trainer.current_epoch + 1)

    def check(self, epoch: int) -> None:
        """Look at what is pending of this epoch, counted from 1."""
        losses = torch.stack([loss for *_, loss in self.pending]).tolist() if self.pending else []
        for (step, batch, _), loss in zip(self.pending, losses, strict=True):
            if not math.isfinite(loss):
                before = ", ".join(f"{value:.4g}" for value in self.recent) or "none"
                raise FloatingPointError(
                    f"the training loss became {loss} in step {step} (epoch {epoch}, batch {batch}); losses before it: "
                    f"{before}; lower optimizer.lr, or look for such values in the data"
                )
            self.recent.append(loss)
        self.pending = []


class RunCheckpoints(pl.Callback):
    """Keeps ``best.ckpt``, ``last.ckpt`` and the one before that, so that a run goes on as if nothing had happened.

    A checkpoint is saved between two steps, or after an epoch's validation; nothing that a run writes lies between the
    latter and the next epoch. It must come after all callbacks whose state it keeps.

    Args:
        folder: of the checkpoints.
        record: knows which epoch is the best.
        loss: has looked at every step's.
        minutes: since the last checkpoint until the next; None for none within an epoch.
        steps: likewise, steps from one to the next.
    """

    def __init__(
        self, folder: Path, record: RunRecord, loss: FiniteLoss, *, minutes: float | None, steps: int | None
    ) -> None:
        self.folder, self.record, self.loss, self.minutes, self.steps = folder, record, loss, minutes, steps
        self.saved_at = time.monotonic()
        self.signal: int | None = None  # one that has come and is not answered yet
        self.process = os.getpid()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_at = time.monotonic()
        self.listen()  # in place of Lightning's handler of SIGTERM, which would end the run between two saves
        stopping = trainer.early_stopping_callback
        if stopping is not None and getattr(stopping, "wait_count", 0) >= getattr(stopping, "patience", math.inf):
            trainer.should_stop = True  # it had said so when the run was cut off, and says it once

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # validation follows, or gradients are under way that no checkpoint holds
        due = self.steps is not None and trainer.global_step % self.steps == 0
        due |= self.minutes is not None and time.monotonic() - self.saved_at >= 60 * self.minutes
        if due or self.signal is not None:
            self.loss.check(trainer.current_epoch + 1)
            self.save(trainer)
            self.answer()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer, best=self.record.best.get("best_epoch") == trainer.current_epoch + 1)
        self.answer()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (self.folder / PREVIOUS).unlink(missing_ok=True)

    def save(self, trainer: pl.Trainer, *, best: bool = False) -> None:
        """Write the state as ``last.ckpt``, and as ``best.ckpt`` where it is; the last one becomes the previous one."""
        if not all(bool(weights.isfinite().all()) for weights in trainer.lightning_module.parameters()):
            raise FloatingPointError(
                f"weights became NaN or infinite by step {trainer.global_step}; lower optimizer.lr"
            )
        last, best_yet = self.folder / LAST, self.folder / BEST
        try:
            if isinstance(trainer.logger, TensorBoardLogger):
                trainer.logger.experiment.flush()  # what a checkpoint counts as logged must be in the file
            if last.exists():
                link_or_copy(last, self.folder / PREVIOUS)
            trainer.save_checkpoint(best_yet if best else last, weights_only=False)
            if best:
                link_or_copy(best_yet, last)
        except OSError as error:
            if error.errno not in FULL:
                raise
            then = "free some, and the same command goes on from the checkpoint before"
            raise OSError(error.errno, f"no room for a checkpoint in {self.folder}; {then}") from error
        self.saved_at = time.monotonic()

    def answer(self) -> None:
        """End the run if a signal asked for it."""
        if self.signal is not None:
            sys.exit(errors.SIGNALS[signal.Signals(self.signal)])

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal is answered once the step at hand is done and kept; a second one ends the run at once."""
        if os.getpid() != self.process:
            return  # a loader's worker, which ends with the run
        if self.signal is not None:
            sys.exit(errors.SIGNALS[signal.Signals(number)])
        self.signal = number
        print("stopping once the state is kept; again stops at once", file=sys.stderr, flush=True)

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():  # only there Python lets signals be answered
            for number in errors.SIGNALS:
                signal.signal(number, self.note)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals, also one that comes too late for the last checkpoint: the same command then ends the run."""
        before = {number: signal.getsignal(number) for number in errors.SIGNALS}
        self.listen()
        try:
            yield
            self.answer()
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)
