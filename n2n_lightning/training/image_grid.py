"""Callbacks that look at the estimates of a validation: pictures for TensorBoard, and what the denoiser removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor

from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.residuals import (
    NEAR_PX,
    autocorrelation_picture,
    autocovariance,
    error_picture,
    largest_correlation,
    pair_error_map,
    residual_picture,
    triple_error_map,
)
from n2n_lightning.training.loggers import log_picture


class ImageGrid(pl.Callback):
    """Log pictures of the first validation images, one row an image.

    ``val/images`` is noisy | denoised | target. The target is the clean image, or the second noisy one if there is no
    clean one; single images have none. ``val/residual`` is noisy minus denoised, and its autocorrelation. With noisy
    pairs, ``val/error_map`` is denoised, and the estimated error of its regions. ``residuals`` says how they are drawn.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self.columns: list[Tensor] = []  # noisy, denoised and any target: (n, C, H, W) float32 in [0, 1] on the CPU
        self.residual: Tensor | None = None  # (n, C, H, W) float32 on the CPU, noisy minus denoised, not clipped
        self.error: Tensor | None = None  # (n, 1, H, W) float32 in [0, 1] on the CPU, from ``error_picture``

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
            self.columns, self.residual, self.error = [], None, None
        missing = self.count - (len(self.columns[0]) if self.columns else 0)
        if missing > 0:
            batch = batch.map(lambda images: images[:missing])
            estimate = outputs[:missing]
            target = batch.target if batch.clean is None else batch.clean
            shown = (images for images in (batch.source, estimate, target) if images is not None)
            assert isinstance(pl_module, DenoiserModule)
            low, high = pl_module.limits  # black and white of the pictures
            new = [((images - low) / (high - low)).clamp(0, 1).cpu() for images in shown]
            self.columns = [torch.cat(both) for both in zip(self.columns, new, strict=True)] if self.columns else new
            self.residual = append(self.residual, batch.source - estimate)
            if batch.target is not None:
                self.error = append(self.error, estimated_error(pl_module, batch, estimate))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.loggers or self.residual is None:
            return
        pictures = {"val/images": self.columns}
        pictures["val/residual"] = [residual_picture(self.residual), autocorrelation_picture(self.residual)]
        if self.error is not None:
            pictures["val/error_map"] = [self.columns[1], self.error]
        for tag, columns in pictures.items():
            log_picture(trainer.loggers, tag, side_by_side(columns), trainer.global_step)


class ResidualCorrelation(pl.Callback):
    """Measure the autocorrelation of noisy minus denoised, over all validation images."""

    def __init__(self) -> None:
        self.covariance: Tensor | None = None  # (side, side) float64 on the CPU: sum over images

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: NoisyPair,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        covariance = autocovariance(batch.source - outputs, NEAR_PX)
        if covariance.shape[-1] == 2 * NEAR_PX + 1:  # smaller images have too few lags
            total = covariance.sum(0).double().cpu()
            self.covariance = total if self.covariance is None else self.covariance + total

    def value(self) -> float | None:
        """Return the largest correlation at lags of 1 and 2 px; None if all images are smaller than 3 px."""
        return None if self.covariance is None else largest_correlation(self.covariance)


def append(images: Tensor | None, more: Tensor) -> Tensor:
    """Return both on the CPU, one after the other. (n, C, H, W) or None, (m, C, H, W) -> (n + m, C, H, W)."""
    return more.cpu() if images is None else torch.cat([images, more.cpu()])


def estimated_error(module: pl.LightningModule, pair: NoisyPair, estimate: Tensor) -> Tensor:
    """Estimate the error of regions from two or more noisy images. (N, C, H, W) float32 -> (N, 1, H, W) in [0, 1]."""
    noisy, second, third = pair.source, pair.target, pair.third
    assert second is not None
    if third is None:
        errors = pair_error_map(estimate, module(second), noisy, second)
        noise = 0.5 * (noisy - second).square()
    else:
        errors, noise = triple_error_map(estimate, second, third), (noisy - second) * (noisy - third)
    return error_picture(errors, noise.flatten(1).mean(1))


def side_by_side(columns: Sequence[Tensor]) -> Tensor:
    """Put images beside each other, one row each. (n, C or 1, H, W) each -> (C, n H, columns W); C is 1 or 3."""
    channels = columns[0].shape[1] if columns[0].shape[1] in (1, 3) else 1
    shown = [images[:, :channels].expand(-1, channels, -1, -1) for images in columns]
    return torch.cat(shown, dim=3).transpose(0, 1).flatten(1, 2)


def to_bytes(images: Tensor) -> npt.NDArray[np.uint8]:
    """Return pictures as 8 bits. (n, C, H, W) float32 in [0, 1] -> (n, H, W, C) uint8."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
