"""Compare the PSNR that is estimated from one noisy image with the truth: ``python -m benchmarks.single_quality``.

Takes the middle of each image, adds noise in float, and estimates the PSNR of ``weights/general`` on it. The table
gives, for each noise, in how many images the estimate was made, and its error in dB: the mean, the root of the mean
square, and how many are within 0.3 and 0.5 dB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from benchmarks.tables import show
from n2n_lightning.diagnosis.single_quality import SingleNoise
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.trained import GENERAL
from n2n_lightning.noise.kinds import Brown, Gaussian, Noise, Poisson, PoissonGaussian
from n2n_lightning.system.atomic import write_json

SIDES_PX = 256, 384  # of the middle, the shorter one first
NOISES: dict[str, Noise] = {
    "Gaussian 10": Gaussian(10.0),
    "Gaussian 25": Gaussian(25.0),
    "Gaussian 50": Gaussian(50.0),
    "Poisson 30": Poisson(30.0),
    "Poisson-Gaussian 0.01, 10": PoissonGaussian(0.01, 10.0),
    "Gaussian 25, blurred by 1 px": Brown(25.0, 1.0),
}


def middle(path: Path) -> Tensor:
    """Return the middle of an image: (1, 3, H, W) float32 in [0, 1]."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    sides = SIDES_PX if pixels.shape[0] <= pixels.shape[1] else SIDES_PX[::-1]
    tops = [max(have - want, 0) // 2 for have, want in zip(pixels.shape[:2], sides, strict=True)]
    cut = pixels[tops[0] : tops[0] + sides[0], tops[1] : tops[1] + sides[1]]
    return torch.from_numpy(cut.copy()).permute(2, 0, 1)[None]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image only")
    parser.add_argument("--json", type=Path, default=Path("outputs/benchmarks/single_quality.json"))
    arguments = parser.parse_args()
    net = load_denoiser(GENERAL)
    errors: dict[str, list[float | None]] = {name: [] for name in NOISES}
    for number, path in enumerate(track(list_images(arguments.images)[:: arguments.every])):
        clean = middle(path)
        for name, noise in NOISES.items():
            noisy = noise.corrupt(clean, torch.Generator().manual_seed(number))
            found = SingleNoise.measure(net, noisy)
            truth = -10 * float((net(noisy) - clean).square().mean().log10())
            errors[name].append(None if found.doubt else found.psnr_db - truth)
    rows = []
    for name, all_errors in errors.items():
        made = np.array([error for error in all_errors if error is not None])
        row = [name, f"{len(made)} of {len(all_errors)}"]
        if len(made):
            near = [f"{np.sum(abs(made) <= limit)}" for limit in (0.3, 0.5)]
            row += [f"{made.mean():+.2f}", f"{np.sqrt(np.square(made).mean()):.2f}", *near]
        rows.append(row + [""] * (6 - len(row)))
    show(("noise", "estimated", "mean error (dB)", "rms (dB)", "within 0.3 dB", "within 0.5 dB"), rows)
    write_json(arguments.json, errors)


if __name__ == "__main__":
    main()
