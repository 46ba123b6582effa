"""Corruptions: pure functions from clean images and a generator to noisy ones, and the choices of ``noise=``.

All take and give float32 with 1 for the range; noisy values are not clipped, since clipped noise has no zero mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def add_gaussian(clean: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Adds white Gaussian noise of standard deviation ``sigma``. Any shape -> same shape."""
    # torch fills contiguous memory alone seven times as fast, and draws the same for every layout of ``clean``
    return torch.empty(clean.shape, dtype=clean.dtype, device=clean.device).normal_(0, sigma, generator=rng).add_(clean)


def draw_poisson(clean: Tensor, lam: float, rng: torch.Generator) -> Tensor:
    """Poisson(lam x) / lam for each value x, what is below 0 taken as 0: ``lam`` is the count at 1. Any shape."""
    return torch.poisson(clean.clamp_min(0) * lam, generator=rng).div_(lam)


def draw_cell_pixels(cells: Tensor, rng: torch.Generator) -> Tensor:
    """Point sampling ("pixelation"): each noisy pixel is one pixel of its source cell, drawn uniformly.

    The draw is independent for each cell and the same for all channels, so that the noise has zero mean, is spatially
    white, and vanishes where the cell is flat.

    (N, H, W, K, C) of any type, K pixels a cell -> (N, C, H, W).
    """
    n, height, width, pixels, channels = cells.shape
    choice = torch.randint(pixels, (n, height, width, 1, 1), generator=rng).expand(-1, -1, -1, -1, channels)
    return cells.gather(3, choice).squeeze(3).permute(0, 3, 1, 2)


def split_cells(images: Tensor, cell_px: int) -> Tensor:
    """(N, C, H * cell_px, W * cell_px) -> (N, H, W, cell_px^2, C); rows and columns left over are dropped."""
    n, channels = images.shape[:2]
    height, width = (side // cell_px for side in images.shape[2:])
    whole = images[:, :, : height * cell_px, : width * cell_px]
    cells = whole.reshape(n, channels, height, cell_px, width, cell_px)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


class Noise(Protocol):
    """What corrupts clean images; both methods take (N, C, H, W) float32 in [0, 1]."""

    @property
    def cell_px(self) -> int:
        """Side of the square of input pixels behind each output pixel."""
        ...

    def clean(self, images: Tensor) -> Tensor:
        """What the noisy images are noisy versions of: (N, C, H / cell_px, W / cell_px)."""
        ...

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """One noisy version of each: (N, C, H / cell_px, W / cell_px)."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """White Gaussian noise; ``noise=gaussian``.

    Args:
        sigma: standard deviation in units of 1/255 of the range, as the literature gives it.
    """

    sigma: float = 25.0
    cell_px = 1

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ValueError(f"sigma must be 0 or more, got {self.sigma}; set noise.sigma=25")

    def clean(self, images: Tensor) -> Tensor:
        return images

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return add_gaussian(images, self.sigma / 255, rng)


@dataclass(frozen=True)
class Poisson:
    """Photon counting noise; ``noise=poisson``.

    Args:
        lam: mean count where the image is 1.
    """

    lam: float = 30.0
    cell_px = 1

    def __post_init__(self) -> None:
        if not self.lam > 0:
            raise ValueError(f"lam must be above 0, got {self.lam}; set noise.lam=30")

    def clean(self, images: Tensor) -> Tensor:
        return images

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_poisson(images, self.lam, rng)


@dataclass(frozen=True)
class Pixelate:
    """Point sampling: every noisy pixel is one pixel of a square cell, the clean one its mean; ``noise=pixelate``.

    Args:
        cell_px: side of the cell.
    """

    cell_px: int = 8

    def __post_init__(self) -> None:
        if self.cell_px < 2:
            raise ValueError(f"cell_px must be 2 or more, got {self.cell_px}; set noise.cell_px=8")

    def clean(self, images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, self.cell_px)

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_cell_pixels(split_cells(images, self.cell_px), rng)


NOISES: dict[str, Callable[..., Noise]] = {"gaussian": Gaussian, "poisson": Poisson, "pixelate": Pixelate}
