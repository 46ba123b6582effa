"""Compare training steps of a device: ``python -m benchmarks.device_steps --root FOLDER``.

For each net and precision: a bare loop, the same step as one CUDA graph, and our training without a graph and with one.
Batches are 64 pairs of 32x32 px that stay on the device. For two nets, weights after 100 steps with a graph and without
are compared. Part of ``benchmarks.device``.
"""

from __future__ import annotations

import argparse
import inspect
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from benchmarks.measuring import configuration, machine, save
from benchmarks.tables import show
from n2n_lightning.data.pairs import TensorPairs
from n2n_lightning.models.module import OPTIMIZERS, DenoiserModule, make_optimizer
from n2n_lightning.training.build import build_datamodule, build_module
from n2n_lightning.training.check import check_config
from n2n_lightning.training.graph_step import CudaRecorder, Recorder, Step
from n2n_lightning.training.run import fit, prepare_run, train
from n2n_lightning.training.settings import RunSettings

NETS = ("unet", "nn_relu", "nn_sigmoid", "convtrans_relu", "convtrans_sigmoid", "nafnet32")
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
OURS: dict[str, tuple[str, ...]] = {"ours eager": (), "ours graph": ("graph=true",)}  # column -> settings of train
COMPARED, COMPARED_STEPS = ("unet", "convtrans_relu"), 100  # nets and steps with a graph and without
NO_GRAPH = "no CUDA"
WARM_UP = 5


def device_of_choice() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class BareStep:
    """The plain training step: index, scale, forward, backward, update. ``chosen`` holds the batch's pair numbers."""

    def __init__(self, module: DenoiserModule, pairs: TensorPairs, batch_size: int, *, is_bf16: bool) -> None:
        device = device_of_choice()
        assert pairs.target is not None
        self.images = [images.to(device) for images in (pairs.source, pairs.target)]
        order = torch.randperm(len(pairs)).to(device)
        self.batches = [batch for batch in order.split(batch_size) if len(batch) == batch_size]
        self.chosen = self.batches[0].clone()
        self.net = module.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        spec = dict(module.optimizer_spec)
        if device.type == "cuda" and "capturable" in inspect.signature(OPTIMIZERS[spec["name"]]).parameters:
            spec["capturable"] = True
        self.optimizer = make_optimizer(spec, self.net.parameters())
        # within a graph, weights that are cast must not come from a cache that was filled outside
        self.autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=is_bf16, cache_enabled=False)

    def __call__(self) -> None:
        source, target = (
            images[self.chosen].to(torch.float32, memory_format=torch.channels_last).div_(255) for images in self.images
        )
        with self.autocast():
            loss = F.mse_loss(self.net(source).float(), target)
        self.optimizer.zero_grad()  # so that a graph's backward pass writes gradients, and adds nothing to them
        loss.backward()
        self.optimizer.step()

    def choose(self, number: int) -> None:
        """Let the next step take another batch."""
        self.chosen.copy_(self.batches[number % len(self.batches)])

    def milliseconds(self, steps: int, run: Callable[[], None]) -> float:
        """Return the milliseconds of a step that ``run`` makes with the next batch of pairs."""

        def step(number: int) -> None:
            self.choose(number)
            run()

        return milliseconds(steps, step)


def milliseconds(steps: int, run: Callable[[int], None]) -> float:
    """Return the milliseconds of a step; ``run`` takes its number, and a few are made before the clock starts."""
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            synchronize()
            started = time.perf_counter()
        run(number)
    synchronize()
    return 1e3 * (time.perf_counter() - started) / steps


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """Return the step as one CUDA graph, captured after a warm-up on a side stream as PyTorch's documentation asks."""
    side, current = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):  # its own, so that no two graphs share a library's work space
        step()
    replay: Callable[[], None] = graph.replay
    return replay


