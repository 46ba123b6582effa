"""Corruptions: pure functions from clean images and a generator to noisy ones.

All take and give float32 with 1 for the range, on the generator's device. Noisy values are not clipped, since clipped
noise has no zero mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def add_gaussian(clean: Tensor, sigma: float | Tensor, rng: torch.Generator) -> Tensor:
    """Adds white Gaussian noise of standard deviation ``sigma``. Any shape -> same shape."""
    # torch fills contiguous memory alone seven times as fast, and draws the same for every layout of ``clean``
    noise = torch.empty(clean.shape, dtype=clean.dtype, device=clean.device)
    if isinstance(sigma, Tensor):
        return noise.normal_(generator=rng).mul_(sigma).add_(clean)
    return noise.normal_(0, sigma, generator=rng).add_(clean)


def add_brown(clean: Tensor, sigma: float | Tensor, blur_px: float, rng: torch.Generator) -> Tensor:
    """Adds Gaussian noise of standard deviation ``sigma`` at every pixel, blurred by a Gaussian of ``blur_px``.

    Neighbouring pixels then have noise alike: at a distance of d px, correlation exp(-d^2 / (4 blur_px^2)).
    (N, C, H, W) -> same shape.
    """
    n, channels, height, width = clean.shape
    radius = max(round(4 * blur_px), 1)
    offsets = torch.arange(-radius, radius + 1, device=clean.device, dtype=clean.dtype)
    kernel = torch.exp(-0.5 * (offsets / blur_px) ** 2)
    kernel = kernel / kernel.square().sum().sqrt()  # so that blurred white noise keeps its variance
    white = torch.empty((n * channels, 1, height + 2 * radius, width + 2 * radius), device=clean.device)
    white.normal_(generator=rng)
    brown = F.conv2d(F.conv2d(white, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return brown.reshape(clean.shape).mul_(sigma).add_(clean)


def draw_poisson(clean: Tensor, lam: float | Tensor, rng: torch.Generator) -> Tensor:
    """Poisson(lam x) / lam for each value x, what is below 0 taken as 0: ``lam`` is the count at 1. Any shape."""
    return torch.poisson(clean.clamp_min(0) * lam, generator=rng).div_(lam)


def draw_mask(images: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Which pixels are chosen, each with probability ``p``: (N, C, H, W) -> (N, 1, H, W) bool."""
    n, _, height, width = images.shape
    return torch.rand((n, 1, height, width), device=images.device, generator=rng) < p


def draw_impulse(clean: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Each pixel becomes a colour drawn uniformly from [0, 1] with probability ``p``. (N, C, H, W) -> same shape."""
    struck = draw_mask(clean, p, rng)
    return torch.where(struck, torch.rand(clean.shape, device=clean.device, generator=rng), clean)


def draw_cell_pixels(cells: Tensor, rng: torch.Generator) -> Tensor:
    """Point sampling ("pixelation"): each noisy pixel is one pixel of its source cell, drawn uniformly.

    The draw is independent for each cell and the same for all channels, so that the noise has zero mean, is spatially
    white, and vanishes where the cell is flat.

    (N, H, W, K, C) of any type, K pixels a cell -> (N, C, H, W).
    """
    n, height, width, pixels, channels = cells.shape
    choice = torch.randint(pixels, (n, height, width, 1, 1), generator=rng, device=cells.device)
    return cells.gather(3, choice.expand(-1, -1, -1, -1, channels)).squeeze(3).permute(0, 3, 1, 2)


def split_cells(images: Tensor, cell_px: int) -> Tensor:
    """(N, C, H * cell_px, W * cell_px) -> (N, H, W, cell_px^2, C); rows and columns left over are dropped."""
    n, channels = images.shape[:2]
    height, width = (side // cell_px for side in images.shape[2:])
    whole = images[:, :, : height * cell_px, : width * cell_px]
    cells = whole.reshape(n, channels, height, cell_px, width, cell_px)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
