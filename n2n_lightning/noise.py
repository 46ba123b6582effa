"""Corruptions: pure functions from clean images and a generator to noisy ones."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_cell_pixels(cells: Tensor, rng: torch.Generator) -> Tensor:
    """Point sampling ("pixelation"): each noisy pixel is one pixel of its source cell, drawn uniformly.

    The draw is independent for each cell and the same for all channels, so that the noise has zero mean, is spatially
    white, and vanishes where the cell is flat.

    (N, H, W, K, C) uint8, K pixels a cell -> (N, C, H, W) uint8.
    """
    n, height, width, pixels, channels = cells.shape
    choice = torch.randint(pixels, (n, height, width, 1, 1), generator=rng).expand(-1, -1, -1, -1, channels)
    return cells.gather(3, choice).squeeze(3).permute(0, 3, 1, 2)
