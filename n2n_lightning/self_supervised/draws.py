"""Random numbers that follow from the seeds of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def draw(
    seeds: Tensor, images: Tensor, make: Callable[[int, torch.Generator], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Draw tensors for (N, C, H, W) images, on their device.

    Args:
        seeds: (N,) int64 draws for each image alone and on the CPU, so that the result depends neither on the batch nor
            on the device; (1,) draws for all images at once; (1, 3), a seed, a start and a number, draws for so many
            images at once and gives those from the start on, for a process that has a part of a batch.
        images: only their number and device matter.
        make: takes a number of images and a generator; returns tensors of as many items.
    """
    count, device = len(images), images.device
    if seeds.ndim == 2:
        seed, first, whole = seeds[0].tolist()
        drawn = make(whole, torch.Generator(device).manual_seed(seed))
        return tuple(values[first : first + count] for values in drawn)
    if len(seeds) != count:
        return make(count, torch.Generator(device).manual_seed(int(seeds)))
    parts = [make(1, torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return tuple(torch.cat(tensors).to(device) for tensors in zip(*parts, strict=True))
