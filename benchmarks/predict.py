"""Measure what denoising files costs: ``python -m benchmarks.predict --images FOLDER``.

Exactness: the largest difference between tiles and the whole image. Speed: all that the command does with the files,
with and without writing, against a bare call of the net on the same padded arrays, in turns within one process. Size:
time and memory of the command for a big grey 16-bit TIFF.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as predict.py does
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as every command does

import numpy as np
import tifffile
import torch
from torch import Tensor

from benchmarks.measuring import machine, save
from benchmarks.tables import show
from benchmarks.turns import Convolutions
from n2n_lightning.data.scenes import size_text
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.file_runner import FileDenoiser, InspectedFile
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.nets.padding import pad_to_multiple
from n2n_lightning.training.run_metadata import count_gmac

SIZES = ((257, 511), (1024, 1536))
TILES_PX = (32, 128, 384)
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
            bands = denoiser.bands(lambda a, b, i=images: i[:, a:b], images.shape, Scale(1.0), plan=Plan(tile, tile))  # type: ignore[misc]
            tiled = np.concatenate([band for _, band in bands], axis=1)
            rows.append({"model": name, "size": (height, width), "tile_px": tile, "halo_px": denoiser.reach.halo})
            rows[-1]["difference"] = float(np.abs(tiled - whole).max())
    return rows


def seconds_of(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


class NotWriting(FileDenoiser):
    """Denoises files, and writes nothing."""

    def denoise(self, file: InspectedFile, scales: Mapping[Path, Scale], *_: object) -> None:
        scale = scales[file.job.input]
        with open_image_file(file.job.input) as image:
            for group in range(image.count):
                for _ in self.bands(image, group, file.plan, scale, self.bounds(file, scale)):
                    pass


def run_files(kind: type[FileDenoiser], denoiser: Denoiser, paths: Sequence[Path]) -> None:
    """Do what ``predict`` does with files once its net is loaded."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        manifest = Manifest(Path(folder), paths[0], {})
        faults = list(kind(denoiser, manifest).run([FileJob(path, Path(folder) / path.name) for path in paths]))
    assert not faults, faults


@torch.inference_mode()
def bare(denoiser: Denoiser, padded: Tensor) -> Tensor:
    estimate: Tensor = denoiser.module.net(padded)
    return estimate


def speed(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Return megapixels per second of the bare net and from files, and their ratios: medians over rounds."""
    denoiser, paths, padded = Denoiser.load(name), list_images(folder), []
    for path in paths:
        with open_image_file(path) as image_file:
            image = Scale(255.0).to_net(image_file.read(0, 0, image_file.shape[1]))
        padded.append(pad_to_multiple(image, denoiser.reach.stride))
    megapixels = sum(images.shape[2] * images.shape[3] for images in padded) / 1e6
    alone = Convolutions(denoiser.module.net, padded[0])
    _, channels, height, width = padded[0].shape
    gflop_a_mp = 2e6 * count_gmac(denoiser.module, (channels, height, width)) / (height * width)
    tasks: dict[str, Callable[[], object]] = {
        "bare": lambda: [bare(denoiser, images) for images in padded],
        "not_writing": lambda: run_files(NotWriting, denoiser, paths),
        "writing": lambda: run_files(FileDenoiser, denoiser, paths),
    }
    run_files(FileDenoiser, denoiser, paths[:2])  # what is measured once, before the clock runs
    bare(denoiser, padded[0])
    seconds: dict[str, list[float]] = {kind: [] for kind in tasks}
    floors = []
    for turn in range(rounds):
        for kind in list(tasks)[:: -1 if turn % 2 else 1]:
            seconds[kind].append(seconds_of(tasks[kind]))
        with torch.no_grad():
            floors.append(alone.seconds())
    speeds = {f"{kind}_mp_per_s": megapixels / statistics.median(times) for kind, times in seconds.items()}
    ratios = {
        kind: [bare_time / time for bare_time, time in zip(seconds["bare"], times, strict=True)]
        for kind, times in seconds.items()
        if kind != "bare"
    }
    return {
        "model": name,
        "files": len(paths),
        **speeds,
        "bare_gflops": gflop_a_mp * speeds["bare_mp_per_s"],
        "convolutions_gflops": gflop_a_mp * height * width / 1e6 / statistics.median(floors),
        "ratios": ratios,
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
    parser.add_argument("--rounds", type=int, default=3, help="of all files (default: 3)")
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
    fast = [speed(name, arguments.images, arguments.rounds) for name in arguments.models] if arguments.images else []
    for row in fast:
        parts = [
            f"{row[f'{kind}_mp_per_s']:.3f} {kind.replace('_', ' ')}, ratio {statistics.median(ratios):.3f} "
            f"({' '.join(f'{ratio:.3f}' for ratio in ratios)})"
            for kind, ratios in row["ratios"].items()
        ]
        print(
            f"{row['model']}, {row['files']} files, MP/s: {row['bare_mp_per_s']:.3f} bare; {'; '.join(parts)}; "
            f"{row['bare_gflops']:.1f} GFLOP/s, its convolutions alone {row['convolutions_gflops']:.1f}",
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
