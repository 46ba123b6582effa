"""Adaptation of a trained denoiser to single noisy images whose noise is known, by recorruption (R2R).

The input is y + a z and the target y - z / a, where y is the noisy image and z is new noise of the same variance. Their
noises are independent, so training is as by Noise2Noise (Pang et al. 2021, "Recorrupted-to-Recorrupted").
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from n2n_lightning.models.module import DenoiserModule, make_optimizer
from n2n_lightning.system.errors import signal_exit_code
from n2n_lightning.training.checkpointing import FiniteLoss
from n2n_lightning.training.run import quiet_lightning

ALPHA = 1.0  # a above
LEARNING_RATE = 1e-4
EMA_DECAY = 0.99
BATCH, CROP_PX = 4, 64
GRADIENT_CLIP = 1.0
NoisyWindow = tuple[Tensor, Tensor]  # a noisy image and the variance of its noise, (C, H, W) float32 each


class RecorruptedCrops(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of inputs and targets without end, (B, C, h, w) float32 each in units of the range."""

    def __init__(self, windows: Sequence[NoisyWindow], seed: int) -> None:
        large = [window for window in windows if min(window[0].shape[1:]) >= CROP_PX]  # smaller ones set smaller crops
        self.windows, self.seed = large or windows, seed
        self.sides = [min(CROP_PX, *(noisy.shape[axis] for noisy, _ in windows)) for axis in (1, 2)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rng = torch.Generator().manual_seed(self.seed)
        weights = torch.tensor([float(noisy[0].numel()) for noisy, _ in self.windows])
        while True:
            chosen = torch.multinomial(weights, BATCH, replacement=True, generator=rng).tolist()
            crops = [self.crop(self.windows[number], rng) for number in chosen]
            noisy, variance = (torch.stack(parts) for parts in zip(*crops, strict=True))
            extra = variance.sqrt() * torch.randn(noisy.shape, generator=rng)
            yield noisy + ALPHA * extra, noisy - extra / ALPHA

    def crop(self, window: NoisyWindow, rng: torch.Generator) -> NoisyWindow:
        """Return the same random crop of both, flipped and rotated at random."""
        noisy, variance = window
        for axis, side in zip((1, 2), self.sides, strict=True):
            start = int(torch.randint(noisy.shape[axis] - side + 1, (), generator=rng))
            noisy, variance = (image.narrow(axis, start, side) for image in (noisy, variance))
        flips = [axis for axis in (1, 2) if torch.randint(2, (), generator=rng)]
        noisy, variance = noisy.flip(flips), variance.flip(flips)
        if self.sides[0] == self.sides[1] and torch.randint(2, (), generator=rng):
            noisy, variance = noisy.mT, variance.mT
        return noisy, variance


class Adaptation(pl.LightningModule):
    """Train a denoiser on recorrupted crops for a number of seconds, at a rate that falls to 0 as a cosine of the time.

    Args:
        module: the denoiser, whose net is trained in place.
        seconds: length of the training.
        advance: called with the seconds that a step took.
    """

    def __init__(self, module: DenoiserModule, seconds: float, advance: Callable[[float], None]) -> None:
        super().__init__()
        self.net, self.channels = module.net, int(module.hparams["channels"])
        self.seconds, self.advance = seconds, advance
        self.spent = 0.0
        self.began: float | None = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the squared error; grey images go through a net for colours as images whose channels are equal."""
        source, target = batch
        if source.shape[1] != self.channels:
            estimate = self.net(source.expand(-1, self.channels, -1, -1)).mean(1, keepdim=True)
        else:
            estimate = self.net(source)
        return torch.nn.functional.mse_loss(estimate, target)

    def on_train_start(self) -> None:
        self.began = time.monotonic()

    def on_train_batch_end(self, *_: object) -> None:
        assert self.began is not None
        before, self.spent = self.spent, time.monotonic() - self.began
        self.advance(self.spent - before)
        self.trainer.should_stop = self.spent >= self.seconds

    def on_train_batch_start(self, *_: object) -> None:
        factor = 0.5 + 0.5 * math.cos(math.pi * min(self.spent / self.seconds, 1.0))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = LEARNING_RATE * factor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer({"name": "adamw", "lr": LEARNING_RATE}, self.net.parameters(), clips=True)


def adapt(
    module: DenoiserModule,
    windows: Sequence[NoisyWindow],
    minutes: float,
    *,
    advance: Callable[[float], None] = lambda _: None,
    seed: int = 0,
) -> DenoiserModule:
    """Return a copy of a denoiser that is adapted to noisy images, in evaluation mode on the same device.

    Args:
        module: the denoiser, which stays as it is.
        windows: noisy images and the variance of their noise, of the net's number of channels or of one.
        minutes: length of the training.
        advance: called with the seconds that a step took.
        seed: of crops and noise.
    """
    quiet_lightning()
    adapted, device = copy.deepcopy(module), module.device
    training = Adaptation(adapted, 60 * minutes, advance)
    averaging = WeightAveraging(device, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    trainer = pl.Trainer(
        accelerator="cpu" if device.type == "cpu" else "auto",
        devices=1 if device.index is None else [device.index],
        max_epochs=1,
        gradient_clip_val=GRADIENT_CLIP,
        callbacks=[FiniteLoss(), averaging],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    adapted.train()
    with torch.random.fork_rng(devices=[]):
        try:
            trainer.fit(training, DataLoader(RecorruptedCrops(windows, seed), batch_size=None))
        except SystemExit as error:  # of Lightning, on a signal
            raise SystemExit(signal_exit_code(error)) from error
    return adapted.eval().to(device)
