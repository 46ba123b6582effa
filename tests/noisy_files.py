"""Noisy images for every source of image files, and the overrides that train on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numbered_images import Array, write
from small_runs import smooth_images

SHORT = ("model=convtrans_relu", "trainer.max_epochs=2", "trainer.accelerator=cpu", "optimizer=adam", "scheduler=none")
CROPS = (
    "data.crop_px=16",
    "data.train_pairs=24",
    "data.batch_size=8",
    "data.val_batch_size=5",
    "data.val_fraction=0.4",
    "data.augment=[]",
)
MONITORS = {"burst": "val/psnr_pairs", "pairs": "val/psnr_pairs", "clean": "val/psnr", "single": "val/psnr_sure"}
ALL = (*SHORT, *CROPS)


def write_noisy_images(folder: Path) -> Path:
    """Write folders for every source: five scenes of 48x48 px, each three times with noise and once without."""
    rng = np.random.default_rng(0)
    for number, clean in enumerate(smooth_images(5, 48, seed=2).transpose(0, 2, 3, 1)):
        write(folder / f"clean/{number}.png", stored(clean))
        for frame in range(3):
            noisy = stored(clean + rng.normal(0, 30, clean.shape))
            write(folder / f"frames/{number}/{frame}.png", noisy)
            write(folder / f"{frame}/{number}.png", noisy)
    return folder


def stored(pixels: Array) -> Array:
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


def source(kind: str, folder: Path) -> tuple[str, ...]:
    """Return the overrides that name a source's images."""
    roots = {"burst": "frames", "clean": "clean", "single": "0"}
    if kind == "pairs":
        names = (f"data.source={folder / '0'}", f"data.target={folder / '1'}")
    else:
        names = (f"data.root={folder / roots[kind]}",)
    return (f"data={kind}", *names, f"data.cache_dir={folder / 'cache'}")
