"""Check what must change no result: a second run, loader workers, validation's batch size, the working directory."""

from __future__ import annotations

from pathlib import Path

import torch
from small_runs import timeless_table, tiny_overrides, write_course_data

from stress.child import train_to_end
from stress.compare import differences, unequal
from stress.figures import Figure

MAX_DB = 1e-5
RECIPES = {
    "unet": ("model=unet", "data.augment=[flip,rotate,swap]", "ema=0.9", "trainer.max_epochs=2"),
    "convtrans": ("model=convtrans_relu", "data.augment=[flip]", "scheduler=cosine", "trainer.max_epochs=3"),
}


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Compare the variants of two recipes; quick: fewer variants of one recipe of one epoch."""
    root = write_course_data(scratch / "data")
    figures = []
    for name, recipe in list(RECIPES.items())[quick:]:
        line = [*recipe, *(["trainer.max_epochs=1"] if quick else []), f"seed={seed}", *tiny_overrides(root)]
        figures += one_recipe(scratch / name, name, line, quick)
        print(f"sameness: {name} compared", flush=True)
    return figures


def one_recipe(folder: Path, name: str, line: list[str], quick: bool) -> list[Figure]:
    """Compare every variant with one run."""
    base = train_to_end(line, folder / "base")
    again = differences(base, train_to_end(line, folder / "again"))
    other = differences(base, train_to_end(line, folder / "another" / "working directory"))
    figures = [
        exact(f"{name}: the same seed twice", again),
        exact(f"{name}: another working directory", other),
    ]
    for workers in (1,) if quick else (1, 2):
        run = train_to_end([*line, f"data.num_workers={workers}"], folder / f"workers{workers}")
        figures.append(exact(f"{name}: {workers} loader workers instead of none", trained(base, run)))
    sizes = (1, 100) if quick else (1, 5, 100)
    runs = [train_to_end([*line, f"data.val_batch_size={size}"], folder / f"batch{size}") for size in sizes]
    psnrs = [[float(row["val/psnr"]) for row in timeless_table(run)] for run in runs]
    off = max(abs(value - first) for values in psnrs for value, first in zip(values, psnrs[0], strict=True))
    title = f"{name}: validation in batches of {', '.join(map(str, sizes))}"
    return [*figures, Figure(title, f"val/psnr within {MAX_DB:g} dB", f"{off:.2g} dB apart", off <= MAX_DB)]


def exact(measure: str, found: list[str]) -> Figure:
    measured = f"{len(found)} differences, {', '.join(found[:3])}" if found else "identical"
    return Figure(measure, "bit for bit", measured, not found)


def trained(one: Path, other: Path) -> list[str]:
    """Return what differs in weights, optimizer and table; the configurations differ on purpose."""
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other)]
    one_kept, other_kept = ({key: state[key] for key in ("state_dict", "optimizer_states")} for state in states)
    same_table = timeless_table(one) == timeless_table(other)
    return unequal(one_kept, other_kept) + ([] if same_table else ["metrics.csv"])
