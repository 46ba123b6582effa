"""Denoise each image alone, by every method: ``python -m benchmarks.single --images FOLDER [--methods ...]``.

Noise is added to clean images in float, neither clipped nor rounded. Each noisy image is written as a file of its own
and goes through the commands: ``denoise`` with and without adaptation, and ``train data=single`` from random weights.
Filters stand beside them, with strengths chosen from the noisy image alone. PSNR is that of the estimate clipped to
[0, 1]. The same command again goes on where it stopped; what was measured is in ``single.json``.

On a busy machine ``--minutes`` gives fewer steps than on an idle one. ``--steps`` sets their number instead, and the
seconds of the processor say what they take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from benchmarks.tables import show
from n2n_lightning import Denoiser
from n2n_lightning.filters import FILTERS
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.noise_variance import NoiseVariance
from n2n_lightning.single_filters import choose_strength
from n2n_lightning.system.atomic import read_json, write_json
from n2n_lightning.training.run_metadata import device_name

FOLDER = Path("outputs/benchmarks/single")
FROM_SCRATCH = {  # experiment=one_image with these settings
    "r2r": [],
    "zs_n2n": ["model=zs_n2n", "loss=zs_n2n", "data.batch_size=8"],
    "noise2void": ["model=n2v2", "loss=noise2void", "data.batch_size=8"],
    "neighbor2neighbor": ["loss=neighbor2neighbor"],
}
EPOCHS, BATCH = 4, 2  # of experiment=one_image
COMMANDS = ("denoise", "denoise_adapted", *FROM_SCRATCH)
Pixels = npt.NDArray[np.floating]  # (H, W, C) or (H, W) in units of the range


def add_noise(clean: Pixels, kind: str, strength: float, seed: int) -> Pixels:
    """Return a noisy image: Gaussian noise of sigma ``strength`` of 255, or Poisson noise of ``strength`` counts."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        return (clean + rng.normal(0, strength / 255, clean.shape)).astype(np.float32)
    return (rng.poisson(clean * strength) / strength).astype(np.float32)


def psnr(estimate: Pixels, clean: Pixels) -> float:
    return float(-10 * np.log10(np.square(estimate.clip(0, 1) - clean, dtype=np.float64).mean()))


def processor_seconds() -> float:
    """Return the time of the processor that this process and those it has started have taken."""
    return sum(os.times()[:4])


def run(module: str, *arguments: str) -> None:
    """Run one of the commands, quietly."""
    command = [sys.executable, "-m", f"n2n_lightning.{module}", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)


def by_denoise(noisy: Path, work: Path, minutes: float) -> Pixels:
    """Denoise a file by the command ``denoise``."""
    run("denoise", str(noisy), "--output", str(work), "--overwrite", f"--minutes={minutes:g}")
    denoised: Pixels = tifffile.imread(work / noisy.name)
    return denoised


def by_training(noisy: Path, work: Path, length: list[str], settings: list[str]) -> Pixels:
    """Train a net on a file alone, and denoise it by the mean over eight flips and rotations."""
    image = [f"data.root={noisy.parent}", "data.range=1", f"hydra.run.dir={work}", "resume=false"]
    run("train", "experiment=one_image", *image, *settings, *length)
    denoiser = Denoiser.load(work)
    return over_turns(lambda image: denoiser.denoise(image, range=1.0), tifffile.imread(noisy))


def over_turns(denoise: Callable[[Pixels], Pixels], image: Pixels) -> Pixels:
    """Return the mean over the flips and rotations of an image, (H, W) or (H, W, C)."""
    total = np.zeros_like(image)
    for turns in range(4):
        for flipped in (False, True):
            turned = np.rot90(image, turns)
            found = denoise(np.ascontiguousarray(turned[:, ::-1] if flipped else turned))
            total += np.rot90(found[:, ::-1] if flipped else found, -turns)
    return total / 8


def by_filter(name: str, noisy: Pixels, slope: float, offset: float) -> Pixels:
    """Filter an image with the strength that it chooses itself. The noise's variance is slope x level + offset."""
    images = np.moveaxis(noisy if noisy.ndim == 3 else noisy[..., None], -1, 0)[None]
    channels = images.shape[1]
    noise = NoiseVariance(np.full(channels, slope), np.full(channels, offset))
    strength = choose_strength(name, images, noise)
    found: Pixels = np.moveaxis(FILTERS[name].apply(images, strength, noise)[0], 0, -1).reshape(noisy.shape)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--noise", choices=("gaussian", "poisson"), default="gaussian")
    parser.add_argument("--strength", type=float, default=25.0, help="sigma of 255, or counts")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training or adaptation for each image")
    parser.add_argument("--steps", type=int, help="of training from random weights, instead of minutes")
    parser.add_argument("--methods", nargs="+", default=[*FILTERS, *COMMANDS], choices=[*FILTERS, *COMMANDS])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    length = [f"minutes={arguments.minutes:g}"]
    if arguments.steps:
        length = ["minutes=null", f"data.train_pairs={BATCH * arguments.steps // EPOCHS}", f"data.batch_size={BATCH}"]
    record_path = arguments.folder / "single.json"
    record = read_json(record_path) or {"device": device_name("cpu"), "scores": {}}
    for number, path in enumerate(list_images(arguments.images)):
        with Image.open(path) as picture:
            clean = np.asarray(picture.convert("RGB"), np.float32) / 255
        noisy = add_noise(clean, arguments.noise, arguments.strength, number)
        setting = f"{arguments.noise} {arguments.strength:g}"
        work = arguments.folder / setting.replace(" ", "_") / path.stem
        file = work / "noisy" / f"{path.stem}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, noisy, photometric="rgb")
        for method in arguments.methods:
            key = f"{setting} | {method}"
            scores = record["scores"].setdefault(key, {})
            if path.stem in scores:
                continue
            began, used = time.monotonic(), processor_seconds()
            if method in FILTERS:
                gaussian = arguments.noise == "gaussian"
                slope, offset = (0.0, (arguments.strength / 255) ** 2) if gaussian else (1 / arguments.strength, 0.0)
                estimate = by_filter(method, noisy, slope, offset)
            elif method in FROM_SCRATCH:
                estimate = by_training(file, work / method, length, FROM_SCRATCH[method])
            else:
                estimate = by_denoise(file, work / method, arguments.minutes if method == "denoise_adapted" else 0)
            seconds = {"seconds": time.monotonic() - began, "processor_seconds": processor_seconds() - used}
            scores[path.stem] = {"psnr": psnr(estimate, clean), **seconds}
            print(f"{key} {path.stem}: {scores[path.stem]['psnr']:.2f} dB", flush=True)
            write_json(record_path, record)
    rows = []
    for key, scores in record["scores"].items():
        values = np.array([tuple(score.values()) for score in scores.values()]).mean(0)
        rows.append([key, str(len(scores)), f"{values[0]:.2f}", f"{values[1]:.1f}", f"{values[2]:.1f}"])
    show(("noise | method", "images", "PSNR (dB)", "seconds an image", "of the processor"), rows)


if __name__ == "__main__":
    main()
