"""Denoise and score a real burst: ``python -m benchmarks.burst --frames FOLDER --reference IMAGE``.

Trains on the left two thirds of all frames but the last, without any clean image, from pairs of frames (``data=burst``)
and from single frames (``data=single``), and scores the last frame's right third against the reference, beside a 3x3
median, non-local means, and the mean of all frames. What is scored was never seen in training or validation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage.filters import median
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.restoration import denoise_nl_means

from benchmarks.tables import show
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.metrics import pair_error, psnr_db, squared_error
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.system.atomic import write_json
from n2n_lightning.training.run_metadata import device_name

Pixels = npt.NDArray[np.uint8]
NLM_H = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5)  # in units of the noise's standard deviation
STUDY = "burst"


def read(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("RGB"))


def write_training_frames(frames: list[Path], folder: Path) -> None:
    """Write the left two thirds of every frame but the last."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in frames[:-1]:
        pixels = read(path)
        Image.fromarray(pixels[:, : pixels.shape[1] * 2 // 3]).save(folder / f"{path.stem}.png")


def train(data: str, folder: Path, more: list[str]) -> Path:
    """Train with the command line; return the run's folder."""
    run = Path("outputs") / STUDY / data
    command = [
        sys.executable,
        "-m",
        "n2n_lightning.train",
        f"data={data}",
        f"data.root={folder}",
        f"hydra.run.dir={run}",
    ]
    subprocess.run([*command, *more], check=True)
    return run


def denoise(run: Path, noisy: Pixels) -> Pixels:
    images = torch.from_numpy(noisy.copy()).permute(2, 0, 1)[None]
    estimate: Pixels = load_denoiser(run / "checkpoints" / "best.ckpt").denoise(images)[0].permute(1, 2, 0).numpy()
    return estimate


def non_local_means(noisy: Pixels, reference: Pixels, sigma: float) -> tuple[str, Pixels]:
    """Return the best of several strengths, chosen with the reference, which in practice is unknown."""
    image = noisy / 255.0
    tried = []
    for h in NLM_H:
        found = denoise_nl_means(
            image, patch_size=5, patch_distance=7, h=h * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
        )
        tried.append((f"non-local means, h={h} sigma (best of {len(NLM_H)})", as_8_bit(255 * found)))
    return max(tried, key=lambda one: peak_signal_noise_ratio(reference, one[1]))


def estimate_against_truth(run: Path, frames: list[Pixels], reference: Pixels) -> dict[str, float]:
    """Return the PSNR of the denoised frames against the reference, and as estimated from pairs of frames alone.

    Both are from the mean MSE, over frames and over pairs.
    """
    noisy = [torch.from_numpy(frame / 255.0).float().permute(2, 0, 1)[None] for frame in frames]
    clean = torch.from_numpy(reference / 255.0).float().permute(2, 0, 1)[None]
    module = load_denoiser(run / "checkpoints" / "best.ckpt")
    denoised = [module.denoise(frame) for frame in noisy]
    pairs = combinations(range(len(frames)), 2)
    estimates = [pair_error(denoised[a], denoised[b], noisy[a], noisy[b]).item() for a, b in pairs]
    return {
        "psnr_reference": psnr_db(float(np.mean([squared_error(image, clean).item() for image in denoised]))).item(),
        "psnr_pairs": psnr_db(float(np.mean(estimates))).item(),
    }


def as_8_bit(values: npt.NDArray[Any]) -> Pixels:
    rounded: Pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    return rounded


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on a burst, score a held-out frame and region.")
    parser.add_argument("--frames", type=Path, required=True, help="folder of aligned frames of one scene")
    parser.add_argument("--reference", type=Path, required=True, help="mean of many other frames")
    parser.add_argument("--also", type=Path, help="folder of another run to score")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/burst.json"))
    parser.add_argument("overrides", nargs="*", help="overrides of both runs: trainer.max_epochs=20 ...")
    args = parser.parse_args()
    frames = list_images(args.frames)
    folder = Path("outputs/benchmarks/burst_frames") / args.frames.name
    write_training_frames(frames, folder)
    runs = {data: train(data, folder, args.overrides) for data in ("burst", "single")}
    right = slice(read(args.reference).shape[1] * 2 // 3, None)
    reference = read(args.reference)[:, right]
    noisy = read(frames[-1])[:, right]
    sigma = float(np.std((read(frames[0]) / 255.0 - read(frames[1]) / 255.0)[:, : right.start]) / 2**0.5)
    mean = as_8_bit(np.mean([read(path)[:, right] for path in frames], axis=0))
    results = {
        "noisy frame": noisy,
        "Noise2Noise from the burst": denoise(runs["burst"], noisy),
        **({f"run {args.also.name}": denoise(args.also, noisy)} if args.also else {}),
        "single frames (Neighbor2Neighbor)": denoise(runs["single"], noisy),
        "median 3x3": np.stack([median(noisy[..., c], np.ones((3, 3))) for c in range(3)], -1),
        **dict([non_local_means(noisy, reference, sigma)]),
        f"mean of the {len(frames)} frames": mean,
    }
    rows: list[dict[str, Any]] = []
    for name, image in results.items():
        psnr = float(peak_signal_noise_ratio(reference, image))
        ssim = float(structural_similarity(reference, image, channel_axis=-1, gaussian_weights=True, sigma=1.5))
        rows.append({"name": name, "psnr": psnr, "gain": psnr - rows[0]["psnr"] if rows else 0.0, "ssim": ssim})
    cells = ((row["name"], f"{row['psnr']:.2f}", f"{row['gain']:+.2f}", f"{row['ssim']:.3f}") for row in rows)
    show(["", "PSNR, dB", "gain, dB", "SSIM"], cells)
    check = estimate_against_truth(runs["burst"], [read(path)[:, right] for path in frames], reference)
    print(
        f"all frames denoised, right third: {check['psnr_reference']:.2f} dB against the reference, "
        f"{check['psnr_pairs']:.2f} dB estimated from pairs of frames"
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {"device": device_name(), "overrides": args.overrides, "rows": rows, "estimate": check})
    stacked = np.concatenate([*results.values(), reference], axis=1)
    Image.fromarray(stacked).save(args.output.with_suffix(".png"))  # only to look at: the images may not be published
    print(args.output)


if __name__ == "__main__":
    main()
