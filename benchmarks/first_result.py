"""What a new user's burst comes to: ``python -m benchmarks.first_result [--minutes 1 5]``.

Makes six frames of scikit-image's coffee photograph with Poisson-Gaussian noise, trains with README's command and a
budget of minutes, denoises the first frame, and prints its PSNR against the photograph, beside filters whose strength
their own estimate chose. Range and PSNR are those of the photograph: (value - 300) / 3000, peak 1.
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
from skimage.transform import resize

from benchmarks.tables import show
from n2n_lightning import Denoiser
from n2n_lightning.system.atomic import read_json, write_json
from n2n_lightning.training.run_metadata import device_name

FOLDER = Path("outputs/benchmarks/first_result")
FRAMES, COUNT, READ_OUT = 6, 40, 0.03
SCALE, OFFSET = 3000, 300


def make_burst(path: Path) -> np.ndarray:
    """Write six noisy frames of 300x400 px, and return the photograph, (300, 400, 3) in [0, 1]."""
    rng = np.random.default_rng(1)
    clean: np.ndarray = resize(data.coffee(), (300, 400), anti_aliasing=True)
    frames = [rng.poisson(clean * COUNT) / COUNT + rng.normal(0, READ_OUT, clean.shape) for _ in range(FRAMES)]
    stored = np.rint(np.array(frames) * SCALE + OFFSET).clip(0, 65535).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, stored, photometric="rgb")
    return clean


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Return the PSNR of stored values (300, 400, 3) against the photograph, dB."""
    return float(peak_signal_noise_ratio(clean, (image.astype(np.float64) - OFFSET) / SCALE, data_range=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5])
    parser.add_argument("overrides", nargs="*", help="further settings of train")
    arguments = parser.parse_args()
    burst = FOLDER / "burst.tif"
    clean = make_burst(burst)
    first = tifffile.imread(burst)[0]
    rows, record = [["noisy", "", f"{psnr(first, clean):.2f}", ""]], {}
    for minutes in arguments.minutes:
        run = FOLDER / f"minutes_{minutes:g}"
        command = [sys.executable, "-m", "n2n_lightning.train", "data=burst", f"data.root={burst}"]
        settings = [f"minutes={minutes:g}", "resume=false", f"hydra.run.dir={run}"]
        subprocess.run([*command, *settings, *arguments.overrides], check=True)
        result = read_json(run / "result.json")
        truth = psnr(Denoiser.load(run).denoise(first), clean)
        filters = result["filters"] or {}
        estimates = [result["val/psnr_pairs"], *(found["psnr_pairs"] for found in filters.values())]
        beside = ", ".join(f"{name} {found['psnr_pairs']:.2f}" for name, found in filters.items())
        rows.append([f"{minutes:g} minutes", f"{estimates[0]:.2f}", f"{truth:.2f}", beside])
        record[f"{minutes:g}"] = {"psnr": truth, "estimate": estimates[0], "filters": filters}
    show(("", "estimate of the held-out part (dB)", "first frame, truth (dB)", "filters' estimates (dB)"), rows)
    write_json(FOLDER / "first_result.json", {"device": device_name("cpu"), "runs": record})


if __name__ == "__main__":
    main()
