"""One image with each of several noises, and what each of several nets makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from n2n_lightning.checkpoint import load_denoiser
from n2n_lightning.noise import Noise
from n2n_lightning.reporting.figures import png_bytes
from n2n_lightning.reporting.pictures import LABEL, MATTE, psnr_db

CROP_PX = 128  # shown of the image's middle; the dB are of the whole image
CELL, LEFT, TOP, BETWEEN, BOTTOM = CROP_PX / 100, 0.9, 0.3, 0.04, 0.06  # inches; the PNG has 2x2 pixels for each

Row = tuple[Noise, Mapping[str, Path]]  # a noise, and title -> checkpoint of a net trained for it


def draw_restored(clean: NDArray[np.uint8], rows: Mapping[str, Row], seed: int = 0) -> bytes:
    """A row for each noise: the noisy image, what each net makes of it, the clean one.

    Args:
        clean: (H, W, 3), writable.
        rows: title -> noise and nets.
        seed: of the noise, which is the same in every row that has the same.

    Returns:
        A PNG file.

    Raises:
        ValueError: a net is not for colour images.
    """
    drawn = {title: restore(clean, *row, seed) for title, row in rows.items()}
    columns = max(map(len, drawn.values()))
    figure = Figure(figsize=(LEFT + columns * (CELL + BETWEEN), len(rows) * (CELL + TOP) + BOTTOM), facecolor=MATTE)
    across, up = figure.get_size_inches()
    for number, (name, images) in enumerate(drawn.items()):
        bottom = up - (number + 1) * (CELL + TOP)
        figure.text(0.08 / across, (bottom + CELL / 2) / up, name, color=LABEL, size=8, va="center")
        for column, (title, image) in enumerate(images.items()):
            x = LEFT + column * (CELL + BETWEEN)
            text = title if image is clean else f"{title}\n{psnr_db(image, clean):.1f} dB"
            figure.text(x / across, (bottom + CELL + 0.05) / up, text, color=LABEL, size=6, linespacing=1.3)
            axes = figure.add_axes((x / across, bottom / up, CELL / across, CELL / up))
            axes.axis("off")
            axes.imshow(middle(image), interpolation="nearest")
    return png_bytes(figure)


def restore(
    clean: NDArray[np.uint8], noise: Noise, nets: Mapping[str, Path], seed: int
) -> dict[str, NDArray[np.uint8]]:
    """Title -> (H, W, 3): the noisy image, each net's, and the clean one; clipped and rounded to be seen."""
    image = torch.from_numpy(clean).movedim(-1, 0)[None].float() / 255
    noisy = noise.draw(image, torch.Generator().manual_seed(seed))
    restored = {title: load_denoiser(path).denoise(noisy) for title, path in nets.items()}
    shown = {
        title: (values[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
        for title, values in ({"noisy image": noisy} | restored).items()
    }
    return shown | {"clean image": clean}


def middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image's middle, at most ``CROP_PX`` a side."""
    top, left = (max(side - CROP_PX, 0) // 2 for side in image.shape[:2])
    return image[top : top + CROP_PX, left : left + CROP_PX]
