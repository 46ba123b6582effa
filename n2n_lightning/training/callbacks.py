"""Callbacks: progress lines, and the record of the run on disk."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from n2n_lightning.metrics import judge_net, psnr_db
from n2n_lightning.models.module import LOGGED, DenoiserModule
from n2n_lightning.residuals import residual_picture
from n2n_lightning.system.atomic import atomic_write, write_json
from n2n_lightning.training.image_grid import ImageGrid, to_bytes
from n2n_lightning.training.loggers import log_epoch

CSV_COLUMNS = ("epoch", "train/loss", "val/loss", "val/psnr", "val/ssim", "lr", "seconds")
NOISY_COLUMNS = (  # without clean images; those that exist
    *("val/loss_floor", "val/psnr_pairs", "val/psnr_pairs_low", "val/psnr_pairs_high"),
    "val/psnr_sure",
)


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1 as everywhere else."""

    def _get_train_description(self, current_epoch: int) -> str:
        text = f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{text:{len(self.validation_description)}}"  # as wide as the other bar's


class EpochLines(pl.Callback):
    """Print one line per epoch, for output that nobody watches, where a progress bar would be unreadable.

    Args:
        name: the run's name if several runs print to the same output, else "".
    """

    def __init__(self, name: str = "") -> None:
        self.start = f"{name}: " if name else ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        keys = ("val/loss", "val/loss_floor", "val/psnr", "val/psnr_pairs", "val/psnr_sure", "val/ssim")
        shown = {key: trainer.callback_metrics.get(key) for key in keys}
        values = "  ".join(f"{key} {float(value):.5g}" for key, value in shown.items() if value is not None)
        when = "start" if trainer.sanity_checking else f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{self.start}{when}  {values}", flush=True)


