"""Training and validation with ``trainer=ddp``: N processes of one thread over one: ``python -m benchmarks.ranks``.

It measures weak scaling, images a second with 64 images a step for each process, or with ``--validate 1000`` the
seconds that the validation of so many images takes. The two take turns, because other programs may use the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH = 64  # images in a step, for each process


def train(ranks: int, folder: Path, words: list[str]) -> Path:
    """Train two epochs with ``ranks`` processes of one thread; return the run's folder."""
    line = [sys.executable, "-m", "n2n_lightning.train", *words, f"data.batch_size={BATCH * ranks}"]
    line += [f"data.train_pairs={16 * BATCH * ranks}", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
    line += ["trainer=ddp", f"trainer.devices={ranks}"] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*line, f"hydra.run.dir={folder}"], cwd=folder.parent, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return folder


def images_per_second(run: Path) -> float:
    """Return the speed of the second epoch's steps."""
    return float(json.loads((run / "result.json").read_text())["images_per_second"])


def validation_seconds(run: Path, images: int) -> float:
    """Return the seconds of the second epoch without its steps, which had so many ``images``."""
    with (run / "metrics.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    return float(last["seconds"]) - images / images_per_second(run)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--validate", type=int, help="measure the validation of so many images")
    parser.add_argument("words", nargs="*", default=["model=unet"], help="settings of the run")
    args = parser.parse_args()
    several, found = args.ranks, []
    words = [*args.words, f"data.val_pairs={args.validate or 16}"]
    words += ["trainer.limit_train_batches=1"] if args.validate else []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.turns):
            runs = {ranks: train(ranks, Path(folder) / f"{turn}-{ranks}", words) for ranks in (1, several)}
            if args.validate:
                one, more = (validation_seconds(run, BATCH * ranks) for ranks, run in runs.items())
                print(f"validation: 1 process {one:.2f} s, {several} {more:.2f} s: {more / one:.2f} of it", flush=True)
            else:
                one, more = map(images_per_second, runs.values())
                print(f"1 process {one:.0f} images/s, {several} {more:.0f}: {more / one:.2f} times", flush=True)
            found.append(more / one)
    print(f"median {statistics.median(found):.2f}")


if __name__ == "__main__":
    main()
