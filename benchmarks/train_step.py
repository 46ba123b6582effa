"""Compare a training step of ours with a bare PyTorch loop of the same maths: ``python -m benchmarks.train_step``.

They take turns within one process (``benchmarks.turns``): before every second step of ours comes a bare step, before
the others the net's convolutions alone. Ratios are medians over steps, each relative to what came before it.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as train.py does

from benchmarks.measuring import configuration, forget_peak, machine, ratio, ratio_text, resident_mb, save
from benchmarks.tables import show
from benchmarks.turns import InTurns, train_in_temporary_folder
from n2n_lightning.training.build import build_module
from n2n_lightning.training.run_metadata import count_gmac
from n2n_lightning.training.settings import RunSettings

WARM_UP = 5
SHAPE = (3, 32, 32)


def measure(model: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Return medians for a step of ours, a bare step and the convolutions, and for their ratios."""
    an_epoch = 2048 // batch_size - 1  # the last step of an epoch is not timed
    epochs = -(-2 * (steps + WARM_UP) // an_epoch)  # only every second step comes after a bare one
    config = configuration(f"model={model}", f"trainer.max_epochs={epochs}", f"data.batch_size={batch_size}")
    turns = InTurns(convolutions=True)
    forget_peak()
    train_in_temporary_folder(config, turns)
    ours, bare = zip(*turns.over_bare[WARM_UP : WARM_UP + steps], strict=True)
    beside, alone = zip(*turns.over_convolutions[WARM_UP : WARM_UP + steps], strict=True)
    module = build_module(RunSettings.unchecked(config), SHAPE[0])
    gflop = 6 * count_gmac(module, SHAPE) * batch_size  # backward is twice forward
    return {
        "model": model,
        "batch_size": batch_size,
        "steps": len(ours),
        **{
            f"{name}_ms": 1e3 * statistics.median(times)
            for name, times in (("ours", ours), ("bare", bare), ("convolutions", alone))
        },
        "images_per_second": batch_size / statistics.median(ours),
        "gflops": gflop / statistics.median(ours),
        "convolutions_gflops": gflop / statistics.median(alone),
        "peak_mb": resident_mb("VmHWM"),  # of the process that runs all three
        "over_bare": ratio(ours, bare),
        "over_convolutions": ratio(beside, alone),
    }


def cells(row: dict[str, Any]) -> list[str]:
    milliseconds = [f"{row[f'{name}_ms']:.2f}" for name in ("ours", "bare", "convolutions")]
    ratios = [ratio_text(row["over_bare"]), ratio_text(row["over_convolutions"])]
    speeds = [f"{row['images_per_second']:.0f}", f"{row['gflops']:.1f}", f"{row['convolutions_gflops']:.1f}"]
    return [row["model"], *milliseconds, *ratios, *speeds, f"{row['peak_mb']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare our training step with a bare PyTorch loop, and with its convolutions."
    )
    parser.add_argument("--models", default="unet,convtrans_relu")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    if not 1 <= args.batch_size <= 1024:
        parser.error(f"--batch-size must be 1 to 1024 of the 2,048 pairs, got {args.batch_size}")
    rows = [measure(model, args.steps, args.batch_size) for model in args.models.split(",")]
    print(f"\n{machine()}; batches of {args.batch_size} of 32x32; medians (quartiles)")
    titles = ["model", "ours, ms", "bare, ms", "convolutions, ms", "ours / bare", "ours / convolutions"]
    titles += ["images/s", "GFLOP/s", "GFLOP/s of its convolutions", "peak MB"]
    show(titles, (cells(row) for row in rows))
    save("train_step", {"rows": rows})


if __name__ == "__main__":
    main()
