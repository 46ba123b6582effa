"""Compare what several processes train with what one trains: ``python -m benchmarks.rank_results model=unet``.

The runs have augmentation, averaged weights and a cosine schedule. After 10 steps it compares losses and weights, after
3 epochs the scores. A process of two threads is compared too, because it rounds differently.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import save
from benchmarks.tables import show

RECIPE = (
    *("data.augment=[flip,rotate,swap]", "ema=0.9", "scheduler=cosine", "data.train_pairs=640", "data.batch_size=64"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "init_from=null"),
)
LENGTHS = {
    "10 steps": ("trainer.max_epochs=1", "trainer.limit_train_batches=10"),
    "3 epochs": ("trainer.max_epochs=3",),
}
SCORES = ("val/psnr", "val/psnr_pairs")


def train(ranks: int, threads: int, words: list[str], folder: Path) -> Path:
    """Train in so many processes of so many threads; return the run's folder."""
    line = [sys.executable, "-m", "n2n_lightning.train", *RECIPE, *words, f"hydra.run.dir={folder}"]
    line += ["trainer=ddp", f"trainer.devices={ranks}"] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder


def tensors(content: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of floats in nested dictionaries and lists with their places."""
    if isinstance(content, Tensor) and content.is_floating_point():
        yield where, content
    elif isinstance(content, (dict, list, tuple)):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from tensors(value, f"{where}.{key}")


def weights(run: Path) -> dict[str, Tensor]:
    """Return the weights in a run's last checkpoint, and their averages."""
    content = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    return dict(tensors({key: content[key] for key in ("state_dict", "callbacks")}))


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference of a weight, over the largest value of its tensor."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    scales = {name: float(tensor.abs().max()) for name, tensor in first.items() if tensor.numel()}
    return max(float((second[name] - first[name]).abs().max()) / scale for name, scale in scales.items() if scale)


def rows(run: Path) -> list[dict[str, float]]:
    """Return the rows of ``metrics.csv``, without empty cells."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def compare(one: dict[str, Path], other: dict[str, Path]) -> dict[str, float]:
    """Return the differences: of weights and losses relative to their values, of scores in dB."""
    first, second = (rows(runs["10 steps"])[-1] for runs in (one, other))
    losses = max(abs(second[key] / first[key] - 1) for key in ("train/loss", "val/loss"))
    found = {"weights": largest_difference(one["10 steps"], other["10 steps"]), "losses": losses}
    both = list(zip(*(rows(runs["3 epochs"]) for runs in (one, other)), strict=True))
    return found | {key: max(abs(b[key] - a[key]) for a, b in both) for key in SCORES if key in both[0][0]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rank_results", description=__doc__)
    parser.add_argument("--most", type=int, default=4, help="the most processes; default: %(default)s")
    parser.add_argument("words", nargs="*", help="settings of the run: model=unet data.val_pairs=401 ...")
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:

        def train_both(ranks: int, threads: int) -> dict[str, Path]:
            place = Path(folder) / f"{ranks} {threads}"
            return {name: train(ranks, threads, [*args.words, *LENGTHS[name]], place / name) for name in LENGTHS}

        one = train_both(1, 1)
        for ranks, threads in ((1, 2), *((ranks, 1) for ranks in range(2, args.most + 1))):
            name = f"{ranks}, {threads} thread{'s' if threads > 1 else ''} each"
            found[name] = compare(one, train_both(ranks, threads))
            print(f"{name}: {found[name]}", flush=True)
    columns = list(next(iter(found.values())))
    show(["processes", *columns], [(name, *(f"{row[key]:.1e}" for key in columns)) for name, row in found.items()])
    save("rank_results", {"words": args.words, "differences": found})


if __name__ == "__main__":
    main()
