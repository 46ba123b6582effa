"""A data set of kilobytes, and the overrides to train on it in a second."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import interpolate

from n2n_lightning.data.ee559 import FILES, write_pkl


def write_course_data(folder: Path, *, train: int = 96, val: int = 24, size: int = 16) -> Path:
    """The course's two files: smooth images, twice with noise of their own for training, once for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = torch.Generator().manual_seed(0)
    for stage, count, second_sigma in (("train", train, 60.0), ("val", val, 0.0)):
        coarse = torch.rand(count, 3, 4, 4, generator=rng) * 235 + 10
        clean = interpolate(coarse, (size, size), mode="bicubic")
        noisy, second = (
            (clean + sigma * torch.randn(clean.shape, generator=rng)).round().clamp(0, 255).byte()
            for sigma in (60.0, second_sigma)
        )
        write_pkl(folder / FILES[stage], noisy, second)
    return folder


def overrides(root: Path) -> list[str]:
    """Train on ``root``'s course files, on the processor, in small batches."""
    return ["data=ee559", f"data.root={root}", "data.batch_size=8", "trainer.accelerator=cpu"]
