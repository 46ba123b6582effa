"""The whole training step as one CUDA graph: captured once for each shape of batch, then replayed.

Launching each kernel of a small net from Python takes longer than the kernels themselves. A graph launches all at once:
forward, loss, backward, gradient clipping, optimizer and averaged weights. Lightning calls the same hooks as without a
graph, so steps, schedulers, checkpoints and callbacks are counted and called as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
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
    """The steps of one shape of batch: the tensors that each batch is copied into, and what repeats the step."""

    pair: NoisyPair
    warm: int = 0  # steps before the capture
    repeat: Step | None = None


class GraphStrategy(SingleDeviceStrategy):
    """Lightning's strategy for one device, with steps that are captured and repeated.

    Args:
        device: that trains.
        recorder: captures the steps.
    """

    def __init__(self, device: torch.device, recorder: Recorder) -> None:
        super().__init__(device)
        self.recorder = recorder
        self.shapes: dict[tuple[Any, ...], ShapeSteps] = {}
        self.rates: list[Tensor] = []  # learning rate of each group of weights, on the device

    def training_step(self, pair: NoisyPair, batch_idx: int) -> Tensor:
        """Make the whole step, and return its loss. (N, C, H, W) float32 -> scalar."""
        self.set_rates()
        loss = self.step(pair)
        self.module.train_loss.update(loss, pair.counted)
        return loss

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Do nothing: ``training_step`` has done it."""
        return closure_loss

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """Let Lightning call ``training_step``, which makes the optimizer's step too."""
        return closure()

    @property
    def module(self) -> DenoiserModule:
        assert isinstance(self.lightning_module, DenoiserModule)
        return self.lightning_module

    @property
    def averaging(self) -> StepAveraging | None:
        """The callback that averages the weights, if there is one."""
        callbacks: list[pl.Callback] = self.module.trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        return next((callback for callback in callbacks if isinstance(callback, StepAveraging)), None)

    def step(self, pair: NoisyPair) -> Tensor:
        """Copy the batch to where its shape's steps take it from, and make a step there."""
        tensors = {name: getattr(pair, name) for name in ("source", "target", "mask")}  # what a loss of pairs uses
        key = tuple(None if x is None else (x.shape, x.stride(), x.dtype) for x in tensors.values())
        if key not in self.shapes:
            self.shapes[key] = ShapeSteps(NoisyPair(**tensors).map(torch.empty_like))
        steps = self.shapes[key]
        for name, images in tensors.items():
            if images is not None:
                getattr(steps.pair, name).copy_(images)
        is_warm = steps.warm == WARM_UP
        if averaging := self.averaging:
            averaging.in_step = is_warm
        if not is_warm:
            steps.warm += 1
            return self.recorder.run(lambda: self.whole_step(steps.pair, captured=False))
        if steps.repeat is None:
            steps.repeat = self.recorder.capture(lambda: self.whole_step(steps.pair, captured=True))
        return steps.repeat()

    def whole_step(self, pair: NoisyPair, *, captured: bool) -> Tensor:
        """Make the step that is captured: forward, loss, backward, clipping, optimizer, averaged weights."""
        module, (optimizer,) = self.module, self.optimizers
        optimizer.zero_grad()
        with self.precision_plugin.train_step_context():
            loss = module.training_loss(pair)
        loss.backward()
        if limit := module.trainer.gradient_clip_val:
            by_value = module.trainer.gradient_clip_algorithm == "value"
            clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
            clip(module.net.parameters(), limit)
        with self.on_device(optimizer, captured=captured):
            optimizer.step()
        if captured and (averaging := self.averaging):
            averaging.update(module)
        return loss.detach()

    def set_rates(self) -> None:
        """Write the learning rates, which the schedulers set as numbers, to where captured steps read them."""
        groups = self.optimizers[0].param_groups
        if not self.rates:
            # fused kernels of CUDA read a rate of 32 bits; a CPU has the bits of a number with one of 64
            dtype = torch.float32 if self.root_device.type == "cuda" else torch.float64
            self.rates = [torch.empty((), dtype=dtype, device=self.root_device) for _ in groups]
        for rate, group in zip(self.rates, groups, strict=True):
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

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the state, with the count of steps on the device; Lightning leaves it where it was."""
        super().load_optimizer_state_dict(checkpoint)
        for state in self.optimizers[0].state.values():
            if "step" in state:
                state["step"] = state["step"].to(self.root_device)

    def teardown(self) -> None:
        """Free the memory of the graphs."""
        self.shapes.clear()
        super().teardown()
