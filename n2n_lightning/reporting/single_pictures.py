"""The picture of ``denoise``: a crop of each file before and after, and what was removed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.image_file import ImageError, ImageReader, upright
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.reporting.figures import Captioned, draw_image_rows, png_bytes
from n2n_lightning.residuals import residual_picture
from n2n_lightning.system.atomic import atomic_path

MOST_FILES = 6
CROP_PX = 256
NAME_CHARS, LINE_CHARS = 60, 10  # of a file's name that are shown, and that fit into a line beside its images
SHOWN_SHARE = (0.002, 0.998)  # these quantiles of the noisy values are black and white


def save_picture(path: Path, jobs: Sequence[FileJob], axes: str | None) -> bool:
    """Draw the first files that can be read; return whether there was one.

    Args:
        path: of the PNG file.
        jobs: noisy files and denoised ones.
        axes: letters of the files' dimensions; None for those that the files name.
    """
    rows: dict[str, list[Captioned]] = {}
    for job in jobs:
        if len(rows) < MOST_FILES and job.output.exists() and (images := read_row(job, axes)):
            name = textwrap.fill(job.input.name[:NAME_CHARS], LINE_CHARS)
            rows[name if name not in rows else f"{name}\n({len(rows) + 1})"] = images
    if not rows:
        return False
    with atomic_path(path, path.with_name(".picture.part")) as part:
        part.write_bytes(png_bytes(draw_image_rows(rows, 2.56, 8)))
    return True


def read_row(job: FileJob, axes: str | None) -> list[Captioned] | None:
    """Return the crops noisy, denoised and residual of a file, (h, w, C) uint8; None if one cannot be read."""
    try:
        with open_image_file(job.input, axes) as noisy, open_image_file(job.output, axes) as denoised:
            before, after = centre(noisy), centre(denoised)
    except ImageError:
        return None
    low, high = np.quantile(before, SHOWN_SHARE)
    scale = 255 / max(high - low, 1e-30)
    residual = residual_picture(torch.from_numpy(before - after).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    shown = [((image - low) * scale).clip(0, 255).astype(np.uint8) for image in (before, after)]
    removed = (255 * residual.numpy()).round().astype(np.uint8)
    return [(shown[0], "noisy"), (shown[1], "denoised"), (removed, "residual")]


def centre(image: ImageReader) -> NDArray[np.float64]:
    """Return the middle of the middle page, upright: (h, w, 3) of colour images and (h, w, 1) of others."""
    images, height, width, _ = image.shape
    top, left = ((max(side - CROP_PX, 0) + 1) // 2 for side in (height, width))
    tall, wide = height - 2 * top, width - 2 * left  # as far from each side, so that a turned image has the same middle
    band = image.read(image.count // 2, top, top + tall)[images // 2]
    crop: NDArray[np.float64] = band[:, left : left + wide, image.colours].astype(np.float64)
    return upright(crop if crop.shape[2] == 3 else crop[..., :1], image.orientation)
