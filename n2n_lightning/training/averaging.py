"""The average of the weights (``ema``), updated after a training step or within it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn


class StepAveraging(WeightAveraging):
    """An exponential average of the weights, which a captured step can update as well.

    After n steps, the decay is (1 + n) / (10 + n), but at most ``decay``. So the average covers the last ninth of a
    short training, and does not lag behind (as ``ExponentialMovingAverage`` of TensorFlow does with ``num_updates``).

    Args:
        device: that keeps the average.
        decay: above 0, below 1.
    """

    in_step = False  # whether the last step has updated it

    def __init__(self, device: str, decay: float) -> None:
        @torch.no_grad()
        def average(means: list[Tensor], values: list[Tensor], count: Tensor) -> None:
            if not means[0].is_floating_point():  # the counters of normalisations
                torch._foreach_copy_(means, values)
                return
            differences = torch._foreach_sub(values, means)
            torch._foreach_mul_(differences, (9 / (10 + count)).clamp_min(1 - decay))
            torch._foreach_add_(means, differences)

        super().__init__(device, multi_avg_fn=average)

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint, with and without a graph."""
        return WeightAveraging.__qualname__

    def update(self, module: nn.Module) -> None:
        """Update the average as ``AveragedModel`` does from its second update on, which reads the count each time."""
        averaged = self._average_model
        assert averaged is not None and averaged.multi_avg_fn is not None
        pairs = list(zip(values_of(averaged.module), values_of(module), strict=True))
        for floats in (True, False):  # the counters of normalisations are integers
            if chosen := [pair for pair in pairs if pair[0].is_floating_point() == floats]:
                means, values = map(list, zip(*chosen, strict=True))
                averaged.multi_avg_fn(means, values, averaged.n_averaged)
        averaged.n_averaged += 1

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.in_step:
            self._latest_update_step = trainer.global_step
        else:
            super().on_train_batch_end(trainer, *args, **kwargs)


def values_of(module: nn.Module) -> Iterator[Tensor]:
    """Yield the weights and the buffers, which an average covers."""
    return (value.detach() for value in chain(module.parameters(), module.buffers()))
