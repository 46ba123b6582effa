"""Corruptions: pure functions from clean images and a generator to noisy ones, and the choices of ``noise=``.

All take and give float32 with 1 for the range, on the generator's device. Noisy values are not clipped, since clipped
noise has no zero mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from n2n_lightning.losses import Statistic
from n2n_lightning.text import draw_text

Level = float | Sequence[float]  # one value, or [low, high] to draw from for each image
MEAN: frozenset[Statistic] = frozenset({"mean"})
MODE: frozenset[Statistic] = frozenset({"mode"})
MEDIAN_AND_MODE: frozenset[Statistic] = frozenset({"median", "mode"})
ALL = MEAN | MEDIAN_AND_MODE


def draw_level(level: Level, images: Tensor, rng: torch.Generator) -> float | Tensor:
    """The value, or one of the range for each image: (N, 1, 1, 1), uniform."""
    if not isinstance(level, Sequence):
        return level
    low, high = level
    return torch.empty((len(images), 1, 1, 1), device=images.device).uniform_(low, high, generator=rng)


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


class Noise(Protocol):
    """What corrupts clean images; the methods take (N, C, H, W) float32 in [0, 1].

    ``keeps`` names the statistics of a noisy value's distribution that are its clean value, so that a loss that finds
    one of them (``losses.FINDS``) can learn from noisy targets.
    """

    @property
    def keeps(self) -> frozenset[Statistic]: ...

    @property
    def masks(self) -> bool:
        """Whether a target has pixels that are not to be learnt from."""
        ...

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

    def draw_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The same, and the pixels to be learnt from, (N, 1, H / cell_px, W / cell_px) bool; None for all."""
        ...


class PixelNoise:
    """What most corruptions have in common: a pixel for a pixel, all of which can be learnt from."""

    cell_px, masks = 1, False

    def clean(self, images: Tensor) -> Tensor:
        return images

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        raise NotImplementedError

    def draw_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        return self.draw(images, rng), None


def check_level(name: str, level: Level, highest: float, example: str, *, above_zero: bool = False) -> None:
    """Raise ValueError unless ``level`` is a value from 0 to ``highest``, or [low, high] of such."""
    values = level if isinstance(level, Sequence) else [level]
    ordered = len(values) == 1 if values is not level else len(values) == 2 and values[0] <= values[1]
    if not ordered or not all(0 <= value <= highest and (value > 0 or not above_zero) for value in values):
        least = "above 0" if above_zero else "0 or more"
        most = "" if highest == float("inf") else f", at most {highest:g}"
        given = list(level) if isinstance(level, Sequence) else level
        raise ValueError(
            f"{name} must be {least}{most}, or [low, high] of such, got {given}; set noise.{name}={example}"
        )


@dataclass(frozen=True)
class Gaussian(PixelNoise):
    """White Gaussian noise; ``noise=gaussian``. Keeps mean, median and mode.

    Args:
        sigma: standard deviation in units of 1/255 of the range, as the literature gives it; or [low, high].
    """

    sigma: float | Sequence[float] = 25.0
    keeps = ALL

    def __post_init__(self) -> None:
        check_level("sigma", self.sigma, float("inf"), "25")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        sigma = draw_level(self.sigma, images, rng)
        return add_gaussian(images, sigma / 255, rng)


@dataclass(frozen=True)
class Brown(PixelNoise):
    """Blurred Gaussian noise; ``noise=brown``. Keeps mean, median and mode.

    Args:
        sigma: standard deviation of each pixel in units of 1/255 of the range; or [low, high].
        blur_px: standard deviation of the Gaussian that blurs it.
    """

    sigma: float | Sequence[float] = 25.0
    blur_px: float = 2.0
    keeps = ALL

    def __post_init__(self) -> None:
        check_level("sigma", self.sigma, float("inf"), "25")
        if not 0 < self.blur_px <= 100:
            raise ValueError(f"blur_px must be above 0, at most 100, got {self.blur_px}; set noise.blur_px=2")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        sigma = draw_level(self.sigma, images, rng)
        return add_brown(images, sigma / 255, self.blur_px, rng)


@dataclass(frozen=True)
class Poisson(PixelNoise):
    """Photon counting noise; ``noise=poisson``. Keeps the mean.

    Args:
        lam: mean count where the image is 1; or [low, high].
    """

    lam: float | Sequence[float] = 30.0
    keeps = MEAN

    def __post_init__(self) -> None:
        check_level("lam", self.lam, float("inf"), "30", above_zero=True)

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_poisson(images, draw_level(self.lam, images, rng), rng)


