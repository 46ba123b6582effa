"""Callbacks as users write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from n2n_lightning import plugins


@plugins.callback("RateFromHistory")
class RateFromHistory(pl.Callback):
    """Set the learning rate from what happened so far, so that every weight depends on the state of this callback.

    Args:
        factor: of the rate after an epoch without a better ``val/psnr``.
    """

    def __init__(self, factor: float = 0.7) -> None:
        self.factor = factor
        self.scale, self.best = 1.0, -1.0
        self.loss = torch.zeros(())  # running mean
        self.rng = torch.Generator().manual_seed(5)
        self.calls: dict[str, int] = {}

    def count(self, hook: str) -> None:
        self.calls[hook] = self.calls.get(hook, 0) + 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.count("train_epoch_start")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.count("train_batch_start")
        jitter = torch.rand((), generator=self.rng).item()
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.01 * self.scale * (1 + jitter) / (1 + self.loss.item())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.count("train_batch_end")
        self.loss = 0.9 * self.loss + 0.1 * outputs["loss"].detach()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.count("validation_end")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.count("train_epoch_end")
        psnr = float(trainer.callback_metrics["val/psnr"])
        self.scale *= 1 if psnr > self.best else self.factor
        self.best = max(self.best, psnr)

    def state_dict(self) -> dict[str, Any]:
        state = {"scale": self.scale, "best": self.best, "loss": self.loss, "calls": dict(self.calls)}
        return state | {"rng": self.rng.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scale, self.best, self.loss = (state_dict[key] for key in ("scale", "best", "loss"))
        self.calls = dict(state_dict["calls"])
        self.rng.set_state(state_dict["rng"])


@plugins.callback("NumpyState")
class NumpyState(pl.Callback):
    """Keep a number of NumPy, which is no plain type; ``late``: only from the first epoch on."""

    def __init__(self, late: bool = False) -> None:
        self.value: Any = 0.0 if late else np.float64(0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.value = np.float64(1)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": [self.value]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["seen"][0]


@plugins.callback("Forgetful")
class Forgetful(pl.Callback):
    """Save a state, and never load it."""

    def state_dict(self) -> dict[str, Any]:
        return {"count": 1}


@plugins.callback("OwnBar")
class OwnBar(pl.callbacks.TQDMProgressBar):
    """A progress bar, which a run has already."""
