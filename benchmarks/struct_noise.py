"""Noise that is constant along lines, from one image: ``python -m benchmarks.struct_noise [--masks none rows]``.

Makes a part of scikit-image's cameraman with noise that is constant along 5 and along 9 px of a row, and a little white
noise. Trains on each image alone by ``loss=noise2void``, without a mask and with the mask of the lines (structN2V), as
many steps each, and prints the PSNR against the photograph.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from benchmarks.tables import show
from n2n_lightning import Denoiser
from n2n_lightning.system.atomic import write_json
from n2n_lightning.training.run_metadata import device_name

FOLDER = Path("outputs/benchmarks/struct_noise")
LENGTHS = (5, 9)  # px
RECIPE = [  # settings of train: 2,000 steps of small batches at a high rate
    *("init_from=null", "model=drunet", "optimizer.lr=0.004", "ema=0.995", "loss.masked=0.03"),
    *("data.batch_size=4", "data.train_pairs=4000", "trainer.max_epochs=2"),
]
LINE_SIGMA, WHITE_SIGMA = 25 / 255, 5 / 255


def line_noise(shape: tuple[int, int], length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw noise of standard deviation 1 that is constant along pieces of each row; each row starts anywhere."""
    height, width = shape
    lines = rng.normal(0, 1, (height, width // length + 2)).repeat(length, axis=1)
    starts = rng.integers(length, size=height)
    return np.stack([line[start : start + width] for line, start in zip(lines, starts, strict=True)])


def make_image(length: int) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a noisy image of 256x256 px; return its path, and it and the clean one, (256, 256) in units of 0 to 1."""
    clean = data.camera()[60:316, 130:386] / 255.0
    rng = np.random.default_rng(length)
    noisy = clean + LINE_SIGMA * line_noise(clean.shape, length, rng) + rng.normal(0, WHITE_SIGMA, clean.shape)
    path = FOLDER / f"lines_{length}" / "camera.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, noisy.astype(np.float32))
    return path, noisy, clean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", nargs="+", default=["none", "rows", "auto"], help="choices of loss.mask")
    parser.add_argument("overrides", nargs="*", help="further settings of train, such as model=n2v2")
    arguments = parser.parse_args()
    rows, record = [], {}
    for length in LENGTHS:
        path, noisy, clean = make_image(length)
        found = {"noisy": peak_signal_noise_ratio(clean, noisy, data_range=1)}
        for mask in arguments.masks:
            run = FOLDER / f"runs_{length}" / mask
            command = [sys.executable, "-m", "n2n_lightning.train", "data=single", f"data.root={path.parent}"]
            method = ["loss=noise2void", f"loss.mask={mask}", "data.augment=[flip]"]
            method += [f"loss.mask_px={length - 1}"] * (mask == "rows")
            settings = ["data.range=1", "resume=false", f"hydra.run.dir={run}"]
            subprocess.run([*command, *method, *settings, *RECIPE, *arguments.overrides], check=True)
            denoised = Denoiser.load(run).denoise(noisy.astype(np.float32))
            found[mask] = peak_signal_noise_ratio(clean, denoised.astype(np.float64), data_range=1)
        record[f"{length}"] = found
        rows.append([f"{length} px", *(f"{found[key]:.2f}" for key in ("noisy", *arguments.masks))])
    show(("lines of", "noisy (dB)", *(f"mask={mask} (dB)" for mask in arguments.masks)), rows)
    write_json(FOLDER / "struct_noise.json", {"device": device_name("cpu"), "lines": record})


if __name__ == "__main__":
    main()