@dataclass(frozen=True)
class Bernoulli(PixelNoise):
    """Pixels become 0; ``noise=bernoulli``. Those of a target do not count, the others keep every statistic.

    Args:
        p: probability that a pixel becomes 0; or [low, high].
    """

    p: float | Sequence[float] = 0.5
    keeps, masks = ALL, True

    def __post_init__(self) -> None:
        check_level("p", self.p, 1, "0.5")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return self.draw_target(images, rng)[0]

    def draw_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        left = ~draw_mask(images, draw_level(self.p, images, rng), rng)
        return images * left, left


@dataclass(frozen=True)
class Impulse(PixelNoise):
    """Random-valued impulses: pixels become a uniform colour; ``noise=impulse``. Keeps the mode.

    Args:
        p: probability that a pixel does; or [low, high].
    """

    p: float | Sequence[float] = 0.5
    keeps = MODE

    def __post_init__(self) -> None:
        check_level("p", self.p, 1, "0.5")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_impulse(images, draw_level(self.p, images, rng), rng)


@dataclass(frozen=True)
class Text(PixelNoise):
    """Random strings of random size and colour over the image; ``noise=text``. Keeps median and mode.

    Args:
        coverage: part of the pixels that is covered, below 0.5 for the median; or [low, high].
    """

    coverage: float | Sequence[float] = 0.25
    keeps = MEDIAN_AND_MODE

    def __post_init__(self) -> None:
        check_level("coverage", self.coverage, 0.5, "0.25")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_text(images, draw_level(self.coverage, images, rng), rng)


@dataclass(frozen=True)
class Pixelate(PixelNoise):
    """Point sampling: every noisy pixel is one pixel of a square cell, the clean one its mean; ``noise=pixelate``.

    Args:
        cell_px: side of the cell.
    """

    cell_px: int = 8
    keeps = MEAN

    def __post_init__(self) -> None:
        if self.cell_px < 2:
            raise ValueError(f"cell_px must be 2 or more, got {self.cell_px}; set noise.cell_px=8")

    def clean(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.cell_px)

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_cell_pixels(split_cells(images, self.cell_px), rng)


@dataclass(frozen=True)
class Clip(PixelNoise):
    """Values to [0, 1], as a camera's are; ``name: clip`` in ``noise=chain``. Keeps median and mode, not the mean."""

    keeps = MEDIAN_AND_MODE

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return images.clamp(0, 1)


class Chain(PixelNoise):
    """One corruption after the other; ``noise=chain``.

    Keeps what all of them keep, but the median only where no more than the last keeps less than everything: what comes
    after text spreads its values, and with that moves the median.

    Args:
        steps: of each, its name in ``NOISES`` and its arguments.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        if not steps:
            raise ValueError("steps must name a corruption or more; set noise.steps=[{name:poisson},{name:gaussian}]")
        self.steps = [make_noise(step) for step in steps]
        if any(step.cell_px > 1 for step in self.steps[1:]):
            raise ValueError("pixelate can only be the first of noise.steps; put it there")
        self.cell_px, self.masks = self.steps[0].cell_px, any(step.masks for step in self.steps)
        self.keeps = frozenset[Statistic].intersection(*(step.keeps for step in self.steps))
        if any(step.keeps != ALL for step in self.steps[:-1]):
            self.keeps -= {"median"}

    def clean(self, images: Tensor) -> Tensor:
        return self.steps[0].clean(images)

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return self.draw_target(images, rng)[0]

    def draw_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        common: Tensor | None = None
        for step in self.steps:
            images, mask = step.draw_target(images, rng)
            if mask is not None:
                common = mask if common is None else common & mask
        return images, common


NOISES: dict[str, Callable[..., Noise]] = {
    "gaussian": Gaussian,
    "brown": Brown,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "impulse": Impulse,
    "text": Text,
    "pixelate": Pixelate,
    "clip": Clip,
    "chain": Chain,
}


def make_noise(spec: Mapping[str, Any]) -> Noise:
    """``{"name": a name in NOISES, argument: value, ...}`` -> the corruption."""
    return NOISES[spec["name"]](**{key: value for key, value in spec.items() if key != "name"})
