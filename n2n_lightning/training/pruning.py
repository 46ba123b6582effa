"""End a run early that a search finds hopeless."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from n2n_lightning.models.module import DenoiserModule


class Pruning(pl.Callback):
    """Ask after each epoch whether the run is hopeless, and end it if so.

    The checkpoint of the epoch is written before this, so a run that was pruned can be trained to its end later.

    Args:
        is_hopeless: called with the epoch, counted from 1, and the value of the monitor.
    """

    def __init__(self, is_hopeless: Callable[[int, float], bool]) -> None:
        self.is_hopeless = is_hopeless
        self.monitor = ""
        self.reason: str | None = None  # why the run was ended; None for one that was not

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DenoiserModule)
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or 0
        value = float(trainer.callback_metrics[self.monitor])
        hopeless = trainer.is_global_zero and self.is_hopeless(epoch, value)
        if trainer.strategy.broadcast(hopeless) and (trainer.min_epochs or 0) <= epoch < last:
            self.reason = f"epoch {epoch}/{last}: {self.monitor} {value:.5g} is behind the other trials"
            trainer.should_stop = True
