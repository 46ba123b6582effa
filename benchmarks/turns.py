"""Run our training loop and a bare PyTorch loop of the same maths in turns, step by step, within one process.

So anything else that the machine does slows both down equally. Ours is the whole loop as ``train`` runs it, from the
start of one batch to the start of the next: loading, steps, callbacks, logging.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import NoisyPair, TensorPairs
from n2n_lightning.models.module import DenoiserModule, make_optimizer
from n2n_lightning.training.run import train


def bare_loop(module: DenoiserModule, datamodule: NoisyPairDataModule) -> Iterator[None]:
    """Run the plain loop, one step for each ``next``: index, scale, forward, backward, update."""
    net = copy.deepcopy(module.net)
    optimizer = make_optimizer(module.optimizer_spec, net.parameters())
    pairs = datamodule.sources["train"]
    assert isinstance(pairs, TensorPairs) and pairs.target is not None
    while True:
        order = torch.randperm(len(pairs))
        for chosen in order.split(datamodule.batch_size):
            source, target = (
                images[chosen].to(torch.float32, memory_format=torch.channels_last).div_(255)
                for images in (pairs.source, pairs.target)
            )
            loss = F.mse_loss(net(source), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


class Convolutions:
    """Runs the convolutions of a net alone: forward and backward of each one, and nothing between them.

    Args:
        net: the net; it is copied.
        images: (N, C, H, W) float32. The convolutions get the features that the net computes from this batch.
    """

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        self.calls: list[tuple[nn.Module, Tensor, Tensor]] = []
        net = copy.deepcopy(net)
        layers = [layer for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
        hooks = [layer.register_forward_hook(self.note) for layer in layers]
        with torch.enable_grad():
            net(images)
        for hook in hooks:
            hook.remove()

    def note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features = inputs[0].detach().clone(memory_format=torch.preserve_format)
        features.requires_grad_(inputs[0].requires_grad)  # no gradient is needed for the images
        self.calls.append((layer, features, torch.randn_like(output)))

    def seconds(self) -> float:
        """Run and time each convolution; return the sum. Within ``torch.no_grad``, only forward is run."""
        total = 0.0
        for layer, features, gradient in self.calls:
            wanted = [*layer.parameters(), *([features] if features.requires_grad else [])]
            started = time.perf_counter()
            output = layer(features)
            if output.requires_grad:
                torch.autograd.grad(output, wanted, gradient)
            total += time.perf_counter() - started
        return total


class InTurns(pl.Callback):
    """Runs and times a bare step before each step of the Trainer.

    The lists hold an entry for each step except the last one of an epoch, because validation follows it.

    Args:
        convolutions: run and time the net's convolutions instead of every second bare step.
    """

    def __init__(self, *, convolutions: bool = False) -> None:
        self.with_convolutions = convolutions
        self.bare_step: Callable[[], Any] | None = None
        self.convolutions: Convolutions | None = None
        self.over_bare: list[tuple[float, float]] = []  # seconds of our step, and of the bare step before it
        self.over_convolutions: list[tuple[float, float]] = []
        self.epochs: list[tuple[float, float]] = []  # seconds of whole epochs: ours with validation, and bare
        self.epoch = [0.0, 0.0]
        self.since = self.bare = self.alone = 0.0
        self.images = 0  # images of an epoch

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: NoisyPair, batch_idx: int) -> None:
        ours = time.perf_counter() - self.since
        if self.bare_step is None:
            self.images = len(trainer.datamodule.sources["train"])  # type: ignore[attr-defined]  # our datamodule has them
            self.bare_step = bare_loop(pl_module, trainer.datamodule).__next__  # type: ignore[attr-defined]
            if self.with_convolutions:
                self.convolutions = Convolutions(pl_module.net, batch.source)
        else:
            self.epoch[0] += ours
            if batch_idx == 0:
                self.epochs.append((self.epoch[0], self.epoch[1]))
                self.epoch = [0.0, 0.0]
            elif self.alone:
                self.over_convolutions.append((ours, self.alone))
            else:
                self.over_bare.append((ours, self.bare))
        if self.convolutions and batch_idx % 2:
            self.alone, self.bare = self.convolutions.seconds(), 0.0
        else:
            started = time.perf_counter()
            self.bare_step()
            self.alone, self.bare = 0.0, time.perf_counter() - started
        self.epoch[1] += self.bare
        self.since = time.perf_counter()


def train_in_temporary_folder(config: dict[str, Any], callback: pl.Callback) -> None:
    """Train with this callback in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", {"model": config["model"]["family"]}, callbacks=[callback])
