"""The kinds of noise: each corrupts clean images, and says which losses can learn from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from n2n_lightning.noise.text import overlay_text

Strength = float | Sequence[float] | Tensor  # a value, [low, high] to draw from, or one drawn for each image
MEAN: frozenset[Statistic] = frozenset({"mean"})
MEDIAN: frozenset[Statistic] = frozenset({"median"})
MODE: frozenset[Statistic] = frozenset({"mode"})
ALL = MEAN | MEDIAN | MODE


class Noise:
    """Corrupts clean images, (N, C, H, W) float32 in [0, 1]. A subclass has ``preserves`` and ``corrupt``."""

    preserves: frozenset[Statistic]  # the statistics of a noisy value's distribution that equal its clean value
    masks = False  # whether some pixels of a target must not be learnt from
    cell_px = 1  # side of the square of input pixels that gives one output pixel
    shared_strength: str | None = None  # the argument that has the same drawn value for both images of a pair

    def clean(self, images: Tensor) -> Tensor:
        """Return the clean versions of the noisy images: (N, C, H / cell_px, W / cell_px) float32."""
        return images

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one noisy version of each image: (N, C, H / cell_px, W / cell_px) float32."""
        raise NotImplementedError

    def corrupt_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw one noisy version, and a mask of the pixels to learn from, (N, 1, H / cell_px, W / cell_px) bool.

        The mask is None if all pixels may be learnt from.
        """
        return self.corrupt(images, rng), None

    def corrupt_pair(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw two noisy versions with independent noise, and the mask of the second one, the target."""
        noise = self.with_shared_strength(images, rng)
        return noise.corrupt(images, rng), *noise.corrupt_target(images, rng)

    def with_shared_strength(self, images: Tensor, rng: torch.Generator) -> Noise:
        """Draw the strengths that both images of a pair share, and return the noise with these strengths."""
        if self.shared_strength is None:
            return self
        strength = draw_strength(getattr(self, self.shared_strength), images, rng)
        fixed: Noise = replace(self, **{self.shared_strength: strength})  # type: ignore[type-var]  # a dataclass
        return fixed


def draw_strength(strength: Strength, images: Tensor, rng: torch.Generator) -> float | Tensor:
    """Draw a strength for each of N images from its range: (N, 1, 1, 1) float32. A value is returned as it is."""
    if not isinstance(strength, Sequence):
        return strength
    low, high = strength
    return torch.empty((len(images), 1, 1, 1), device=images.device).uniform_(low, high, generator=rng)


def check_strength(
    name: str, strength: Strength, example: str, *, highest: float = math.inf, above_zero: bool = False
) -> None:
    """Raise ValueError unless ``strength`` is a value from 0 to ``highest``, or [low, high] of such values."""
    if isinstance(strength, Tensor):  # drawn from a range that has been checked
        return
    ends = list(strength) if isinstance(strength, Sequence) else [strength, strength]
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= highest or ends[1] == math.inf or (above_zero and not ends[0]):
        least = "above 0" if above_zero else "0 or more"
        most = "" if highest == math.inf else f", at most {highest:g}"
        given = ends if isinstance(strength, Sequence) else strength
        raise ValueError(
            f"{name} must be {least}{most}, or [low, high] of such values, got {given}; set noise.{name}={example}"
        )


@dataclass(frozen=True)
class Gaussian(Noise):
    """White Gaussian noise; ``noise=gaussian``.

    Args:
        sigma: standard deviation in units of 1/255 of the range, as in the literature; or [low, high].
    """

    sigma: Strength = 25.0
    preserves = ALL

    def __post_init__(self) -> None:
        check_strength("sigma", self.sigma, "25")

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return add_gaussian(images, draw_strength(self.sigma, images, rng) / 255, rng)


