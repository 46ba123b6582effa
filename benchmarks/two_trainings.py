"""Train twice at the same time, over the speed of a training alone: ``python -m benchmarks.two_trainings``.

Both are commands as a user types them, with the threads that they take by themselves, and then with one thread each.
The speed is that of the second epoch's steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import machine, save
from benchmarks.ranks import images_per_second
from benchmarks.tables import show

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
PAIRS = {"unet": 2048, "convtrans_relu": 20_000}  # pairs of an epoch, for some seconds of steps


def train_at_once(count: int, words: list[str], **environment: str) -> list[float]:
    """Start so many trainings in new folders; return the images per second of each."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / str(number) for number in range(count)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "n2n_lightning.train", *words, f"hydra.run.dir={run}"],
                env=os.environ | environment,
                stdout=subprocess.DEVNULL,
            )
            for run in runs
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("a training failed; see its messages above")
        return [images_per_second(run) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_trainings", description=__doc__)
    parser.add_argument("--model", choices=PAIRS, help="default: all")
    parser.add_argument("words", nargs="*", help="further settings of train, such as data.root=FOLDER")
    args = parser.parse_args()
    rows = []
    for model in [args.model] if args.model else PAIRS:
        words = [f"model={model}", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
        words += [f"data.train_pairs={PAIRS[model]}", *args.words]
        (alone,) = train_at_once(1, words)
        rows.append({"model": model, "training": "alone", "images/s": [alone], "of its speed alone": [1.0]})
        for kind, environment in (("two at once", {}), ("two of one thread each", ONE_THREAD)):
            both = train_at_once(2, words, **environment)
            shares = [speed / alone for speed in both]
            rows.append({"model": model, "training": kind, "images/s": both, "of its speed alone": shares})
        save("two_trainings", {"rows": rows})
    print(machine())
    show(
        [*rows[0]],
        (
            [str(row["model"]), str(row["training"]), *(", ".join(f"{x:.3g}" for x in row[key]) for key in [*row][2:])]
            for row in rows
        ),
    )


if __name__ == "__main__":
    main()