class RunRecord(pl.Callback):
    """Write ``metrics.csv``, ``result.json`` and ``images.npz`` into the run's folder after every epoch.

    Where Lightning validates before training (its "sanity check"), the weights that the run starts from count as epoch
    0, which can be the best one.

    The status is "interrupted" until the run has ended, so that it is also right for a run that was killed.

    Args:
        folder: the run's folder.
        metadata: entries of ``result.json`` that are known before training.
        monitor: metric that decides which epoch is best.
        image_grid: its images of the best epoch are saved.
        resumed: whether an earlier part of the run has left a record. Keep it until the callback's state is restored.
        writes: False for a rank that only needs to know which epoch is the best.
    """

    def __init__(
        self,
        folder: Path,
        metadata: dict[str, Any],
        monitor: str,
        image_grid: ImageGrid,
        *,
        resumed: bool,
        writes: bool = True,
    ) -> None:
        self.writes = writes
        self.folder, self.metadata, self.monitor, self.image_grid = folder, metadata, monitor, image_grid
        self.rows: list[dict[str, float | int]] = []
        self.best: dict[str, Any] = {}
        self.start_score: float | None = None  # the monitored value before training
        self.trained = {"images": 0, "seconds": 0.0}  # without the first epoch
        self.seconds_before = self.lr = 0.0
        self.started = self.epoch_started = time.perf_counter()
        self.complete = not resumed

    def state_dict(self) -> dict[str, Any]:
        state = {"rows": self.rows, "best": self.best, "trained": self.trained, "lr": self.lr}
        state |= {"start_score": self.start_score}
        return state | {"seconds": self.seconds, "epoch_seconds": time.perf_counter() - self.epoch_started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best, self.trained = state_dict["rows"], state_dict["best"], state_dict["trained"]
        self.seconds_before, self.lr = state_dict["seconds"], state_dict.get("lr", 0.0)
        self.start_score = state_dict.get("start_score")
        self.epoch_started = time.perf_counter() - state_dict.get("epoch_seconds", 0.0)

    @property
    def seconds(self) -> float:
        """Duration of the run, with its earlier parts."""
        return self.seconds_before + time.perf_counter() - self.started

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record for the first time. Lightning has restored the state of an earlier part by now."""
        self.complete = True
        self.write("interrupted")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_started = time.perf_counter()
        self.lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add up images and seconds of the epoch's training steps, which are over."""
        assert isinstance(pl_module, DenoiserModule)
        if trainer.sanity_checking:
            return
        if trainer.current_epoch == 1 and len(self.rows) == 1:
            self.trained = {"images": 0, "seconds": 0.0}
        self.trained["images"] += int(trainer.strategy.reduce(pl_module.train_loss.weight.clone(), reduce_op="sum"))
        self.trained["seconds"] += time.perf_counter() - self.epoch_started

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record and log the epoch. The checkpoints are written after this, so that they contain it."""
        assert isinstance(pl_module, DenoiserModule)
        epoch = 0 if trainer.sanity_checking else trainer.current_epoch + 1
        scores = {f"val/{name}": value for name, value in pl_module.scores.items()}
        if not np.isfinite(scores["val/loss"]):
            raise FloatingPointError(f"val/loss became {scores['val/loss']} in epoch {epoch}; lower optimizer.lr")
        of_training: dict[str, float] = {}
        if epoch:
            train_loss = pl_module.train_loss.compute().item()
            of_training = {"train/loss": train_loss, f"train/lr-{type(trainer.optimizers[0]).__name__}": self.lr}
            seconds = time.perf_counter() - self.epoch_started
            values = scores | {"epoch": epoch, "train/loss": train_loss, "lr": self.lr, "seconds": seconds}
            self.rows.append({key: values[key] for key in (*CSV_COLUMNS, *NOISY_COLUMNS) if key in values})
        else:
            self.start_score = scores[self.monitor]
        sign = -1 if self.monitor == "val/loss" else 1
        if not self.best or sign * scores[self.monitor] > sign * self.best[self.monitor]:
            self.best = {"best_epoch": epoch, **scores}
            if self.writes:
                self._save_images()
        if trainer.logger is not None and self.writes:
            logged = {key: scores[key] for name in LOGGED if (key := f"val/{name}") in scores}
            logged |= of_training | {f"{self.monitor}_best": self.best[self.monitor]}
            log_epoch(trainer.loggers, logged, trainer.global_step, self.folder)
        self.write("interrupted")

    def _save_images(self) -> None:
        arrays = [to_bytes(images) for images in self.image_grid.columns]
        named: Any = dict(zip(("noisy", "denoised", "target"), arrays, strict=False))  # single images have no target
        if self.image_grid.residual is not None:
            named["residual"] = to_bytes(residual_picture(self.image_grid.residual))
        with atomic_write(self.folder / "images.npz") as file:
            np.savez_compressed(file, **named)

    def verdict(self) -> tuple[str, str | None]:
        """Return the status of a run that was not cut off, and what is to be said of it, if anything."""
        if not self.rows:
            return "failed", "no epoch was trained"
        if self.monitor == "val/loss":
            return "done", None
        noisy_psnr = self.best[self.monitor.replace("psnr", "noisy_psnr")]
        if noisy_psnr >= psnr_db(0).item():  # so little noise that no denoiser can gain
            return "done", None
        constant = self.best.get("val/constant_channels", [])
        improving = self.best["best_epoch"] == len(self.rows)
        status, reason = judge_net(self.monitor, constant, self.best[self.monitor], noisy_psnr, improving=improving)
        if self.best["best_epoch"] == 0:
            kept = "no epoch is better than what it started from, which best.ckpt holds"
            reason = kept if reason is None else f"{reason}; {kept}"
        return status, reason

    def write_failure(self, status: str, reason: str) -> None:
        """Write the record of a run that failed, unless that would lose an earlier part of it."""
        try:
            if self.complete:
                self.write(status, reason)
        except OSError as error:  # the disk is full: the record stays as it was, and the run can be resumed
            print(f"warning: {self.folder / 'result.json'} cannot be written: {error}", file=sys.stderr, flush=True)

    def write(self, status: str, reason: str | None = None, **more: Any) -> None:
        """Write ``metrics.csv`` and ``result.json``, with ``more`` entries in the latter."""
        if not self.writes:
            return
        text = io.StringIO(newline="")
        extra = [key for key in NOISY_COLUMNS if any(key in row for row in self.rows)]
        table = csv.DictWriter(text, [*CSV_COLUMNS, *extra], restval="")
        table.writeheader()
        table.writerows(self.rows)
        with atomic_write(self.folder / "metrics.csv") as file:
            file.write(text.getvalue().encode())
        best, seconds = self.best, self.trained["seconds"]
        result = self.metadata | {
            "status": status,
            "reason": reason,
            "epochs": len(self.rows),
            "monitor": self.monitor,
            "best_epoch": best.get("best_epoch"),
            **({} if self.start_score is None else {"start_score": self.start_score}),
            **{key: best[key] for name in LOGGED if (key := f"val/{name}") in best},
            "noisy_psnr": best.get("val/noisy_psnr"),
            **{key: best[f"val/{key}"] for key in ("noisy_psnr_pairs", "noisy_psnr_sure") if f"val/{key}" in best},
            "images_per_second": self.trained["images"] / seconds if seconds else None,
            "seconds": self.seconds,
            **more,
        }
        write_json(self.folder / "result.json", result)
