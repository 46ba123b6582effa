"""Callbacks: picture grids, progress lines, and the run's record on disk."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.metrics import psnr_db, why_dead
from n2n_lightning.models.module import LOGGED, DenoiserModule
from n2n_lightning.system.atomic import atomic_write, write_json

COLUMNS = ("epoch", "train/loss", "val/loss", "val/psnr", "val/ssim", "lr", "seconds")
PAIR_COLUMNS = ("val/loss_floor", "val/psnr_pairs", "val/psnr_pairs_low", "val/psnr_pairs_high")  # where there are any
VAL_KEYS = ("val/psnr", "val/psnr_pooled", "val/ssim", "val/loss", *PAIR_COLUMNS)


class ImageGrid(pl.Callback):
    """``val/images`` in TensorBoard: the first validation images as rows of noisy | denoised | target.

    The target is the clean image where there is one, else the second noisy one; single images have none.

    Args:
        count: number of images.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self.columns: list[Tensor] = []  # noisy, denoised and any target; (n, C, H, W) float32 on the CPU

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: NoisyPair,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self.columns = []
        room = self.count - (len(self.columns[0]) if self.columns else 0)
        if room > 0:
            target = batch.target if batch.clean is None else batch.clean
            shown = (images for images in (batch.source, outputs, target) if images is not None)
            found = [images[:room].clamp(0, 1).cpu() for images in shown]
            self.columns = (
                [torch.cat(both) for both in zip(self.columns, found, strict=True)] if room < self.count else found
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(trainer.logger, TensorBoardLogger) and self.columns:
            row = torch.cat(self.columns, dim=3)  # side by side
            grid = row.transpose(0, 1).flatten(1, 2)  # (C, n * H, 3 * W)
            if grid.shape[0] not in (1, 3):
                grid = grid[:1]
            trainer.logger.experiment.add_image("val/images", grid, trainer.global_step)


class EpochLines(pl.Callback):
    """One line an epoch, for output that no person watches, where a progress bar would be noise.

    Args:
        name: of the run, where lines of several mix; "" for none.
    """

    def __init__(self, name: str = "") -> None:
        self.start = f"{name}: " if name else ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        keys = ("val/loss", "val/loss_floor", "val/psnr", "val/psnr_pairs", "val/ssim")
        shown = {key: trainer.callback_metrics.get(key) for key in keys}
        values = "  ".join(f"{key} {float(value):.5g}" for key, value in shown.items() if value is not None)
        print(f"{self.start}epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}", flush=True)


class RunRecord(pl.Callback):
    """Keeps ``metrics.csv``, ``result.json`` and ``images.npz`` in the run's folder true after every epoch.

    A run that has not ended counts as "interrupted", so that a killed one says so without having had the time to.

    Args:
        folder: the run's folder.
        facts: what is known before training; goes into ``result.json``.
        monitor: metric that decides which epoch is best.
        grid: whose pictures of the best epoch are kept.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], monitor: str, grid: ImageGrid) -> None:
        self.folder, self.facts, self.monitor, self.grid = folder, facts, monitor, grid
        self.rows: list[dict[str, float | int]] = []
        self.best: dict[str, Any] = {}
        self.trained = {"images": 0, "seconds": 0.0}  # the first epoch left out
        self.seconds_before = self.lr = 0.0
        self.started = self.epoch_started = time.perf_counter()
        self.begun = False  # until then the record of an earlier part is not known, and must not be overwritten

    def state_dict(self) -> dict[str, Any]:
        epoch_seconds = time.perf_counter() - self.epoch_started
        kept = {"rows": self.rows, "best": self.best, "trained": self.trained, "lr": self.lr}
        return kept | {"seconds": self.seconds, "epoch_seconds": epoch_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best, self.trained = state_dict["rows"], state_dict["best"], state_dict["trained"]
        self.seconds_before, self.lr = state_dict["seconds"], state_dict.get("lr", 0.0)
        self.epoch_started = time.perf_counter() - state_dict.get("epoch_seconds", 0.0)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The state of an earlier part of the run has been restored by now."""
        self.begun = True
        self.write("interrupted")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_started = time.perf_counter()
        self.lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's training is over: take its time."""
        assert isinstance(pl_module, DenoiserModule)
        self.train_seconds = time.perf_counter() - self.epoch_started
        if trainer.current_epoch == 1 and len(self.rows) == 1:
            self.trained = {"images": 0, "seconds": 0.0}
        self.trained["images"] += int(pl_module.train_loss.weight.item())
        self.trained["seconds"] += self.train_seconds

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs before the checkpoints are written, so that they know of this epoch, and all of it is logged by then."""
        assert isinstance(pl_module, DenoiserModule)
        scores = {f"val/{name}": value for name, value in pl_module.scores.items()}
        epoch = trainer.current_epoch + 1
        if not np.isfinite(scores["val/loss"]):
            raise FloatingPointError(f"val/loss became {scores['val/loss']} in epoch {epoch}; lower optimizer.lr")
        values = scores | {
            "epoch": epoch,
            "train/loss": pl_module.train_loss.compute().item(),
            "lr": self.lr,
            "seconds": time.perf_counter() - self.epoch_started,
        }
        self.rows.append({key: values[key] for key in (*COLUMNS, *PAIR_COLUMNS) if key in values})
        sign = -1 if self.monitor == "val/loss" else 1
        if not self.best or sign * scores[self.monitor] > sign * self.best[self.monitor]:
            self.best = {"best_epoch": epoch, **scores}
            self._save_images()
        if trainer.logger is not None:
            shown = {f"val/{name}": pl_module.scores[name] for name in LOGGED if name in pl_module.scores}
            shown |= {"train/loss": values["train/loss"], f"{self.monitor}_best": self.best[self.monitor]}
            shown |= {f"lr-{type(trainer.optimizers[0]).__name__}": self.lr}
            trainer.logger.log_metrics(shown, step=trainer.global_step)
        self.write("interrupted")

    def _save_images(self) -> None:
        arrays = [(images * 255).round().byte().permute(0, 2, 3, 1).numpy() for images in self.grid.columns]
        named: Any = dict(zip(("noisy", "denoised", "target"), arrays, strict=False))  # single images have no target
        with atomic_write(self.folder / "images.npz") as file:
            np.savez_compressed(file, **named)

    def verdict(self) -> tuple[str, str | None]:
        """Status and reason of a run that went to its end."""
        if not self.rows:
            return "failed", "no epoch was trained"
        if self.monitor == "val/loss":
            return "done", None
        noisy_psnr = self.best[self.monitor.replace("psnr", "noisy_psnr")]
        if noisy_psnr >= psnr_db(0).item():  # hardly any noise, or too little to be seen: nothing to compare with
            return "done", None
        constant = self.best.get("val/constant_channels", [])
        reason = why_dead(self.monitor, constant, self.best[self.monitor], noisy_psnr)
        return ("dead", reason) if reason else ("done", None)

    def write(self, status: str, reason: str | None = None, **more: Any) -> None:
        """Write ``metrics.csv`` and ``result.json``."""
        text = io.StringIO(newline="")
        extra = [key for key in PAIR_COLUMNS if any(key in row for row in self.rows)]
        table = csv.DictWriter(text, [*COLUMNS, *extra], restval="")
        table.writeheader()
        table.writerows(self.rows)
        with atomic_write(self.folder / "metrics.csv") as file:
            file.write(text.getvalue().encode())
        seconds = self.trained["seconds"]
        result = self.facts | {
            "status": status,
            "reason": reason,
            "epochs": len(self.rows),
            "monitor": self.monitor,
            "best_epoch": self.best.get("best_epoch"),
            **{key: self.best[key] for key in VAL_KEYS if key in self.best},
            "noisy_psnr": self.best.get("val/noisy_psnr"),
            **({"noisy_psnr_pairs": self.best["val/noisy_psnr_pairs"]} if "val/noisy_psnr_pairs" in self.best else {}),
            "images_per_second": self.trained["images"] / seconds if seconds else None,
            "seconds": self.seconds,
            **more,
        }
        write_json(self.folder / "result.json", result)