class StepClock(pl.Callback):
    """Measures the milliseconds of a step in the last epoch, validation left out."""

    milliseconds = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == min(WARM_UP, trainer.num_training_batches - 1):
            synchronize()
            self.first, self.started = batch_idx, time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == trainer.num_training_batches - 1:
            synchronize()
            self.milliseconds = 1e3 * (time.perf_counter() - self.started) / (batch_idx + 1 - self.first)


def measure(net: str, precision: str, data: list[str], steps: int) -> dict[str, Any]:
    """Return the milliseconds of each kind of step; a text instead where it cannot be measured."""
    config = configuration(*data, f"model={net}", f"trainer.precision={PRECISIONS[precision]}", "trainer.max_epochs=2")
    datamodule = build_datamodule(RunSettings.unchecked(config))
    datamodule.setup("fit")
    pairs = datamodule.sources["train"]
    assert isinstance(pairs, TensorPairs)
    make = partial(BareStep, pairs=pairs, batch_size=datamodule.batch_size, is_bf16=precision == "bf16")
    row: dict[str, Any] = {"net": net, "precision": precision}
    bare = make(build_module(RunSettings.unchecked(config), 3))
    row["bare eager"] = bare.milliseconds(steps, bare)
    row["bare graph"] = bare.milliseconds(steps, capture(bare)) if torch.cuda.is_available() else NO_GRAPH
    for column, settings in OURS.items():
        if "graph=true" in settings and not torch.cuda.is_available():
            row[column] = NO_GRAPH
            continue
        clock = StepClock()
        with tempfile.TemporaryDirectory() as folder:
            ours = configuration(
                *data, f"model={net}", f"trainer.precision={PRECISIONS[precision]}", "trainer.max_epochs=2", *settings
            )
            train(ours, Path(folder) / "run", {"model": net}, callbacks=[clock])
        row[column] = clock.milliseconds
    if not torch.cuda.is_available():
        row["difference"] = NO_GRAPH
    else:
        compares = net in COMPARED and precision == "fp32"
        row["difference"] = f"{graph_difference(net, data, CudaRecorder()):.1e}" if compares else "-"
    return row


class Launches:
    """A ``Recorder`` that makes every step as it is written."""

    def run(self, step: Step) -> torch.Tensor:
        return step()

    def capture(self, step: Step) -> Step:
        return step


def graph_difference(net: str, data: list[str], recorder: Recorder) -> float:
    """Return by how much weights differ after 100 steps with repeated steps and without, in float32.

    It is the largest difference of a weight, relative to the largest weight of its tensor. The optimizer is the same.
    """
    options = (f"trainer.limit_train_batches={COMPARED_STEPS}", "trainer.max_epochs=1", "+trainer.deterministic=warn")
    settings = check_config(configuration(*data, f"model={net}", *options))
    trained = []
    for kind in (Launches(), recorder):
        with tempfile.TemporaryDirectory() as folder:
            run = prepare_run(settings, Path(folder), {"model": net, "overrides": {}})
            fit(replace(run, recorder=kind), (), ())
        trained.append([weight.detach().cpu() for weight in run.module.net.parameters()])
    return max(float((one - other).abs().max() / one.abs().max()) for one, other in zip(*trained, strict=True))


def cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare bare steps, a CUDA graph of them, and our training.")
    parser.add_argument("--root", required=True, help="folder of photographs")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("overrides", nargs="*", help="further settings of train, such as data.batch_size=8")
    args = parser.parse_args()
    data = [f"data.root={args.root}", "data.train_pairs=4096", "data.val_pairs=100", *args.overrides]
    rows = []
    for precision in PRECISIONS:
        for net in args.nets.split(","):
            rows.append(measure(net, precision, data, args.steps))
            save("device_steps", {"rows": rows})  # so that what was measured outlasts a time limit
    print(f"{machine()}; milliseconds of a step")
    show([*rows[0]], ([cell(value) for value in row.values()] for row in rows))


if __name__ == "__main__":
    main()
