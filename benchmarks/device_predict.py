"""Measure ``predict`` on a device, start-up apart: ``python -m benchmarks.device_predict --images FOLDER``.

The command runs within this process for one image and for all, and the speed is that of the images in between, from
file to file. Part of ``benchmarks.device``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as predict.py does

import numpy as np
import tifffile
from PIL import Image

from benchmarks.device_steps import cell, device_of_choice
from benchmarks.measuring import machine, save
from benchmarks.tables import show
from n2n_lightning import predict
from n2n_lightning.image_io.listing import list_images

FILES = 24
WEIGHTS = ("unet", "convtrans_relu")
SMALL_PX = 256


def seconds_of(weights: str, files: Sequence[Path], folder: Path, *options: str) -> float:
    """Denoise the files into a new folder and return the seconds."""
    output = tempfile.mkdtemp(dir=folder)
    started = time.perf_counter()
    code = predict.main([weights, *map(str, files), "--output", output, "--device", str(device_of_choice()), *options])
    if code:
        raise RuntimeError(f"predict ended with {code}")
    return time.perf_counter() - started


def speed(weights: str, files: Sequence[Path], megapixels: Sequence[float], *options: str) -> dict[str, Any]:
    """Return the megapixels per second of all files but the first."""
    with tempfile.TemporaryDirectory() as folder:
        warm, one, all_files = (
            seconds_of(weights, chosen, Path(folder), *options) for chosen in (files[:1], files[:1], files)
        )
    rate = sum(megapixels[1:]) / max(all_files - one, 1e-9)
    words = " ".join(options)
    return {"weights": weights, "options": words, "MP/s": rate, "all files, s": all_files, "first call, s": warm}


def png_files(images: Path, count: int, folder: Path) -> tuple[list[Path], list[float]]:
    """Write the first images of a folder as PNG, and return their paths and megapixels."""
    paths, megapixels = [], []
    for number, path in enumerate(list_images(images)[:count]):
        paths.append(folder / f"{number:02}.png")
        with Image.open(path) as image:
            image.convert("RGB").save(paths[-1])
            megapixels.append(image.width * image.height / 1e6)
    return paths, megapixels


def tiff_files(side: int, folder: Path) -> tuple[list[Path], list[float]]:
    """Write a small and a big grey TIFF of 16 bits, and return their paths and megapixels."""
    noise = np.random.default_rng(0).poisson(3000, (SMALL_PX, SMALL_PX)).astype(np.uint16)
    repeats = -(-side // SMALL_PX)
    paths = [folder / "small.tif", folder / "big.tif"]
    tifffile.imwrite(paths[0], noise)
    tifffile.imwrite(paths[1], np.tile(noise, (repeats, repeats))[:side, :side])
    return paths, [SMALL_PX**2 / 1e6, side**2 / 1e6]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure predict, start-up apart.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", type=Path, help=f"folder of images; {FILES} of them are denoised as PNG files")
    what.add_argument("--big", type=int, metavar="PX", help="side of a grey TIFF of 16 bits")
    parser.add_argument("--files", type=int, default=FILES)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        name = "device_predict" if args.images else "device_predict_big"
        files = png_files(args.images, args.files, Path(folder)) if args.images else tiff_files(args.big, Path(folder))
        for weights in WEIGHTS if args.images else WEIGHTS[:1]:
            for precision in ("32", "bf16"):
                options = ("--precision", precision, *(() if args.images else ("--per-channel",)))
                rows.append(speed(weights, *files, *options))
                save(name, {"rows": rows})
    print(machine())
    show([*rows[0]], ([cell(value) for value in row.values()] for row in rows))


if __name__ == "__main__":
    main()
