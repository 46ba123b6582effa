"""Measure the time from the first training step to a PSNR: ``python -m benchmarks.time_to_quality --root FOLDER ...``.

The task is the study's: pairs that are made from the photographs of ``--root``, noisy targets only, random initial
weights. The score is ``val/psnr`` on pairs from other photographs, ``--val-root``. The recipe is free: by default it is
``experiment=quick_ee559``, and further settings of ``train`` change it. The clock starts with the first step, when the
data are in memory, and stops at the end of the first validation that reaches the target. A schedule that ends with the
run needs the right length: set ``data.train_pairs`` and ``trainer.max_epochs``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as train.py does

import pytorch_lightning as pl

from benchmarks.measuring import configuration, machine, save
from benchmarks.tables import show
from benchmarks.turns import train_in_temporary_folder

TARGET_DB = 25.55  # the U-Net of the course report


class UntilTarget(pl.Callback):
    """Notes the PSNR and the time of every validation, in seconds from the first step; ends the run at the target."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.started = self.processor = 0.0
        self.validations: list[tuple[float, float, float]] = []  # dB, seconds, seconds of the processor

    def on_train_batch_start(self, *_: Any) -> None:
        if not self.started:
            self.started, self.processor = time.perf_counter(), time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = trainer.callback_metrics["val/psnr"].item()
        times = time.perf_counter() - self.started, time.process_time() - self.processor
        self.validations.append((found, *times))
        trainer.should_stop = found >= self.target


def measure(seed: int, target: float, overrides: list[str]) -> dict[str, Any]:
    """Train once; return the PSNR that was reached and the time that it took."""
    until = UntilTarget(target)
    train_in_temporary_folder(configuration(*overrides, f"seed={seed}"), until)
    psnr, seconds, processor = until.validations[-1]
    return {"seed": seed, "psnr": psnr, "seconds": seconds, "processor_seconds": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, metavar="FOLDER", help="of photographs to train on")
    parser.add_argument("--val-root", required=True, metavar="FOLDER", help="of other photographs")
    parser.add_argument("--target", type=float, default=TARGET_DB, metavar="DB")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="further settings of train, such as trainer.max_epochs=2")
    arguments = parser.parse_args()
    cache = f"data.cache_dir={Path('outputs/cache').absolute()}"
    data = [f"data.root={arguments.root}", f"data.val_root={arguments.val_root}", cache]
    recipe = [word for word in arguments.overrides if word.startswith("experiment=")] or ["experiment=quick_ee559"]
    recipe += [word for word in arguments.overrides if word not in recipe]
    rows = [measure(seed, arguments.target, [*recipe, *data]) for seed in range(arguments.seeds)]
    print(f"\n{machine()}; {' '.join(recipe)}; target {arguments.target:g} dB")
    columns = ("psnr", "seconds", "processor_seconds")
    show(
        ["seed", "val/psnr, dB", "seconds", "processor's seconds"],
        ([str(row["seed"]), *(f"{row[name]:.{3 if name == 'psnr' else 1}f}" for name in columns)] for row in rows),
    )
    seconds = statistics.mean(row["seconds"] for row in rows)
    reached = sum(row["psnr"] >= arguments.target for row in rows)
    print(f"{reached} of {len(rows)} reached it; mean {seconds:.1f} s")
    save("time_to_quality", {"recipe": recipe, "target": arguments.target, "seconds": seconds, "rows": rows})


if __name__ == "__main__":
    main()
