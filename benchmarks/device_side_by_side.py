"""Compare ways to train several small nets on one device: ``python -m benchmarks.device_side_by_side``.

The sequential nets of the study are trained one after the other, on a stream each, and in a process each. Three seeds
of a net are also trained as one net of grouped convolutions. On a CUDA device, each step is a graph. Images are random,
because only speed is measured. Part of ``benchmarks.device``.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import time
from collections.abc import Callable, Sequence
from threading import Barrier
from typing import Any

import torch
from torch import nn

from benchmarks.device_steps import NO_GRAPH, WARM_UP, BareStep, capture, cell, milliseconds, synchronize
from benchmarks.measuring import configuration, machine, save
from benchmarks.tables import show
from n2n_lightning.data.pairs import TensorPairs
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.build import build_module
from n2n_lightning.training.settings import RunSettings

NETS = ("nn_relu", "nn_sigmoid", "convtrans_relu", "convtrans_sigmoid")
SEEDED, SEEDS = ("convtrans_relu", "nn_relu"), 3
PAIRS, CHANNELS, SIDE_PX = 1024, 3, 32
BARRIER_SECONDS = 60  # until all processes have made their graphs


def module_of(net: str) -> DenoiserModule:
    return build_module(RunSettings.unchecked(configuration(f"model={net}", "init_from=null")), CHANNELS)


def bare_step(module: DenoiserModule, batch_size: int, seeds: int = 1) -> BareStep:
    """Return the plain training step of a net, or of so many seeds in one, on pairs of random images."""
    images = torch.randint(0, 256, (2, PAIRS, seeds * CHANNELS, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    return BareStep(module, TensorPairs(images[0], images[1]), batch_size, is_bf16=False)


def repeatable(step: BareStep) -> Callable[[], None]:
    """Return the step as a graph where there is CUDA, and as it is elsewhere."""
    return capture(step) if torch.cuda.is_available() else step


def grouped(modules: Sequence[DenoiserModule]) -> DenoiserModule:
    """Return N equal nets as one of grouped convolutions: (B, N * C, H, W) -> same shape, training as each does alone.

    The nets must have only convolutions without groups and what works on each channel alone. The loss is the mean over
    all nets, so the learning rate is N times as large, which makes the steps of SGD equal.
    """
    joined, nets = copy.deepcopy(modules[0]), [module.net for module in modules]
    for name, layer in nets[0].named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            sizes = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
            channels = (len(nets) * layer.in_channels, len(nets) * layer.out_channels)
            wide = type(layer)(*channels, groups=len(nets), **sizes)  # type: ignore[arg-type]  # of either class
            for key, values in wide.named_parameters():
                values.data = torch.cat([net.get_parameter(f"{name}.{key}").detach() for net in nets])
            joined.net.set_submodule(name, wide)
    joined.optimizer_spec = {**joined.optimizer_spec, "lr": len(nets) * joined.optimizer_spec["lr"]}
    return joined


def in_turn(modules: Sequence[DenoiserModule], count: int, batch_size: int, seeds: int = 1) -> int:
    """Train the nets, of so many seeds each, one after the other; return the images per second of all."""
    steps = [bare_step(module, batch_size, seeds) for module in modules]
    seconds = sum(step.milliseconds(count, repeatable(step)) for step in steps) / 1e3
    return round(len(steps) * seeds * batch_size / seconds)


def on_streams(modules: Sequence[DenoiserModule], count: int, batch_size: int) -> int | str:
    """Train the nets side by side on a CUDA stream each; return the images per second of all."""
    if not torch.cuda.is_available():
        return NO_GRAPH
    steps = [bare_step(module, batch_size) for module in modules]
    replays, streams = [capture(step) for step in steps], [torch.cuda.Stream() for _ in steps]

    def replay_all(number: int) -> None:
        for step, replay, stream in zip(steps, replays, streams, strict=True):
            with torch.cuda.stream(stream):
                step.choose(number)
                replay()

    synchronize()  # the streams must not start before the captures have ended
    return round(1e3 * len(steps) * batch_size / milliseconds(count, replay_all))


def in_processes(nets: Sequence[str], count: int, batch_size: int) -> int:
    """Train the nets side by side in a process each, start-up apart; return the images per second of all."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(nets) + 1, timeout=BARRIER_SECONDS)
    for net in nets:
        context.Process(target=train_at_barrier, args=(net, count, batch_size, barrier), daemon=True).start()
    barrier.wait()
    started = time.perf_counter()
    barrier.wait()
    return round(len(nets) * batch_size * (WARM_UP + count) / (time.perf_counter() - started))


def train_at_barrier(net: str, count: int, batch_size: int, barrier: Barrier) -> None:
    """Make a net's graph, wait for the others, train, and wait again."""
    step = bare_step(module_of(net), batch_size)
    run = repeatable(step)
    step.milliseconds(1, run)
    barrier.wait()
    step.milliseconds(count, run)
    barrier.wait()


def measure(nets: Sequence[str], count: int, batch_size: int) -> dict[str, Any]:
    """Return the images per second of each way to train these nets; equal ones differ in their seeds."""
    modules, are_seeds = [module_of(net) for net in nets], len(set(nets)) == 1
    row: dict[str, Any] = {"nets": f"{len(nets)} seeds of {nets[0]}" if are_seeds else " + ".join(nets)}
    row["graphs"] = "yes" if torch.cuda.is_available() else NO_GRAPH
    row["one after the other"] = in_turn(modules, count, batch_size)
    row["streams"] = on_streams(modules, count, batch_size)
    row["processes"] = "-" if are_seeds else in_processes(nets, count, batch_size)
    row["one grouped net"] = in_turn([grouped(modules)], count, batch_size, len(nets)) if are_seeds else "-"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to train several small nets on one device.")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    rows = []
    for nets in (args.nets.split(","), *([net] * SEEDS for net in SEEDED)):
        rows.append(measure(nets, args.steps, args.batch_size))
        save("device_side_by_side", {"unit": "images/s", "rows": rows})
    print(f"{machine()}; images per second of all nets together")
    show([*rows[0]], ([cell(value) for value in row.values()] for row in rows))


if __name__ == "__main__":
    main()
