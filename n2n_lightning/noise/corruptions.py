"""Corruptions: pure functions from clean images and a random generator to noisy images.

They take and return float32 on the generator's device; 1 stands for the data set's range. Noisy values are not
clipped, because clipped noise does not have zero mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def add_gaussian(clean: Tensor, sigma: float | Tensor, rng: torch.Generator) -> Tensor:
    """Add white Gaussian noise of standard deviation ``sigma``. Any shape -> same shape."""
    # torch fills contiguous memory seven times as fast, and the draws are the same for every layout of ``clean``
    noise = torch.empty(clean.shape, dtype=clean.dtype, device=clean.device)
    if isinstance(sigma, Tensor):
        return noise.normal_(generator=rng).mul_(sigma).add_(clean)
    return noise.normal_(0, sigma, generator=rng).add_(clean)


def add_brown(clean: Tensor, sigma: float | Tensor, blur_px: float, rng: torch.Generator) -> Tensor:
    """Add Gaussian noise, blurred by a Gaussian of ``blur_px``, of standard deviation ``sigma`` at every pixel.

    The noise of pixels at a distance of d px has the correlation exp(-d^2 / (4 blur_px^2)).
    (N, C, H, W) -> same shape.
    """
    n, channels, height, width = clean.shape
    radius = max(round(4 * blur_px), 1)
    offsets = torch.arange(-radius, radius + 1, device=clean.device, dtype=clean.dtype)
    kernel = torch.exp(-0.5 * (offsets / blur_px) ** 2)
    kernel = kernel / kernel.square().sum().sqrt()  # so that the blur does not change the variance of white noise
    white = torch.empty((n * channels, 1, height + 2 * radius, width + 2 * radius), device=clean.device)
    white.normal_(generator=rng)
    brown = F.conv2d(F.conv2d(white, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return brown.reshape(clean.shape).mul_(sigma).add_(clean)


def draw_poisson(clean: Tensor, lam: float | Tensor, rng: torch.Generator) -> Tensor:
    """Draw Poisson(lam x) / lam for each value x; values below 0 count as 0. Any shape -> same shape."""
    return torch.poisson(clean.clamp_min(0) * lam, generator=rng).div_(lam)


def draw_mask(images: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Choose each pixel with probability ``p``: (N, C, H, W) -> (N, 1, H, W) bool."""
    n, _, height, width = images.shape
    return torch.rand((n, 1, height, width), device=images.device, generator=rng) < p


def draw_impulse(clean: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Replace pixels, with probability ``p``, by colours drawn uniformly from [0, 1]. (N, C, H, W) -> same shape."""
    replaced = draw_mask(clean, p, rng)
    return torch.where(replaced, torch.rand(clean.shape, device=clean.device, generator=rng), clean)


def draw_cell_pixels(cells: Tensor, rng: torch.Generator) -> Tensor:
    """Draw one pixel of each cell uniformly (point sampling, "pixelation"): (N, H, W, K, C) -> (N, C, H, W), any type.

    K is the number of pixels of a cell. Cells are independent, and all channels of a cell come from the same pixel. So
    the noise has zero mean, is spatially white, and vanishes where the cell is flat.
    """
    n, height, width, pixels, channels = cells.shape
    choice = torch.randint(pixels, (n, height, width, 1, 1), generator=rng, device=cells.device)
    return cells.gather(3, choice.expand(-1, -1, -1, -1, channels)).squeeze(3).permute(0, 3, 1, 2)


def split_cells(images: Tensor, cell_px: int) -> Tensor:
    """Split images into square cells: (N, C, H * cell_px, W * cell_px) -> (N, H, W, cell_px^2, C), any type.

    Rows and columns that do not fill a cell are dropped.
    """
    n, channels = images.shape[:2]
    height, width = (side // cell_px for side in images.shape[2:])
    full = images[:, :, : height * cell_px, : width * cell_px]
    cells = full.reshape(n, channels, height, cell_px, width, cell_px)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
