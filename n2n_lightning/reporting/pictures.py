"""Rows of pictures, noisy, denoised and target, from a run's ``images.npz`` (Figures 5 and 6 of the report)."""

from __future__ import annotations

import zipfile

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from n2n_lightning.reporting.comparison import MODEL_TITLES, PSNR, Comparison, sign
from n2n_lightning.reporting.figures import PngFigure, png_bytes
from n2n_lightning.reporting.runs import Run
from n2n_lightning.reporting.table import signed

CLEAN = "target"  # the row that a PSNR can be measured against
COLUMNS = 8  # pictures at most
MATTE, LABEL = "#1b1f24", "#d7dde3"  # dark, so that pictures look the same on a light page and on a dark one

ExampleImages = dict[str, NDArray[np.uint8]]  # row's name -> (n, H, W, C)


def read_images(run: Run) -> ExampleImages | None:
    """The arrays of a run by the names of their rows, or None where they are not there or not whole.

    A run without ``val/psnr`` had no clean images: its target, if it has one, is another noisy image.
    """
    target = CLEAN if run.number(PSNR) is not None else "second noisy image"
    try:
        with np.load(run.folder / "images.npz", allow_pickle=False) as file:
            images = {row: np.asarray(file[row])[:COLUMNS] for row in ("noisy", "denoised")}
            if "target" in file:
                images[target] = np.asarray(file["target"])[:COLUMNS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    shapes = {array.shape for array in images.values()}
    fits = len(shapes) == 1 and images["noisy"].ndim == 4 and len(images["noisy"]) > 0
    return images if fits and all(array.dtype == np.uint8 for array in images.values()) else None


def psnr_db(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    """Two images of the same shape, 0..255 -> 10 log10(1 / MSE) of them on [0, 1]."""
    mse = float(np.mean((image.astype(np.float64) - target.astype(np.float64)) ** 2)) / 255**2
    return float(10 * np.log10(1 / max(mse, 1e-8)))


def draw_best(comparison: Comparison) -> list[PngFigure]:
    """The best U-Net, the best sequential model, and the best of all where that is another one."""
    drawn, metric = [], comparison.metric

    def place(run: Run) -> float:
        return sign(metric) * (run.number(metric) or 0.0)

    runs = [run for group in comparison.groups for run in sorted(group.runs, key=place)]
    shown: set[str] = set()
    for kind in ("unet", "sequential", ""):
        best = next((run for run in runs if kind in ("", _kind(run))), None)
        if best is None or _kind(best) in shown:
            continue
        shown.add(_kind(best))
        images = read_images(best)
        if images is not None:
            drawn.append(_draw(comparison, best, images, f"{kind or 'best'}_images.png"))
    return drawn


def _kind(run: Run) -> str:
    """The report's two families, "unet" and "sequential"; for others the model's name."""
    family = str(run.record.get("family") or "").lower()
    if "unet" in (run.model, family):
        return "unet"
    return "sequential" if family.startswith("sequential") or run.model in MODEL_TITLES else run.model


def _draw(comparison: Comparison, run: Run, images: ExampleImages, name: str) -> PngFigure:
    group = next(group for group in comparison.groups if run in group.runs)
    count, *_, channels = images["noisy"].shape
    title = f"{group.label}: {', '.join(images)}"
    seed = f", seed {run.record['seed']}" if len(group.runs) > 1 else ""
    state = "" if run.status == "done" else f" ({run.status} at epoch {run.epochs_text})"
    caption = f"The first {count} validation images at the best epoch{seed}{state}"
    if CLEAN in images:
        before, after = (
            np.mean([psnr_db(*pair) for pair in zip(images[row], images[CLEAN], strict=True)])
            for row in ("noisy", "denoised")
        )
        gain = signed(float(after - before))
        caption += f": {before:.2f} dB before, {after:.2f} dB after ({gain} dB), means of the numbers over the pictures"
    else:
        caption += "; there are no clean ones to measure them against"
    if channels not in (1, 3):
        caption += f"; shown is the first of {channels} channels"
    return PngFigure(name, title, f"{caption}.", png_bytes(_draw_rows(images), dpi=160))


def _draw_rows(images: ExampleImages) -> Figure:
    """One column per image, every pixel a square; the PSNR stands below where there is a clean target."""
    count, height, width, channels = images["noisy"].shape
    columns = max(count, 3)
    left, cell = 1.05, min(11.0 / columns, 2.2)  # inches
    tall = cell * height / width
    figure = Figure(figsize=(left + columns * cell, len(images) * (tall + 0.3) - 0.15), facecolor=MATTE)
    across, up = figure.get_size_inches()
    for row, (kind, pictures) in enumerate(images.items()):
        bottom = up - 0.1 - (row + 1) * (tall + 0.3) + 0.3
        figure.text(0.12 / across, (bottom + tall / 2) / up, kind.replace(" ", "\n"), color=LABEL, size=12, va="center")
        for column in range(count):
            x = left + column * cell
            axes = figure.add_axes((x / across, bottom / up, (cell - 0.06) / across, tall / up))
            axes.axis("off")
            image = pictures[column]
            axes.imshow(
                image if channels == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest"
            )
            if CLEAN in images and kind != CLEAN:
                text = f"{psnr_db(image, images[CLEAN][column]):.1f} dB"
                figure.text(
                    (x + cell / 2) / across, (bottom - 0.09) / up, text, color=LABEL, size=10, ha="center", va="top"
                )
    return figure
