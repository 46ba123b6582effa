"""When and how checkpoints are saved, and what ends a run early: signals, NaN and infinite losses."""

from __future__ import annotations

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
from n2n_lightning.system.atomic import DISK_FULL, atomic_write, link_or_copy
from n2n_lightning.system.safe_load import unsafe_part
from n2n_lightning.training.callbacks import RunRecord
from n2n_lightning.training.ranks import gather, largest, mean_over_ranks

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
TRAINER = "n2n_trainer"  # in a checkpoint: state of the Trainer that Lightning does not save
CHECK_INTERVAL = 50  # steps between checks of the loss on an accelerator, where each check waits for the device


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and only those that can be loaded without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if part := unsafe_part(checkpoint):
            fix = "the callback, optimizer or scheduler must return tensors and plain types from state_dict"
            raise errors.InputError(f"checkpoints hold only tensors and plain types, but {part}; {fix}")
        with atomic_write(Path(path)) as file:
            torch.save(checkpoint, file)


class FiniteLoss(pl.Callback):
    """End the run when the loss of a step is NaN or infinite, and report the step, the batch and the last losses."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, int, Tensor]] = []  # step, batch and loss that are still to be checked
        self.recent: deque[float] = deque(maxlen=4)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor = outputs["loss"] * trainer.accumulate_grad_batches  # Lightning has divided it by this
        self.pending.append((trainer.global_step, batch_idx + 1, loss))
        if loss.device.type == "cpu" or len(self.pending) >= CHECK_INTERVAL:
            self.check(trainer.current_epoch + 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check(trainer.current_epoch + 1)

    def check(self, epoch: int) -> None:
        """Check the pending losses; ``epoch`` counts from 1."""
        losses = mean_over_ranks(torch.stack([loss for *_, loss in self.pending])).tolist() if self.pending else []
        for (step, batch, _), loss in zip(self.pending, losses, strict=True):
            if not math.isfinite(loss):
                before = ", ".join(f"{value:.4g}" for value in self.recent) or "none"
                raise FloatingPointError(
                    f"the training loss became {loss} in step {step} (epoch {epoch}, batch {batch}); losses before it: "
                    f"{before}; lower optimizer.lr, or look for such values in the data"
                )
            self.recent.append(loss)
        self.pending = []


def stops_now(trainer: pl.Trainer) -> bool:
    """Return whether a callback has asked for the end of the run, and ``min_epochs`` and ``min_steps`` allow it."""
    enough = trainer.current_epoch >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
    return trainer.should_stop and enough


class RunCheckpoints(pl.Callback):
    """Save ``best.ckpt``, ``last.ckpt`` and the one before, so that a run can resume as if it had not stopped.

    Checkpoints are saved after validation, and between two steps. Register this callback after all callbacks whose
    state it saves.

    Args:
        folder: folder of the checkpoints.
        record: knows which epoch is the best.
        finite_loss: checks the losses before each save.
        minutes: save within an epoch when this many minutes have passed; None for no such saves.
        steps: save within an epoch every this many steps; None for no such saves.
    """

    def __init__(
        self, folder: Path, record: RunRecord, finite_loss: FiniteLoss, *, minutes: float | None, steps: int | None
    ) -> None:
        self.folder, self.record, self.finite_loss = folder, record, finite_loss
        self.minutes, self.steps = minutes, steps
        self.saved_at = time.monotonic()
        self.signal: int | None = None  # received, and not yet acted on
        self.process = os.getpid()
        self.restored: dict[str, Any] = {}
        # of the epoch's training loss while it is saved, (ranks, 2): float32 would add them up differently
        self.sums: Tensor | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what Lightning does not: the last metrics, and that a callback has asked for the end of the run."""
        checkpoint[TRAINER] = {"metrics": dict(trainer.callback_metrics), "should_stop": trainer.should_stop}
        if trainer.world_size > 1 and self.sums is not None:
            checkpoint[TRAINER]["sums"] = self.sums

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.restored = checkpoint.get(TRAINER, {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's handler of SIGTERM, which ends a run between two saves. Restore what Lightning does not.

        A resumed run calls ``on_train_epoch_end`` of an epoch that was saved after its validation.
        """
        self.saved_at = time.monotonic()
        self.set_handlers()
        trainer.callback_metrics.update(self.restored.get("metrics", {}))
        trainer.should_stop |= self.restored.get("should_stop", False)
        self.restore_sums(trainer)

    def restore_sums(self, trainer: pl.Trainer) -> None:
        """Give each rank its own sums of the training loss; with another number of ranks, rank 0 keeps all."""
        train_loss: Any = trainer.lightning_module.train_loss
        sums = self.restored.get("sums")
        if sums is not None and len(sums) == trainer.world_size > 1:
            own = sums[trainer.global_rank].to(train_loss.weight.device)
            train_loss.mean_value, train_loss.weight = own.clone().unbind()
        elif not trainer.is_global_zero:
            train_loss.reset()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or stops_now(trainer) or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # validation follows and saves, or accumulated gradients would be lost
        due = self.steps is not None and trainer.global_step % self.steps == 0
        due |= self.minutes is not None and time.monotonic() - self.saved_at >= 60 * self.minutes
        is_due, number = largest(trainer, due, self.signal or 0)
        if is_due or number:
            self.finite_loss.check(trainer.current_epoch + 1)
            self.save(trainer)
            self.exit_if_agreed(number)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (number,) = largest(trainer, self.signal or 0)
        epoch = 0 if trainer.sanity_checking else trainer.current_epoch + 1
        self.save(trainer, best=self.record.best.get("best_epoch") == epoch)
        self.exit_if_agreed(number)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            (self.folder / PREVIOUS).unlink(missing_ok=True)

    def save(self, trainer: pl.Trainer, *, best: bool = False) -> None:
        """Write ``last.ckpt``, and ``best.ckpt`` if the state is the best one; keep the old ``last.ckpt``."""
        if not all(bool(weights.isfinite().all()) for weights in trainer.lightning_module.parameters()):
            step = trainer.global_step
            raise FloatingPointError(f"weights became NaN or infinite by step {step}; lower optimizer.lr")
        last, best_path, leads = self.folder / LAST, self.folder / BEST, trainer.is_global_zero
        train_loss: Any = trainer.lightning_module.train_loss
        try:
            if isinstance(trainer.logger, TensorBoardLogger):
                trainer.logger.experiment.flush()  # a resumed run does not log again what came before its checkpoint
            if leads and last.exists():
                link_or_copy(last, self.folder / PREVIOUS)
            self.sums = gather(torch.stack([train_loss.mean_value, train_loss.weight]))
            with train_loss.sync_context():  # its sums over all ranks are saved
                trainer.save_checkpoint(best_path if best else last, weights_only=False)
            self.sums = None
            if leads and best and not trainer.sanity_checking:  # no run goes on from its start
                link_or_copy(best_path, last)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            fix = "free disk space, then the same command continues from the checkpoint before"
            raise OSError(error.errno, f"no room for a checkpoint in {self.folder}; {fix}") from error
        self.saved_at = time.monotonic()

    def exit_if_agreed(self, number: int) -> None:
        """End all ranks after the same step if one has received a signal; one that comes now waits for the next."""
        if number:
            sys.exit(errors.SIGNALS[signal.Signals(number)])

    def exit_if_signalled(self) -> None:
        if self.signal is not None:
            sys.exit(errors.SIGNALS[signal.Signals(self.signal)])

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Let the current step end and its state be saved. A second signal ends the run at once.

        A warning does not: SLURM sends it to every process of a job, which may pass it on too.
        """
        if os.getpid() != self.process:
            return  # a worker of the data loader, which ends with the run
        if self.signal is not None and number == errors.TIME_WARNING:
            return
        if self.signal not in (None, errors.TIME_WARNING):
            sys.exit(errors.SIGNALS[signal.Signals(number)])
        self.signal = number
        print("stopping when the state is saved; a second signal stops at once", file=sys.stderr, flush=True)

    def set_handlers(self) -> None:
        """Handle signals with ``on_signal``. Python allows this only in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in errors.SIGNALS:
                signal.signal(number, self.on_signal)

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle signals while the block runs. One that comes after the last save raises SystemExit at the end."""
        before = {number: signal.getsignal(number) for number in errors.SIGNALS}
        self.set_handlers()
        try:
            yield
            self.exit_if_signalled()
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)
