"""Compare a sweep with ``hydra/launcher=joblib`` and the same sweep run by run: ``python -m benchmarks.sweep``.

Both are commands as a user types them, start-up included, in a new folder with the data set in the cache; in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, save
from benchmarks.tables import show

FOUR = "nn_relu,nn_sigmoid,convtrans_relu,convtrans_sigmoid"
LAUNCHER = "hydra/launcher=joblib"


def sweep(models: str, epochs: int, overrides: list[str], folder: str) -> tuple[float, dict[str, float]]:
    """Run a sweep; return its seconds, and each model's best ``val/psnr`` in dB."""
    line = ["-m", "n2n_lightning.train", "-m", f"model={models}", f"trainer.max_epochs={epochs}", *overrides]
    started = time.perf_counter()
    subprocess.run([sys.executable, *line], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    results = [json.loads(path.read_text()) for path in Path(folder).glob("outputs/*/*/result.json")]
    return seconds, {result["model"]: result["val/psnr"] for result in results}


def measure(models: str, epochs: int, jobs: int, rounds: int, overrides: list[str]) -> dict[str, Any]:
    cache = f"data.cache_dir={Path('outputs/cache').absolute()}"
    parallel = [LAUNCHER, f"hydra.launcher.n_jobs={jobs}"]
    with tempfile.TemporaryDirectory() as folder:  # fills the cache
        sweep(models.partition(",")[0], 1, [cache, "trainer.limit_train_batches=1", *overrides], folder)
    times, apart = [], 0.0
    for turn in range(rounds):
        found = {}
        for name in ("parallel", "serial") if turn % 2 else ("serial", "parallel"):
            extra = parallel if name == "parallel" else []
            with tempfile.TemporaryDirectory() as folder:
                found[name] = sweep(models, epochs, [cache, *extra, *overrides], folder)
        (serial, one), (side_by_side, other) = found["serial"], found["parallel"]
        times.append((serial, side_by_side))
        apart = max(apart, *(abs(one[model] - other[model]) for model in one))
    return {
        "models": models,
        "epochs": epochs,
        "jobs": jobs,
        "serial_s": statistics.median(serial for serial, _ in times),
        "parallel_s": statistics.median(side_by_side for _, side_by_side in times),
        "ratios": [side_by_side / serial for serial, side_by_side in times],
        "ratio": statistics.median(side_by_side / serial for serial, side_by_side in times),
        "psnr_apart_db": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a sweep side by side with the same sweep in turn.")
    parser.add_argument("--models", action="append", help="models of a sweep, as for model=; default: 4 models, and 5")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="data.root=FOLDER data.val_root=FOLDER data.train_pairs=20000 ...")
    args = parser.parse_args()
    rows = [
        measure(models, args.epochs, args.jobs, args.rounds, args.overrides)
        for models in args.models or (FOUR, f"unet,{FOUR}")
    ]
    print(f"{machine()}; {' '.join(args.overrides)}")
    cells = (
        (
            row["models"],
            *(f"{row[f'{name}_s']:.1f}" for name in ("serial", "parallel")),
            f"{row['ratio']:.3f} ({', '.join(f'{ratio:.3f}' for ratio in row['ratios'])})",
            f"{row['psnr_apart_db']:.4f}",
        )
        for row in rows
    )
    show(["models", "in turn, s", "side by side, s", "ratio, median (all)", "val/psnr apart, dB"], cells)
    save("sweep", {"overrides": args.overrides, "rows": rows})


if __name__ == "__main__":
    main()
