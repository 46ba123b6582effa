"""``DenoiserModule``: every step, what is logged, and the optimizer; written once for all architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau, StepLR
from torchmetrics import MeanMetric

from n2n_lightning.losses import LOSSES
from n2n_lightning.metrics import RestorationQuality
from n2n_lightning.pairs import NoisyPair

FORMAT = 1  # of what a checkpoint says of itself
Spec = Mapping[str, Any]  # {"name": ..., argument: value, ...}

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
SCHEDULERS: dict[str, Callable[..., LRScheduler]] = {
    "cosine": CosineAnnealingLR,
    "plateau": ReduceLROnPlateau,
    "step": StepLR,
}


def build(table: Mapping[str, Callable[..., Any]], spec: Spec, *first: Any, **defaults: Any) -> Any:
    """``table[spec.name]`` called with the spec's other entries, which win over ``defaults``."""
    return table[spec["name"]](*first, **(defaults | {key: value for key, value in spec.items() if key != "name"}))


def channels_last(module: DenoiserModule) -> DenoiserModule:
    """Lay the net's weights out as its convolutions run fastest; in place."""
    for parameter in module.net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


class DenoiserModule(pl.LightningModule):
    """Training and validation of a net on ``NoisyPair`` batches.

    A subclass has a constructor of plain values, which the checkpoint keeps, sets ``self.net``, and adds no step.

    Args:
        optimizer: name in ``OPTIMIZERS`` and its arguments.
        loss: name in ``LOSSES``.
        scheduler: name in ``SCHEDULERS`` and its arguments, or None; ``cosine`` moves each step and ends with the run,
            the others move each epoch.
    """

    family: str
    net: nn.Module

    def __init__(self, *, optimizer: Spec, loss: Spec, scheduler: Spec | None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.optimizer_spec, self.scheduler_spec = optimizer, scheduler
        self.loss = LOSSES[loss["name"]]
        # NaN for NaN: by default a diverged step's is left out of the mean, and "disable" drops the weights
        self.train_loss = MeanMetric(nan_strategy=float("nan"))
        self.val_loss = MeanMetric(nan_strategy=float("nan"))
        self.quality = RestorationQuality()
        self.scores: dict[str, Any] = {}  # of the latest validation
        self.train_loss.persistent(True)  # so that a run resumed within an epoch logs the whole epoch's mean

    def forward(self, noisy: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> same shape, unclipped."""
        estimate: Tensor = self.net(noisy)
        return estimate.float()

    def training_step(self, pair: NoisyPair, batch_idx: int) -> Tensor:
        estimate = self(pair.source)
        loss = self.loss(estimate, pair.target)
        self.train_loss.update(loss.detach(), len(pair.source))
        return loss

    def on_train_epoch_start(self) -> None:
        self.train_loss.reset()

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.train_loss.compute())

    def validation_step(self, pair: NoisyPair, batch_idx: int) -> Tensor:
        """Scores the batch; the estimate goes on to the callbacks."""
        estimate: Tensor = self(pair.source)
        reference = pair.target if pair.clean is None else pair.clean
        self.val_loss.update(self.loss(estimate, reference), len(estimate))
        if pair.clean is not None:
            self.quality.update(pair.source, estimate, pair.clean)
        return estimate

    def on_validation_epoch_end(self) -> None:
        self.scores = {"loss": self.val_loss.compute().item()}
        if len(self.quality.mse):
            self.scores |= self.quality.compute()
        for name in ("loss", "psnr", "psnr_pooled", "ssim"):
            if name in self.scores:
                self.log(f"val/{name}", self.scores[name], prog_bar=name == "psnr")

    def on_validation_epoch_start(self) -> None:
        self.val_loss.reset()
        self.quality.reset()

    def configure_optimizers(self) -> Any:
        optimizer = build(OPTIMIZERS, self.optimizer_spec, self.net.parameters())
        if self.scheduler_spec is None:
            return optimizer
        by_step = self.scheduler_spec["name"] == "cosine"
        defaults = {"T_max": int(self.trainer.estimated_stepping_batches)} if by_step else {}
        scheduler = build(SCHEDULERS, self.scheduler_spec, optimizer, **defaults)
        interval = "step" if by_step else "epoch"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": "val/loss"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        peak = 1.0 if datamodule is None else float(datamodule.data.peak)
        checkpoint["n2n_lightning"] = {"format": FORMAT, "family": self.family, "peak": peak}

    @torch.no_grad()
    def denoise(self, images: Tensor) -> Tensor:
        """(N, C, H, W), any H and W from 1 px -> same shape and type.

        Floats have 1 for the range and come back unclipped; uint8 is scaled by 255 and comes back rounded and clipped.
        """
        channels = self.hparams["channels"]
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise ValueError(f"images must be (N, {channels}, H, W), got {tuple(images.shape)}; reshape them first")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(
                f"images must be float or uint8, got {images.dtype}; scale them to float with 1 for the range"
            )
        was_training = self.training
        self.eval()
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        noisy = images.to(self.device, torch.float32, memory_format=torch.channels_last) / scale
        estimate: Tensor = self(noisy) * scale
        self.train(was_training)
        if images.dtype == torch.uint8:
            estimate = estimate.clamp(0, 255).round()
        return estimate.to(images.device, images.dtype)
