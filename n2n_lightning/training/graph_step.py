"""The whole training step as one CUDA graph: captured once for each shape of batch, then replayed.

Launching each kernel of a small net from Python takes longer than the kernels themselves. A graph launches all at once:
forward, loss, backward, gradient clipping, optimizer and averaged weights. Everything around the step stays Lightning's
automatic optimization: counters, schedulers, checkpoints and callbacks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from torch import Tensor, nn
from torch.optim import Optimizer

from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.averaging import StepAveraging

WARM_UP = 3  # steps of each shape of batch before it is captured: libraries choose kernels, optimizers make their state
Step = Callable[[], Tensor]  # makes a training step, and returns its loss


class Recorder(Protocol):
    """What runs and captures steps."""

    def run(self, step: Step) -> Tensor:
        """Make a step as it is written, and return its loss."""

    def capture(self, step: Step) -> Step:
        """Return what repeats a step with the same tensors. Nothing is computed now."""


class CudaRecorder:
    """Capture steps as CUDA graphs, after steps on the same stream, as PyTorch's documentation asks."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def run(self, step: Step) -> Tensor:
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            loss = step()
        current.wait_stream(self.stream)
        return loss

    def capture(self, step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            loss = step()

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay


@dataclass
class ShapeSteps:
    """The steps of one shape of batch."""

    pair: NoisyPair  # the tensors that each batch is copied into
    warm: int = 0  # steps before the capture
    repeat: Step | None = None  # the captured step


class GraphLoop(_AutomaticOptimization):
    """The part of Lightning's automatic optimization that makes a step, as one call that can be captured.

    Args:
        trainer: of the run.
        recorder: captures the steps.
    """

    def __init__(self, trainer: pl.Trainer, recorder: Recorder) -> None:
        super().__init__(trainer)
        self.recorder = recorder
        self.shapes: dict[tuple[Any, ...], ShapeSteps] = {}
        self.rates: list[Tensor] = []  # learning rate of each group of weights, on the device

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """Make a step with the batch in ``kwargs``, and count it; return its loss as Lightning does."""
        counts = self.optim_progress.optimizer
        counts.step.increment_ready()
        counts.zero_grad.increment_ready()
        counts.zero_grad.increment_started()
        self.set_rates(optimizer)
        pair: NoisyPair = kwargs["batch"]
        loss = self.step(optimizer, pair)
        self.module.train_loss.update(loss, pair.counted)
        counts.zero_grad.increment_completed()
        counts.step.increment_completed()
        return {"loss": loss.clone()}  # the next step writes where this one's loss is

    @property
    def module(self) -> DenoiserModule:
        assert isinstance(self.trainer.lightning_module, DenoiserModule)
        return self.trainer.lightning_module

    @property
    def averaging(self) -> StepAveraging | None:
        """The callback that averages the weights, if there is one."""
        callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        return next((callback for callback in callbacks if isinstance(callback, StepAveraging)), None)

    def step(self, optimizer: Optimizer, pair: NoisyPair) -> Tensor:
        """Copy the batch to where its shape's steps take it from, and make a step there."""
        tensors = {name: getattr(pair, name) for name in ("source", "target", "mask")}  # what a loss of pairs uses
        key = tuple(None if x is None else (x.shape, x.stride(), x.dtype) for x in tensors.values())
        if key not in self.shapes:
            self.shapes[key] = ShapeSteps(NoisyPair(**tensors).map(torch.empty_like))
        steps = self.shapes[key]
        for name, images in tensors.items():
            if images is not None:
                getattr(steps.pair, name).copy_(images)
        is_warmed_up = steps.warm == WARM_UP
        if averaging := self.averaging:
            averaging.in_step = is_warmed_up
        if not is_warmed_up:
            steps.warm += 1
            return self.recorder.run(lambda: self.whole_step(optimizer, steps.pair, captured=False))
        if steps.repeat is None:
            steps.repeat = self.recorder.capture(lambda: self.whole_step(optimizer, steps.pair, captured=True))
        return steps.repeat()

    def whole_step(self, optimizer: Optimizer, pair: NoisyPair, *, captured: bool) -> Tensor:
        """Make the step that is captured: forward, loss, backward, clipping, optimizer, averaged weights."""
        optimizer.zero_grad()
        with self.trainer.precision_plugin.train_step_context():
            loss = self.module.training_loss(pair)
        loss.backward()
        if limit := self.trainer.gradient_clip_val:
            by_value = self.trainer.gradient_clip_algorithm == "value"
            clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
            clip(self.module.net.parameters(), limit)
        with self.on_device(optimizer, captured=captured):
            optimizer.step()
        if captured and (averaging := self.averaging):
            averaging.update(self.module)
        return loss.detach()

    def set_rates(self, optimizer: Optimizer) -> None:
        """Write the learning rates, which the schedulers set as numbers, to where captured steps read them."""
        if not self.rates:
            device = self.module.device
            # fused kernels of CUDA read a rate of 32 bits; a CPU has the bits of a number with one of 64
            dtype = torch.float32 if device.type == "cuda" else torch.float64
            self.rates = [torch.empty((), dtype=dtype, device=device) for _ in optimizer.param_groups]
            for state in optimizer.state.values():  # of a checkpoint: fused kernels count steps on the device
                if "step" in state:
                    state["step"] = state["step"].to(device)
        for rate, group in zip(self.rates, optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    @contextmanager
    def on_device(self, optimizer: Optimizer, *, captured: bool) -> Iterator[None]:
        """Let the optimizer keep all it needs on the device within the block; its settings stay, for checkpoints."""
        own = [dict(group) for group in optimizer.param_groups]
        for rate, group in zip(self.rates, optimizer.param_groups, strict=True):
            group.update(lr=rate, fused=True, foreach=False)
            if "capturable" in group:
                group["capturable"] = captured
        try:
            yield
        finally:
            for group, before in zip(optimizer.param_groups, own, strict=True):
                group.update(before)


def use_graphs(trainer: pl.Trainer, recorder: Recorder | None) -> pl.Trainer:
    """Let a Trainer make its steps through a recorder; None changes nothing."""
    if recorder is not None:
        trainer.fit_loop.epoch_loop.automatic_optimization = GraphLoop(trainer, recorder)
    return trainer
