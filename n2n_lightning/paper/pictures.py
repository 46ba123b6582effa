"""One image with each of several noises, and what each of several nets makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from n2n_lightning.image_io.stack import list_images
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.noise.choices import make_noise
from n2n_lightning.noise.kinds import Noise
from n2n_lightning.paper.experiments import TESTED_WITH
from n2n_lightning.paper.jobs import ENDED, PaperRun
from n2n_lightning.reporting.figures import png_bytes
from n2n_lightning.reporting.pictures import LABEL, MATTE, psnr_db

PICTURED = 7  # which of Kodak's photographs: a flower before shutters, smooth and fine
CROP_PX = 128  # shown of the image's middle; the dB are of the whole image
CELL, LEFT, TOP, BETWEEN, BOTTOM = CROP_PX / 100, 0.9, 0.3, 0.04, 0.06  # inches; the PNG has 2x2 pixels for each

PictureRow = tuple[Noise, Mapping[str, Path]]  # a noise, and title -> checkpoint of a net trained for it


def draw_restored(clean: NDArray[np.uint8], rows: Mapping[str, PictureRow], seed: int = 0) -> bytes:
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
    noisy = noise.corrupt(image, torch.Generator().manual_seed(seed))
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


def draw_pictures(jobs: Sequence[PaperRun], kodak: Path, path: Path) -> bool:
    """One photograph with each noise, and what the first seed's runs that have ended make of it.

    Returns:
        Whether there was anything to draw.

    Raises:
        ValueError, OSError: the photograph cannot be read, or a run is not of colour images.
    """
    ended = [job for job in jobs if job.seed == jobs[0].seed and job.state in ENDED and job.checkpoint.is_file()]
    rows = {}
    for noise, (name, strength) in TESTED_WITH.items():
        nets = {job.experiment.title: job.checkpoint for job in ended if job.experiment.noise == noise}
        if nets:
            rows[f"{noise} {strength:g}"] = make_noise({"name": noise, name: strength}), nets
    if rows:
        with Image.open(list_images(kodak)[:PICTURED][-1]) as photograph:
            path.write_bytes(draw_restored(np.array(photograph.convert("RGB")), rows))
    return bool(rows)
