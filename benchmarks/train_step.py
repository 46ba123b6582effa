"""A training step of ours against a bare PyTorch loop of the same maths: ``python -m benchmarks.train_step``.

Both train the same net from the same start on batches of the same data, step by step in turns within one process, so
that whatever else the machine does meets both. Ours is the whole loop as ``train`` runs it: loading, steps, callbacks,
logging, from one batch's start to the next one's. The ratio is the median over pairs of neighbouring steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.nn import functional as F

from n2n_lightning import cli
from n2n_lightning.aside import write_json
from n2n_lightning.datamodule import NoisyPairDataModule
from n2n_lightning.facts import device_name
from n2n_lightning.module import OPTIMIZERS, DenoiserModule, build
from n2n_lightning.pairs import TensorPairs
from n2n_lightning.training import train

WARM_UP = 5


def bare_loop(module: DenoiserModule, datamodule: NoisyPairDataModule) -> Iterator[None]:
    """The plain loop, one step for each ``next``: index, scale, forward, backward, update."""
    net = copy.deepcopy(module.net)
    optimizer = build(OPTIMIZERS, module.optimizer_spec, net.parameters())
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


class InTurns(pl.Callback):
    """Runs and times a bare step before each step of the Trainer."""

    def __init__(self) -> None:
        self.bare_step: Callable[[], Any] | None = None
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.since = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        if self.bare_step is None:
            self.bare_step = bare_loop(pl_module, trainer.datamodule).__next__  # type: ignore[attr-defined]
        elif batch_idx > 0:  # between epochs stands a validation
            self.ours.append(now - self.since)
        started = time.perf_counter()
        self.bare_step()
        self.since = time.perf_counter()
        if batch_idx < trainer.num_training_batches - 1:
            self.bare.append(self.since - started)


def measure(model: str, steps: int) -> dict[str, Any]:
    """Median seconds of both steps and of their ratio, with its quartiles."""
    epochs = -(-(steps + WARM_UP) // 31)  # 2,048 pairs are 32 steps, the last of which is not timed
    with initialize_config_dir(str(cli.config_folder()), version_base="1.3"):
        config = compose("train", [f"model={model}", f"trainer.max_epochs={epochs}"])
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    turns = InTurns()
    with tempfile.TemporaryDirectory() as folder:
        train(plain, Path(folder) / model, {"model": model}, callbacks=[turns])
    ours, bare = turns.ours[WARM_UP:], turns.bare[WARM_UP : len(turns.ours)]
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(ours, bare, strict=True)], n=4)
    return {
        "model": model,
        "steps": len(ours),
        "ours_ms": 1e3 * statistics.median(ours),
        "bare_ms": 1e3 * statistics.median(bare),
        "ratio": ratio,
        "ratio_quartiles": [low, high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training step of ours over a bare PyTorch loop, batch 64 of 32x32.")
    parser.add_argument("--models", default="unet,convtrans_relu")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/train_step.json"))
    args = parser.parse_args()
    rows = [measure(model, args.steps) for model in args.models.split(",")]
    print(f"\n{device_name()}, torch {torch.__version__}")
    print(f"{'model':<18}{'steps':>6}{'ours, ms':>10}{'bare, ms':>10}{'ratio':>8}  quartiles")
    for row in rows:
        low, high = row["ratio_quartiles"]
        print(
            f"{row['model']:<18}{row['steps']:>6}{row['ours_ms']:>10.2f}{row['bare_ms']:>10.2f}{row['ratio']:>8.3f}"
            f"  {low:.3f} to {high:.3f}"
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {"device": device_name(), "torch": str(torch.__version__), "rows": rows})
    print(args.output)


if __name__ == "__main__":
    main()
