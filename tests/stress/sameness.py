"""What must change no result: doing it again, loader workers, the batches of validation, the working directory."""

from __future__ import annotations

from pathlib import Path

import torch

from stress.child import run_train
from stress.compare import differences, table, unequal
from stress.figures import Figure
from stress.tiny_data import overrides, write_course_data

MAX_DB = 1e-5
RECIPES = {
    "unet": ("model=unet", "data.augment=[flip,rotate,swap]", "ema=0.9", "trainer.max_epochs=2"),
    "convtrans": ("model=convtrans_relu", "data.augment=[flip]", "scheduler=cosine", "trainer.max_epochs=3"),
}


def run(scratch: Path, *, quick: bool, seed: int = 0) -> list[Figure]:
    """Two recipes; quick: one, of one epoch, with fewer variants."""
    root = write_course_data(scratch / "data")
    figures = []
    for name, recipe in list(RECIPES.items())[quick:]:
        line = [*recipe, *(["trainer.max_epochs=1"] if quick else []), f"seed={seed}", *overrides(root)]
        figures += one_recipe(scratch / name, name, line, quick)
        print(f"sameness: {name} compared", flush=True)
    return figures


def one_recipe(folder: Path, name: str, line: list[str], quick: bool) -> list[Figure]:
    """Every variant against one run."""
    base = train(folder / "base", line)
    again = differences(base, train(folder / "again", line))
    other = differences(base, train(folder / "another" / "working directory", line))
    figures = [
        exact(f"{name}: the same seed twice", again),
        exact(f"{name}: another working directory", other),
    ]
    for workers in (1,) if quick else (1, 2):
        run = train(folder / f"workers{workers}", [*line, f"data.num_workers={workers}"])
        figures.append(exact(f"{name}: {workers} loader workers instead of none", trained(base, run)))
    sizes = (1, 100) if quick else (1, 5, 100)
    runs = [train(folder / f"batch{size}", [*line, f"data.val_batch_size={size}"]) for size in sizes]
    psnrs = [[float(row["val/psnr"]) for row in table(run)] for run in runs]
    off = max(abs(value - first) for values in psnrs for value, first in zip(values, psnrs[0], strict=True))
    title = f"{name}: validation in batches of {', '.join(map(str, sizes))}"
    return [*figures, Figure(title, f"val/psnr within {MAX_DB:g} dB", f"{off:.2g} dB apart", off <= MAX_DB)]


def exact(measure: str, found: list[str]) -> Figure:
    measured = f"{len(found)} differences, {', '.join(found[:3])}" if found else "identical"
    return Figure(measure, "bit for bit", measured, not found)


def trained(one: Path, other: Path) -> list[str]:
    """What differs in weights, optimizer and table; the configurations do, on purpose."""
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other)]
    one_kept, other_kept = ({key: state[key] for key in ("state_dict", "optimizer_states")} for state in states)
    return unequal(one_kept, other_kept) + ([] if table(one) == table(other) else ["metrics.csv"])


def train(folder: Path, line: list[str]) -> Path:
    """The run's folder."""
    folder.mkdir(parents=True)
    ending = run_train(line, folder)
    assert ending.code == 0, ending.output
    (result,) = folder.glob("outputs/*/*/result.json")
    return result.parent
