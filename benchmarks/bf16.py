"""Measure what bf16 costs in PSNR: ``python -m benchmarks.bf16 --images FOLDER``.

Each of the trained weights denoises the middle of each image with Gaussian noise, in float32 and under autocast to
bfloat16. ``--precision auto`` takes bf16 for the families that lose less than 0.02 dB.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import machine, save
from benchmarks.tables import show
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.metrics import psnr_db
from n2n_lightning.models.trained import list_trained


def middles(folder: Path, side: int) -> list[Tensor]:
    """Return the middle of each RGB image: (1, 3, h, w) float32 in [0, 1], at most ``side`` px high and wide."""
    found = []
    for path in list_images(folder):
        with open_image_file(path) as image_file:
            image = np.array(next(image_file.upright_images()))
        height, width = (min(size, side) for size in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        middle = torch.from_numpy(image[top : top + height, left : left + width].copy())
        found.append(middle.permute(2, 0, 1)[None] / 255)
    return found


def psnrs(denoiser: Denoiser, clean: list[Tensor], sigma_255: float) -> list[float]:
    """Return the PSNR of each image, dB, with noise that depends on its number alone."""
    found = []
    for number, image in enumerate(clean):
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(number))
        estimate = denoiser.estimate(image + sigma_255 / 255 * noise).clamp(0, 1)
        found.append(float(psnr_db((estimate - image).square().mean())))
    return found


def measure(name: str, clean: list[Tensor], sigma_255: float, device: str) -> dict[str, Any] | None:
    """Return the PSNR in float32 and what bf16 adds to it, in the mean and at most; None for nets of grey images."""
    denoiser, start = Denoiser.load(name), time.perf_counter()
    if not denoiser.takes(3):
        return None
    denoiser.module.to(device)
    single = psnrs(denoiser, clean, sigma_255)
    denoiser.bf16 = True
    changes = [other - one for one, other in zip(single, psnrs(denoiser, clean, sigma_255), strict=True)]
    return {
        "model": name,
        "family": denoiser.module.family,
        "psnr_db": sum(single) / len(single),
        "change_db": sum(changes) / len(changes),
        "most_db": max(changes, key=abs),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of clean RGB images")
    parser.add_argument("--models", nargs="+", help="names of trained weights (default: all)")
    parser.add_argument("--side", type=int, default=256, help="height and width of the middle, px (default: 256)")
    parser.add_argument("--sigma", type=float, default=25.0, help="sd of the noise, of 255 (default: 25)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(machine())
    clean, rows = middles(arguments.images, arguments.side), []
    for name in arguments.models or [weights.name for weights in list_trained()]:
        if row := measure(name, clean, arguments.sigma, arguments.device):
            print(name, f"{row['change_db']:+.4f} dB, {row['seconds']:.0f} s", flush=True)
            rows.append(row)
    cells = [
        (row["model"], row["family"], f"{row['psnr_db']:.2f}", f"{row['change_db']:+.4f}", f"{row['most_db']:+.4f}")
        for row in rows
    ]
    show(["weights", "family", "PSNR (dB)", "change by bf16 (dB)", "most for one image (dB)"], cells)
    save("bf16", {"sigma_255": arguments.sigma, "side_px": arguments.side, "rows": rows})


if __name__ == "__main__":
    main()
