"""The choices of ``noise=``: what corrupts clean images, and which loss can learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from n2n_lightning.losses import Statistic
from n2n_lightning.noise.corruptions import (
    add_brown,
    add_gaussian,
    draw_cell_pixels,
    draw_impulse,
    draw_mask,
    draw_poisson,
    split_cells,
)
from n2n_lightning.noise.text import draw_text

Strength = float | Sequence[float]  # one value, or [low, high] to draw from for each image
MEAN: frozenset[Statistic] = frozenset({"mean"})
MEDIAN: frozenset[Statistic] = frozenset({"median"})
MODE: frozenset[Statistic] = frozenset({"mode"})
ALL = MEAN | MEDIAN | MODE


def draw_strength(strength: Strength, images: Tensor, rng: torch.Generator) -> float | Tensor:
    """The value, or one of the range for each image: (N, 1, 1, 1), uniform."""
    if not isinstance(strength, Sequence):
        return strength
    low, high = strength
    return torch.empty((len(images), 1, 1, 1), device=images.device).uniform_(low, high, generator=rng)


class Noise:
    """What corrupts clean images, (N, C, H, W) float32 in [0, 1]; most give a pixel for a pixel.

    ``keeps`` names the statistics of a noisy value's distribution that are its clean value, so that a loss that finds
    one of them (``losses.FINDS``) can learn from noisy targets. ``masks`` is whether a target has pixels that are not
    to be learnt from; ``cell_px`` the side of the square of input pixels behind each output pixel.
    """

    keeps: frozenset[Statistic]
    masks = False
    cell_px = 1

    def clean(self, images: Tensor) -> Tensor:
        """What the noisy images are noisy versions of: (N, C, H / cell_px, W / cell_px)."""
        return images

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """One noisy version of each: (N, C, H / cell_px, W / cell_px)."""
        raise NotImplementedError

    def draw_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The same, and the pixels to be learnt from, (N, 1, H / cell_px, W / cell_px) bool; None for all."""
        return self.draw(images, rng), None

    def draw_pair(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Two versions with independent noise, and the target's mask.

        Strengths are drawn for each, or by some kinds once for both.
        """
        return self.draw(images, rng), *self.draw_target(images, rng)


def check_strength(name: str, strength: Strength, highest: float, example: str, *, above_zero: bool = False) -> None:
    """Raise ValueError unless ``strength`` is a value from 0 to ``highest``, or [low, high] of such."""
    ends = list(strength) if isinstance(strength, Sequence) else [strength, strength]
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= highest or ends[1] == math.inf or (above_zero and not ends[0]):
        least = "above 0" if above_zero else "0 or more"
        most = "" if highest == math.inf else f", at most {highest:g}"
        given = ends if isinstance(strength, Sequence) else strength
        raise ValueError(
            f"{name} must be {least}{most}, or [low, high] of such, got {given}; set noise.{name}={example}"
        )


@dataclass(frozen=True)
class Gaussian(Noise):
    """White Gaussian noise; ``noise=gaussian``. Keeps mean, median and mode.

    Args:
        sigma: standard deviation in units of 1/255 of the range, as the literature gives it; or [low, high].
    """

    sigma: float | Sequence[float] = 25.0
    keeps = ALL

    def __post_init__(self) -> None:
        check_strength("sigma", self.sigma, math.inf, "25")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        sigma = draw_strength(self.sigma, images, rng)
        return add_gaussian(images, sigma / 255, rng)


@dataclass(frozen=True)
class Brown(Noise):
    """Blurred Gaussian noise; ``noise=brown``. Keeps mean, median and mode.

    Args:
        sigma: standard deviation of each pixel in units of 1/255 of the range; or [low, high].
        blur_px: standard deviation of the Gaussian that blurs it.
    """

    sigma: float | Sequence[float] = 25.0
    blur_px: float = 2.0
    keeps = ALL

    def __post_init__(self) -> None:
        check_strength("sigma", self.sigma, math.inf, "25")
        if not 0 < self.blur_px <= 100:
            raise ValueError(f"blur_px must be above 0, at most 100, got {self.blur_px}; set noise.blur_px=2")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        sigma = draw_strength(self.sigma, images, rng)
        return add_brown(images, sigma / 255, self.blur_px, rng)


@dataclass(frozen=True)
class Poisson(Noise):
    """Photon counting noise; ``noise=poisson``. Keeps the mean.

    Args:
        lam: mean count where the image is 1; or [low, high].
    """

    lam: float | Sequence[float] = 30.0
    keeps = MEAN

    def __post_init__(self) -> None:
        check_strength("lam", self.lam, math.inf, "30", above_zero=True)

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_poisson(images, draw_strength(self.lam, images, rng), rng)


@dataclass(frozen=True)
class Bernoulli(Noise):
    """Pixels become 0; ``noise=bernoulli``. Those of a target do not count, the others keep every statistic.

    Where ``p`` is drawn, a pair has one: so a target weighs as much as is left of it, and images that are nearly black
    count little, which the paper's figures speak for (docs/results/paper).

    Args:
        p: probability that a pixel becomes 0; or [low, high].
    """

    p: float | Sequence[float] = 0.5
    keeps, masks = ALL, True

    def __post_init__(self) -> None:
        check_strength("p", self.p, 1, "0.5")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return self.draw_target(images, rng)[0]

    def draw_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        left = ~draw_mask(images, draw_strength(self.p, images, rng), rng)
        return images * left, left

    def draw_pair(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        p = draw_strength(self.p, images, rng)
        source, target = ~draw_mask(images, p, rng), ~draw_mask(images, p, rng)
        return images * source, images * target, target


@dataclass(frozen=True)
class Impulse(Noise):
    """Random-valued impulses: pixels become a uniform colour; ``noise=impulse``.

    Keeps the mode, and the median where less than half of the pixels are struck. Where ``p`` is drawn, a pair has one:
    with targets that are struck by half on average, whatever their source, ``l1`` would do, which it does not in the
    paper (docs/results/paper).

    Args:
        p: probability that a pixel does; or [low, high].
    """

    p: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        check_strength("p", self.p, 1, "0.5")

    @property
    def keeps(self) -> frozenset[Statistic]:  # type: ignore[override]  # it is only ever read
        highest = self.p[1] if isinstance(self.p, Sequence) else self.p
        return MEDIAN | MODE if highest < 0.5 else MODE

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_impulse(images, draw_strength(self.p, images, rng), rng)

    def draw_pair(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, None]:
        p = draw_strength(self.p, images, rng)
        return draw_impulse(images, p, rng), draw_impulse(images, p, rng), None


@dataclass(frozen=True)
class Text(Noise):
    """Random strings of random size and colour over the image; ``noise=text``. Keeps median and mode.

    Args:
        coverage: part of the pixels that is covered, below 0.5 for the median; or [low, high].
    """

    coverage: float | Sequence[float] = 0.25
    keeps = MEDIAN | MODE

    def __post_init__(self) -> None:
        check_strength("coverage", self.coverage, 0.5, "0.25")

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_text(images, draw_strength(self.coverage, images, rng), rng)


@dataclass(frozen=True)
class Pixelate(Noise):
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
class Clip(Noise):
    """Values to [0, 1], as a camera's are; ``name: clip`` in ``noise=chain``. Keeps the median."""

    keeps = MEDIAN

    def draw(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return images.clamp(0, 1)


class Chain(Noise):
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
        if any(
            isinstance(step, Poisson) and isinstance(before, (Gaussian, Brown)) for before, step in pairwise(self.steps)
        ):
            raise ValueError("poisson counts photons and cannot follow noise that goes below 0; put it before that")
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
