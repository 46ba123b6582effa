"""Compare a whole epoch of ours with a bare PyTorch loop, and profile it: ``python -m benchmarks.epoch``.

Ours is training, validation, pictures, logging, the record and checkpoints; the bare loop only trains. They take turns
step by step within one process (``benchmarks.turns``); the first epoch is left out. ``--profile`` shows instead how
much of an epoch's time each operator takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as train.py does

import pytorch_lightning as pl
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import configuration, forget_peak, machine, resident_mb, save
from benchmarks.tables import show
from benchmarks.turns import InTurns, train_in_temporary_folder

SHOWN = 15


class Profiled(pl.Callback):
    """Records torch's profile of the second epoch, validation included."""

    def __init__(self) -> None:
        self.profile = profile(activities=[ProfilerActivity.CPU])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.profile.start()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.profile.stop()

    def rows(self) -> list[dict[str, Any]]:
        """Return the operators by their own time on the training thread, and the rest: Python, ours and Lightning's."""
        events: list[FunctionEvent] = list(self.profile.events())
        span = max(e.time_range.end for e in events) - min(e.time_range.start for e in events)
        averages = sorted(self.profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
        rows = [{"name": e.key, "share": e.self_cpu_time_total / span, "calls": e.count} for e in averages[:SHOWN]]
        total = sum(e.self_cpu_time_total for e in averages)
        rest = {"all other operators": total / span - sum(r["share"] for r in rows), "Python": 1 - total / span}
        return [*rows, *({"name": name, "share": share} for name, share in rest.items())]


def measure(model: str, config: dict[str, Any], epochs: int) -> dict[str, Any]:
    turns = InTurns()
    forget_peak()
    train_in_temporary_folder(config | {"trainer": config["trainer"] | {"max_epochs": epochs + 2}}, turns)
    ours, bare = zip(*turns.epochs[1:], strict=True)
    ratios = sorted(a / b for a, b in turns.epochs[1:])
    return {
        "model": model,
        "epochs": epochs,
        "ours_s": statistics.median(ours),
        "bare_s": statistics.median(bare),
        "images_per_second": turns.images / statistics.median(ours),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "peak_mb": resident_mb("VmHWM"),
    }


def cells(row: dict[str, Any]) -> list[str]:
    seconds, speed = f"{row['ours_s']:.2f}", f"{row['images_per_second']:.0f}"
    ratios = f"{row['ratio']:.3f} ({row['ratios'][0]:.3f} to {row['ratios'][-1]:.3f})"
    return [row["model"], seconds, speed, f"{row['bare_s']:.2f}", ratios, f"{row['peak_mb']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare an epoch of ours with a bare training loop.")
    parser.add_argument("--models", default="convtrans_relu")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where an epoch's time goes")
    parser.add_argument("overrides", nargs="*", help="data.root=FOLDER data.val_root=FOLDER data.train_pairs=20000 ...")
    args = parser.parse_args()
    rows = []
    for model in args.models.split(","):
        config = configuration(f"model={model}", f"data.cache_dir={Path('outputs/cache').absolute()}", *args.overrides)
        if args.profile:
            profiled = Profiled()
            train_in_temporary_folder(config | {"trainer": config["trainer"] | {"max_epochs": 2}}, profiled)
            rows.append({"model": model, "profile": profiled.rows()})
        else:
            rows.append(measure(model, config, args.epochs))
    print(f"\n{machine()}; {' '.join(args.overrides)}")
    if args.profile:
        for row in rows:
            print(f"\n{row['model']}: an epoch")
            parts = ((p["name"], f"{100 * p['share']:.1f} %", str(p.get("calls", ""))) for p in row["profile"])
            show(["operator", "share of its time", "calls"], parts)
    else:
        titles = ["model", "ours, s", "images/s", "bare, s", "ours / bare, median (least to most)", "peak MB, both"]
        show(titles, (cells(row) for row in rows))
    save("profile" if args.profile else "epoch", {"overrides": args.overrides, "rows": rows})


if __name__ == "__main__":
    main()
