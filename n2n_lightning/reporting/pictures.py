"""Rows of images from a run's ``images.npz``: noisy, denoised, target, residual (the course report's Figures 5, 6)."""

from __future__ import annotations

import zipfile

import numpy as np
from numpy.typing import NDArray

from n2n_lightning.reporting.comparison import PSNR, Comparison, sort_key
from n2n_lightning.reporting.figures import PngFigure, draw_image_rows, png_bytes
from n2n_lightning.reporting.runs import Run
from n2n_lightning.reporting.study import STUDY_MODELS
from n2n_lightning.reporting.table import format_signed

CLEAN = "target"  # the row of clean images, which PSNR is measured against
RESIDUAL = "residual"  # the row of noisy minus denoised, scaled so that it can be seen
MAX_IMAGES = 8  # in a row

ExampleImages = dict[str, NDArray[np.uint8]]  # name of the row -> (N, H, W, C)


def read_images(run: Run) -> ExampleImages | None:
    """Read a run's images by row; None if the file is missing or damaged.

    A run without ``val/psnr`` had no clean images: its target, if it has one, is a second noisy image. Runs of earlier
    versions have no residual.
    """
    target = CLEAN if run.number(PSNR) is not None else "second noisy image"
    try:
        with np.load(run.folder / "images.npz", allow_pickle=False) as file:
            images = {row: np.asarray(file[row])[:MAX_IMAGES] for row in ("noisy", "denoised")}
            if "target" in file:
                images[target] = np.asarray(file["target"])[:MAX_IMAGES]
            if RESIDUAL in file:
                images[RESIDUAL] = np.asarray(file[RESIDUAL])[:MAX_IMAGES]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = len({array.shape for array in images.values()}) == 1 and images["noisy"].ndim == 4
    return (
        images if fits and images["noisy"].size and all(array.dtype == np.uint8 for array in images.values()) else None
    )


def image_psnr_db(image: NDArray[np.uint8], clean: NDArray[np.uint8]) -> float:
    """Return the PSNR of an 8-bit image; both images are (H, W, C) uint8."""
    from n2n_lightning.metrics import psnr_db  # loads torch, which takes seconds

    return psnr_db(float(np.mean((image / 255 - clean / 255) ** 2))).item()


def residual_correlation(residual: NDArray[np.uint8]) -> float:
    """Return the autocorrelation of a residual that is farthest from 0, at lags of 1 and 2 px; (H, W, C) uint8."""
    import torch  # takes seconds

    from n2n_lightning.residuals import NEAR_PX, autocovariance, largest_correlation

    images = torch.from_numpy(residual.astype(np.float32)).permute(2, 0, 1)[None]
    return largest_correlation(autocovariance(images, NEAR_PX)[0])


def draw_best(comparison: Comparison) -> list[PngFigure]:
    """Draw the images of the best U-Net, of the best sequential model, and of the best run of all if it is another."""
    by_family: dict[str, Run] = {}  # the best run of each
    for group in comparison.groups:
        for run in sorted(group.runs, key=lambda run: sort_key(comparison.metric, run.number(comparison.metric))):
            by_family.setdefault(_family(run), run)
    best = next(iter(by_family), "")
    names = dict.fromkeys(family for family in ("unet", "sequential", best) if family in by_family)
    drawn = []
    for family in names:
        images = read_images(by_family[family])
        if images is not None:
            name = family if family in ("unet", "sequential") else "best"
            drawn.append(_draw_run(comparison, by_family[family], images, f"{name}_images.png"))
    return drawn


def _family(run: Run) -> str:
    """Return one of the course report's two families, "unet" and "sequential"; for other models the model's name."""
    family = str(run.record.get("family") or "").lower()
    if "unet" in (run.model, family):
        return "unet"
    return "sequential" if family.startswith("sequential") or run.model in STUDY_MODELS else run.model


def _draw_run(comparison: Comparison, run: Run, images: ExampleImages, name: str) -> PngFigure:
    group = next(group for group in comparison.groups if run in group.runs)
    count, *_, channels = images["noisy"].shape
    seed = f", seed {run.record['seed']}" if len(group.runs) > 1 else ""
    state = "" if run.status == "done" else f" ({run.status} at epoch {run.epochs_text})"
    caption = f"The first {count} validation images at the best epoch{seed}{state}"
    scores: dict[str, list[float]] = {}  # of the rows that are measured
    if CLEAN in images:
        for row in ("noisy", "denoised"):
            scores[row] = [image_psnr_db(*pair) for pair in zip(images[row], images[CLEAN], strict=True)]
        before, after = (float(np.mean(values)) for values in scores.values())
        gain = format_signed(after - before)
        caption += f": {before:.2f} dB before, {after:.2f} dB after ({gain} dB), means over these images"
    else:
        caption += "; there are no clean images to measure them against"
    if channels not in (1, 3):
        caption += f"; only the first of {channels} channels is shown"
    texts = {row: [f"{value:.1f} dB" for value in values] for row, values in scores.items()}
    if RESIDUAL in images:
        texts[RESIDUAL] = [f"r = {residual_correlation(image):+.2f}" for image in images[RESIDUAL]]
        caption += (
            "; residual: noisy minus denoised, white and black at 3 standard deviations; structure in it is signal "
            "that was removed; r: its largest autocorrelation at 1 or 2 px, near 0 if it is white noise"
        )
    rows = {
        row.replace(" ", "\n"): [(image, texts[row][i] if row in texts else "") for i, image in enumerate(array)]
        for row, array in images.items()
    }
    figure = draw_image_rows(rows, cell_width=min(11 / max(count, 3), 2.2) - 0.05, text_size=10)
    return PngFigure(name, f"{group.label}: {', '.join(images)}", f"{caption}.", png_bytes(figure, dpi=160))