@dataclass(frozen=True)
class Brown(Noise):
    """Blurred Gaussian noise; ``noise=brown``.

    Args:
        sigma: standard deviation of each pixel in units of 1/255 of the range; or [low, high].
        blur_px: standard deviation of the Gaussian blur.
    """

    sigma: Strength = 25.0
    blur_px: float = 2.0
    preserves = ALL

    def __post_init__(self) -> None:
        check_strength("sigma", self.sigma, "25")
        if not 0 < self.blur_px <= 100:
            raise ValueError(f"blur_px must be above 0, at most 100, got {self.blur_px}; set noise.blur_px=2")

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return add_brown(images, draw_strength(self.sigma, images, rng) / 255, self.blur_px, rng)


@dataclass(frozen=True)
class Poisson(Noise):
    """Photon counting noise; ``noise=poisson``.

    Args:
        lam: mean count where the image is 1; or [low, high].
    """

    lam: Strength = 30.0
    preserves = MEAN

    def __post_init__(self) -> None:
        check_strength("lam", self.lam, "30", above_zero=True)

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_poisson(images, draw_strength(self.lam, images, rng), rng)


@dataclass(frozen=True)
class Bernoulli(Noise):
    """Pixels become 0; ``noise=bernoulli``.

    The mask excludes these pixels of a target, and the others preserve every statistic. Both images of a pair share a
    drawn ``p``, so a pair that is nearly black has little weight in the loss, as the paper's figures suggest
    (docs/results/paper).

    Args:
        p: probability that a pixel becomes 0; or [low, high].
    """

    p: Strength = 0.5
    preserves, masks, shared_strength = ALL, True, "p"

    def __post_init__(self) -> None:
        check_strength("p", self.p, "0.5", highest=1)

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return self.corrupt_target(images, rng)[0]

    def corrupt_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        kept = ~draw_mask(images, draw_strength(self.p, images, rng), rng)
        return images * kept, kept


@dataclass(frozen=True)
class Impulse(Noise):
    """Random-valued impulses: pixels become a uniformly drawn colour; ``noise=impulse``.

    The mode is preserved, and the median too if less than half of the pixels are replaced. Both images of a pair share
    a drawn ``p``. Otherwise half of the pixels of every target would be replaced on average, whatever its source, and
    ``l1`` would succeed, but in the paper it does not (docs/results/paper).

    Args:
        p: probability that a pixel is replaced; or [low, high].
    """

    p: Strength = 0.5
    shared_strength = "p"

    def __post_init__(self) -> None:
        check_strength("p", self.p, "0.5", highest=1)

    @property
    def preserves(self) -> frozenset[Statistic]:  # type: ignore[override]  # it is only read
        highest = self.p[1] if isinstance(self.p, Sequence) else self.p
        return MEDIAN | MODE if highest < 0.5 else MODE

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_impulse(images, draw_strength(self.p, images, rng), rng)


@dataclass(frozen=True)
class Text(Noise):
    """Random strings of random size and colour over the image; ``noise=text``.

    Args:
        coverage: covered fraction of the pixels, below 0.5 to preserve the median; or [low, high].
    """

    coverage: Strength = 0.25
    preserves = MEDIAN | MODE

    def __post_init__(self) -> None:
        check_strength("coverage", self.coverage, "0.25", highest=0.5)

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return overlay_text(images, draw_strength(self.coverage, images, rng), rng)


@dataclass(frozen=True)
class Pixelate(Noise):
    """Point sampling: each noisy pixel is one pixel of a square cell, the clean one is its mean; ``noise=pixelate``.

    Args:
        cell_px: side of the cell.
    """

    cell_px: int = 8
    preserves = MEAN

    def __post_init__(self) -> None:
        if self.cell_px < 2:
            raise ValueError(f"cell_px must be 2 or more, got {self.cell_px}; set noise.cell_px=8")

    def clean(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.cell_px)

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return draw_cell_pixels(split_cells(images, self.cell_px), rng)


@dataclass(frozen=True)
class Clip(Noise):
    """Values clipped to [0, 1], as by a camera; ``name: clip`` in ``noise=chain``."""

    preserves = MEDIAN

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return images.clamp(0, 1)
