"""One photograph with each of several noises, denoised by each of several nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from n2n_lightning.image_io.listing import list_images
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.noise.choices import make_noise
from n2n_lightning.noise.kinds import Noise
from n2n_lightning.paper.experiments import TEST_NOISES
from n2n_lightning.paper.jobs import ENDED, PaperRun
from n2n_lightning.reporting.figures import draw_image_rows, png_bytes
from n2n_lightning.reporting.pictures import image_psnr_db

PICTURED = 7  # number of the photograph in Kodak's: flowers before shutters, with smooth and with fine parts
CROP_PX = 128  # side of the image's centre that is shown; PSNR is of the whole image

PictureRow = tuple[Noise, Mapping[str, Path]]  # a noise, and title -> checkpoint of a net trained for it


def draw_restored(clean: NDArray[np.uint8], rows: Mapping[str, PictureRow]) -> bytes:
    """Draw a row for each noise: the noisy image, each net's estimate, and the clean image.

    ``clean`` is (H, W, 3) and writable, ``rows`` is title -> noise and nets. Returns a PNG file, 2x2 pixels a pixel.

    Raises:
        ValueError: a net is not for colour images.
    """
    drawn = {}
    for name, (noise, nets) in rows.items():
        images = restore(clean, noise, nets, seed=0)
        drawn[name] = [
            (centre(image), title if image is clean else f"{title}\n{image_psnr_db(image, clean):.1f} dB")
            for title, image in images.items()
        ]
    return png_bytes(draw_image_rows(drawn, cell_width=CROP_PX / 100, text_size=6))


def restore(
    clean: NDArray[np.uint8], noise: Noise, nets: Mapping[str, Path], seed: int
) -> dict[str, NDArray[np.uint8]]:
    """Add noise to an image of (H, W, 3) and denoise it with each net, ``nets`` being title -> checkpoint.

    Returns title -> (H, W, 3) uint8: the noisy image, each net's estimate, and the clean image.
    """
    image = torch.from_numpy(clean).movedim(-1, 0)[None].float() / 255
    noisy = noise.corrupt(image, torch.Generator().manual_seed(seed))
    images = {"noisy image": noisy} | {title: load_denoiser(path).denoise(noisy) for title, path in nets.items()}
    shown = {
        title: (values[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy() for title, values in images.items()
    }
    return shown | {"clean image": clean}


def centre(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image's centre, at most ``CROP_PX`` pixels on a side."""
    top, left = (max(side - CROP_PX, 0) // 2 for side in image.shape[:2])
    return image[top : top + CROP_PX, left : left + CROP_PX]


def draw_pictures(jobs: Sequence[PaperRun], kodak: Path, path: Path) -> bool:
    """Draw one photograph with each noise, denoised by the first seed's finished runs; False if there are none.

    Raises:
        ValueError, OSError: the photograph cannot be read, or a run is not of colour images.
    """
    ended = [job for job in jobs if job.seed == jobs[0].seed and job.state in ENDED and job.checkpoint.is_file()]
    rows = {}
    for noise, (name, strength) in TEST_NOISES.items():
        nets = {job.experiment.title: job.checkpoint for job in ended if job.experiment.noise == noise}
        if nets:
            rows[f"{noise} {strength:g}"] = make_noise({"name": noise, name: strength}), nets
    if rows:
        with Image.open(list_images(kodak)[:PICTURED][-1]) as photograph:
            path.write_bytes(draw_restored(np.array(photograph.convert("RGB")), rows))
    return bool(rows)
