"""Weak scaling of training with ``trainer=ddp``: images a second of N processes of one thread over those of one.

The two take turns, because other programs may use the machine: ``python -m benchmarks.ranks``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def images_per_second(ranks: int, turn: int, folder: Path, words: list[str]) -> float:
    """Train with ``ranks`` processes, each with 64 images a step; return the speed, first epoch left out."""
    line = [sys.executable, "-m", "n2n_lightning.train", *words, f"data.batch_size={64 * ranks}"]
    line += [f"data.train_pairs={1024 * ranks}", "data.val_pairs=16", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
    line += ["trainer=ddp", f"trainer.devices={ranks}"] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = folder / f"{turn}-{ranks}"
    subprocess.run([*line, f"hydra.run.dir={run}"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return float(json.loads((run / "result.json").read_text())["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("words", nargs="*", default=["model=unet"], help="settings of the run")
    args = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.turns):
            one, several = (images_per_second(ranks, turn, Path(folder), args.words) for ranks in (1, args.ranks))
            ratios.append(several / one)
            print(f"1 process {one:.0f} images/s, {args.ranks} {several:.0f}: {ratios[-1]:.2f} times", flush=True)
    print(f"median {statistics.median(ratios):.2f} times")


if __name__ == "__main__":
    main()
