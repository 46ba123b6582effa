"""Measure what denoising files costs: ``python -m benchmarks.predict --images FOLDER``.

Exactness: the largest difference between tiles and the whole image. Speed: decoding, tiling and denoising files
(without encoding) against a bare call of the net on the same padded arrays, in turns within one process. Size: time
and memory of the command for a big grey 16-bit TIFF.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as predict.py does

import numpy as np
import tifffile
import torch
from torch import Tensor

from benchmarks.measuring import machine, save
from benchmarks.tables import show
from benchmarks.turns import Convolutions
from n2n_lightning.data.scenes import size_text
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.image_file import Array
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.image_io.value_range import to_net
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.nets.padding import pad_to_multiple
from n2n_lightning.training.run_metadata import count_gmac

SIZES = ((257, 511), (1024, 1536))
TILES_PX = (32, 128, 384)
ROUNDS = 3
# the command prints its own memory, because the memory of a child includes that of the process it was forked from
PREDICT = """
import sys
from benchmarks.measuring import resident_mb
from n2n_lightning.predict import main
code = main(sys.argv[1:])
print(resident_mb("VmHWM"))
sys.exit(code)
"""


def exactness(name: str) -> list[dict[str, Any]]:
    """Return the largest difference between tiles and the whole image, where 1 is the range."""
    denoiser, rows = Denoiser.load(name), []
    for height, width in SIZES:
        images = np.random.default_rng(0).uniform(size=(1, height, width, 3)).astype(np.float32)
        with torch.inference_mode():
            whole = denoiser.module(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        for tile in TILES_PX:
            bands = denoiser.bands(lambda a, b, i=images: i[:, a:b], images.shape, 1.0, plan=Plan(tile, tile))  # type: ignore[misc]
            tiled = np.concatenate([band for _, band in bands], axis=1)
            rows.append({"model": name, "size": (height, width), "tile_px": tile, "halo_px": denoiser.reach.halo})
            rows[-1]["difference"] = float(np.abs(tiled - whole).max())
    return rows


def seconds_of(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def from_file(denoiser: Denoiser, path: Path) -> list[Array]:
    """Do all that ``predict`` does with a file except writing it; return the (N, rows, W, C) bands."""
    with open_image_file(path) as image_file:
        shape = image_file.colour_shape
        plan = denoiser.plan(shape, image_file.dtype.itemsize, image_file.held_bytes)
        bands = denoiser.bands(lambda top, bottom: image_file.read(0, top, bottom), shape, 255.0, plan=plan)
        return [rows for _, rows in bands]


@torch.inference_mode()
def bare(denoiser: Denoiser, padded: Tensor) -> Tensor:
    estimate: Tensor = denoiser.module.net(padded)
    return estimate


def speed(name: str, folder: Path) -> dict[str, Any]:
    """Return megapixels per second from files, of the bare net, and their ratio: medians over rounds of all files."""
    denoiser, paths, padded = Denoiser.load(name), list_images(folder), []
    assert denoiser.reach and denoiser.bytes_per_px  # measured before the clock runs
    for path in paths:
        with open_image_file(path) as image_file:
            image = to_net(image_file.read(0, 0, image_file.shape[1]), 255.0)
        padded.append(pad_to_multiple(image, denoiser.reach.stride))
    pixels = sum(images.shape[2] * images.shape[3] for images in padded)
    alone = Convolutions(denoiser.module.net, padded[0])
    _, channels, height, width = padded[0].shape
    gflop_a_mp = 2e6 * count_gmac(denoiser.module, (channels, height, width)) / (height * width)
    rounds, floors = [], []
    for turn in range(ROUNDS + 1):
        ours, theirs = 0.0, 0.0
        for path, images in zip(paths, padded, strict=True):
            tasks = [lambda path=path: from_file(denoiser, path), lambda images=images: bare(denoiser, images)]
            times = [seconds_of(task) for task in (tasks if turn % 2 else tasks[::-1])]
            mine, other = times if turn % 2 else times[::-1]
            ours, theirs = ours + mine, theirs + other
        rounds.append((ours, theirs))
        with torch.no_grad():
            floors.append(alone.seconds())
    measured = rounds[1:]
    bare_speed = statistics.median(pixels / 1e6 / theirs for _, theirs in measured)
    return {
        "model": name,
        "files": len(paths),
        "from_files_mp_per_s": statistics.median(pixels / 1e6 / ours for ours, _ in measured),
        "bare_mp_per_s": bare_speed,
        "bare_gflops": gflop_a_mp * bare_speed,
        "convolutions_gflops": gflop_a_mp * height * width / 1e6 / statistics.median(floors[1:]),
        "ratios": [theirs / ours for ours, theirs in measured],
        "ratio": statistics.median(theirs / ours for ours, theirs in measured),
    }


def big(name: str, side: int, memory: str, *options: str) -> dict[str, Any]:
    """Return seconds and peak resident memory of ``predict`` on a grey 16-bit TIFF of ``side`` x ``side`` px."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.tif"
        down = np.sin(np.arange(side) / 97)[:, None]
        level = 3000 + 2000 * down * np.cos(np.arange(side) / 131)[None]
        tifffile.imwrite(path, np.random.default_rng(0).poisson(level).astype(np.uint16))
        files = (name, str(path), "--output", f"{folder}/out")
        command = [sys.executable, "-c", PREDICT, *files, "--per-channel", "--memory", memory, *options]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
        with tifffile.TiffFile(Path(folder) / "out" / "big.tif") as tiff:
            assert tiff.pages[0].shape == (side, side) and tiff.pages[0].dtype == np.uint16
    peak = float(done.stdout.split()[-1]) * 1024**2 / 1e9
    return {"model": name, "side": side, "memory": memory, "options": options, "seconds": seconds, "peak_gb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of RGB images to measure the speed with")
    parser.add_argument("--models", nargs="+", default=["unet", "convtrans_relu"])
    parser.add_argument("--big", type=int, metavar="PX", help="side of the big image; without it none is made")
    parser.add_argument("--memory", default="2GB")
    arguments = parser.parse_args()
    print(machine())
    exact = [row for name in arguments.models for row in exactness(name)]
    cells = (
        (row["model"], size_text(row["size"]), str(row["tile_px"]), str(row["halo_px"]), f"{row['difference']:.1e}")
        for row in exact
    )
    show(["model", "image", "tile", "halo", "largest difference"], cells)
    fast = [speed(name, arguments.images) for name in arguments.models] if arguments.images else []
    for row in fast:
        ratios = " ".join(f"{ratio:.3f}" for ratio in row["ratios"])
        print(
            f"{row['model']}, {row['files']} files: {row['from_files_mp_per_s']:.3f} MP/s from files, "
            f"{row['bare_mp_per_s']:.3f} bare, ratio {row['ratio']:.3f} (rounds: {ratios}); {row['bare_gflops']:.1f} "
            f"GFLOP/s, its convolutions alone {row['convolutions_gflops']:.1f}",
            flush=True,
        )
    options = ((), ("--precision", "bf16")) if arguments.big else ()
    large = [big("unet", arguments.big, arguments.memory, *words) for words in options]
    for row in large:
        print(
            f"{row['side']}x{row['side']} px {' '.join(row['options'])} --memory {row['memory']}: "
            f"{row['seconds']:.0f} s, peak {row['peak_gb']:.2f} GB",
            flush=True,
        )
    save("predict", {"exactness": exact, "speed": fast, "big": large})


if __name__ == "__main__":
    main()
