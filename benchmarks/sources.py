"""Measure what reading images from a folder costs: ``python -m benchmarks.sources --root FOLDER``.

Speed: training steps of Convtrans+ReLU on ``data=clean noise=gaussian``, batch 64 of 32x32, against steps on data in
memory, in turns within one process, loading included. Memory: the resident memory of a run on 1,000 images of 2 MB
each, before any data, after the first step, and at most.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from benchmarks.measuring import configuration, ratio, ratio_text, resident_mb, save
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.training.build import build_datamodule, build_module
from n2n_lightning.training.run import train
from n2n_lightning.training.settings import RunSettings

WARM_UP = 20


def batches(datamodule: NoisyPairDataModule) -> Iterator[NoisyPair]:
    """Yield training batches as the net gets them, without end."""
    datamodule.setup("fit")
    while True:
        for batch in datamodule.train_dataloader():
            yield datamodule.on_after_batch_transfer(batch, 0)


def speed(root: str, steps: int) -> dict[str, Any]:
    """Return the speed from files divided by that from memory, the median over pairs of neighbouring steps."""
    model = "model=convtrans_relu"
    memory = configuration(model, "data.train_pairs=4096")
    files = configuration(model, "data=clean", f"data.root={root}", "data.crop_px=32")
    module = build_module(RunSettings.unchecked(memory), 3)
    optimizer = module.configure_optimizers()
    sources = [batches(build_datamodule(RunSettings.unchecked(config))) for config in (memory, files)]
    seconds: list[list[float]] = [[], []]
    for _ in range(steps + WARM_UP):
        for source, times in zip(sources, seconds, strict=True):
            started = time.perf_counter()
            loss = module.training_step(next(source), 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            times.append(time.perf_counter() - started)
    from_memory, from_files = (times[WARM_UP:] for times in seconds)
    return {
        "memory_ms": 1e3 * statistics.median(from_memory),
        "files_ms": 1e3 * statistics.median(from_files),
        **ratio(from_memory, from_files),
    }


class Resident(pl.Callback):
    """Measures resident memory in MB before the data, after the first step, and at most."""

    def __init__(self) -> None:
        self.before, self.first, self.most = resident_mb("VmRSS"), 0.0, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self.first:
            self.first = resident_mb("VmRSS")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.most = resident_mb("VmHWM")


def memory(images: int, crops: int) -> dict[str, Any]:
    """Train on ``images`` 16-bit grey images of 1000x1000, half of them TIFF and half NPY."""
    import tifffile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        rng = np.random.default_rng(0)
        for number in range(images):
            pixels = rng.integers(0, 4096, (1000, 1000), np.uint16)
            path = root / f"{number:04}.npy"
            np.save(path, pixels) if number % 2 else tifffile.imwrite(path.with_suffix(".tif"), pixels)
        bytes_on_disk = sum(path.stat().st_size for path in root.iterdir())
        config = configuration(
            *("model=convtrans_relu", "data=clean", f"data.root={root}", f"data.train_pairs={crops}"),
            *(f"data.cache_dir={folder}/cache", "trainer.max_epochs=2"),
        )
        resident = Resident()
        train(config, Path(folder) / "run", {"model": "convtrans_relu"}, callbacks=[resident])
    return {
        "images": images,
        "bytes_on_disk": bytes_on_disk,
        "crops": 2 * crops,
        "before_data_mb": resident.before,
        "after_first_step_mb": resident.first,
        "most_mb": resident.most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure speed and memory of training from image files.")
    parser.add_argument("--root", required=True, help="folder of clean RGB images to measure the speed with")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--crops", type=int, default=20000, help="training crops of an epoch, for the memory")
    args = parser.parse_args()
    used = memory(args.images, args.crops)
    print(
        f"{used['images']} images, {used['bytes_on_disk'] / 1e9:.2f} GB, {used['crops']} crops: resident memory "
        f"{used['before_data_mb']:.0f} MB before, {used['after_first_step_mb']:.0f} after the first step, "
        f"{used['most_mb']:.0f} at most"
    )
    found = speed(args.root, args.steps)
    print(
        f"a step from memory {found['memory_ms']:.2f} ms, from files {found['files_ms']:.2f} ms; images a second, "
        f"ratio (quartiles) {ratio_text(found)}"
    )
    save("sources", {"memory": used, "speed": found})


if __name__ == "__main__":
    main()
