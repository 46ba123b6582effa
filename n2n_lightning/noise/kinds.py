"""The kinds of noise: each corrupts clean images, and says which losses can learn from it.

Noisy values are not clipped, because clipped noise does not have zero mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from n2n_lightning.losses import Statistic
from n2n_lightning.noise.pixelation import draw_cell_pixels, split_cells
from n2n_lightning.noise.text import overlay_text

Strength = float | Sequence[float] | Tensor  # a value, [low, high] to draw from, or one value drawn for each image
MEAN: frozenset[Statistic] = frozenset({"mean"})
MEDIAN: frozenset[Statistic] = frozenset({"median"})
MODE: frozenset[Statistic] = frozenset({"mode"})
ALL = MEAN | MEDIAN | MODE
LEAST_GAIN = 1e-6  # below, photon noise is less than 0.1 % of the range, and counts would lose their last digits


class Noise:
    """Corrupts clean images, (N, C, H, W) float32 in [0, 1]. A kind sets ``preserves`` and defines ``corrupt``.

    Most kinds have one argument for their strength: a value, or a range [low, high] to draw one from for each image.
    """

    preserves: frozenset[Statistic]  # the statistics of a noisy value's distribution that equal its clean value
    masks = False  # whether some pixels of a target must not be learnt from
    cell_px = 1  # side of the square of input pixels that gives one output pixel
    strength = ""  # name of the argument for the strength
    above_zero, highest = False, math.inf  # limits of the strength
    shares_strength = False  # whether both images of a pair have the same drawn strength

    def __post_init__(self) -> None:
        value = getattr(self, self.strength) if self.strength else None
        if value is None or isinstance(value, Tensor):  # no strength, or one drawn from a range that was checked
            return
        ends = list(value) if isinstance(value, Sequence) else [value, value]
        fits = len(ends) == 2 and 0 <= ends[0] <= ends[1] <= self.highest and ends[1] < math.inf
        if not fits or (self.above_zero and ends[0] == 0):
            least = "above 0" if self.above_zero else "0 or more"
            most = "" if self.highest == math.inf else f", at most {self.highest:g}"
            raise ValueError(
                f"{self.strength} must be {least}{most}, or [low, high] of such values, got {value}; "
                f"set noise.{self.strength}={getattr(type(self), self.strength):g}"
            )

    def draw_strength(self, images: Tensor, rng: torch.Generator) -> float | Tensor:
        """Draw a strength for each of N images, (N, 1, 1, 1) float32, if it is a range; else return its value."""
        strength: Strength = getattr(self, self.strength)
        if not isinstance(strength, Sequence):
            return strength
        low, high = strength
        return torch.empty((len(images), 1, 1, 1), device=images.device).uniform_(low, high, generator=rng)

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
        """Draw the strength if both images of a pair share it, and return the noise with it."""
        if not self.shares_strength:
            return self
        drawn: Noise = replace(self, **{self.strength: self.draw_strength(images, rng)})  # type: ignore[type-var]  # a dataclass
        return drawn


@dataclass(frozen=True)
class Gaussian(Noise):
    """White Gaussian noise; ``noise=gaussian``."""

    sigma: Strength = 25.0  # standard deviation in units of 1/255 of the range, as in the literature
    preserves, strength = ALL, "sigma"

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        sigma = self.draw_strength(images, rng) / 255
        # torch fills contiguous memory seven times as fast, and the draws are the same for every layout of ``images``
        noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
        if isinstance(sigma, Tensor):
            return noise.normal_(generator=rng).mul_(sigma).add_(images)
        return noise.normal_(0, sigma, generator=rng).add_(images)


@dataclass(frozen=True)
class Brown(Noise):
    """Blurred Gaussian noise; ``noise=brown``.

    The noise of pixels at a distance of d px has the correlation exp(-d^2 / (4 blur_px^2)).
    """

    sigma: Strength = 25.0  # standard deviation of each pixel in units of 1/255 of the range
    blur_px: float = 2.0  # standard deviation of the Gaussian blur
    preserves, strength = ALL, "sigma"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.blur_px <= 100:
            raise ValueError(f"blur_px must be above 0, at most 100, got {self.blur_px}; set noise.blur_px=2")

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        sigma = self.draw_strength(images, rng) / 255
        n, channels, height, width = images.shape
        radius = max(round(4 * self.blur_px), 1)
        offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        kernel = torch.exp(-0.5 * (offsets / self.blur_px) ** 2)
        kernel = kernel / kernel.square().sum().sqrt()  # so that the blur does not change the variance of white noise
        white = torch.empty((n * channels, 1, height + 2 * radius, width + 2 * radius), device=images.device)
        white.normal_(generator=rng)
        brown = F.conv2d(F.conv2d(white, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
        return brown.reshape(images.shape).mul_(sigma).add_(images)


@dataclass(frozen=True)
class Poisson(Noise):
    """Photon counting noise, Poisson(lam x) / lam for each value x; ``noise=poisson``. Values below 0 count as 0."""

    lam: Strength = 30.0  # mean count where the image is 1
    preserves, strength, above_zero = MEAN, "lam", True

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        lam = self.draw_strength(images, rng)
        return torch.poisson(images.clamp_min(0) * lam, generator=rng).div_(lam)


@dataclass(frozen=True)
class PoissonGaussian(Noise):
    """Noise of a camera: photon counting and read-out, with the variance gain x + (sigma / 255)^2.

    ``noise=poisson_gaussian`` (Foi et al. 2008). A gain of 0 is Gaussian noise alone, a sigma of 0 is ``poisson`` with
    lam = 1 / gain. Of a range of gains the square root is drawn uniformly, so that strong and weak noise are as common.
    Both images of a pair share the drawn values, as two exposures do. Values below 0 count no photons.
    """

    gain: Strength = 0.03  # value of one photon, where the range is 1
    sigma: Strength = 10.0  # standard deviation of the Gaussian part in units of 1/255 of the range
    preserves, strength, shares_strength = MEAN, "gain", True

    def __post_init__(self) -> None:
        super().__post_init__()
        Gaussian(self.sigma)  # checks it

    def draw_strength(self, images: Tensor, rng: torch.Generator) -> float | Tensor:
        if isinstance(self.gain, Sequence):
            low, high = (value**0.5 for value in self.gain)
            return torch.empty((len(images), 1, 1, 1), device=images.device).uniform_(low, high, generator=rng).square()
        return self.gain

    def with_shared_strength(self, images: Tensor, rng: torch.Generator) -> Noise:
        gain = self.draw_strength(images, rng)
        return replace(self, gain=gain, sigma=Gaussian(self.sigma).draw_strength(images, rng))

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        gain = torch.as_tensor(self.draw_strength(images, rng), device=images.device)
        photon = gain.clamp_min(LEAST_GAIN)
        counted = torch.poisson(images.clamp_min(0) / photon, generator=rng).mul_(photon)
        return Gaussian(self.sigma).corrupt(torch.where(gain < LEAST_GAIN, images, counted), rng)


def draw_mask(images: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Choose each pixel with probability ``p``: (N, C, H, W) -> (N, 1, H, W) bool."""
    n, _, height, width = images.shape
    return torch.rand((n, 1, height, width), device=images.device, generator=rng) < p


@dataclass(frozen=True)
class Bernoulli(Noise):
    """Pixels become 0; ``noise=bernoulli``. The mask leaves them out of a target; the others preserve every statistic.

    Both images of a pair share a drawn ``p``. So a pair that is nearly black has little weight in the loss, as the
    paper's figures suggest (docs/results/paper).
    """

    p: Strength = 0.5  # probability that a pixel becomes 0
    preserves, masks, strength, highest, shares_strength = ALL, True, "p", 1.0, True

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return self.corrupt_target(images, rng)[0]

    def corrupt_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        kept = ~draw_mask(images, self.draw_strength(images, rng), rng)
        return images * kept, kept


@dataclass(frozen=True)
class Impulse(Noise):
    """Pixels become a colour drawn uniformly from [0, 1]; ``noise=impulse``.

    The mode is preserved, and the median too if fewer than half of the pixels are replaced. Both images of a pair share
    a drawn ``p``. With a ``p`` of their own, targets would lose half of their pixels on average, whatever the source,
    and ``l1`` would succeed; in the paper it does not (docs/results/paper).
    """

    p: Strength = 0.5  # probability that a pixel is replaced
    strength, highest, shares_strength = "p", 1.0, True

    @property
    def preserves(self) -> frozenset[Statistic]:  # type: ignore[override]  # it is only read
        most = self.p[1] if isinstance(self.p, Sequence) else self.p
        return MEDIAN | MODE if most < 0.5 else MODE

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        replaced = draw_mask(images, self.draw_strength(images, rng), rng)
        return torch.where(replaced, torch.rand(images.shape, device=images.device, generator=rng), images)


@dataclass(frozen=True)
class Text(Noise):
    """Random strings of random size and colour over the image; ``noise=text``."""

    coverage: Strength = 0.25  # covered fraction of the pixels, below 0.5 to preserve the median
    preserves, strength, highest = MEDIAN | MODE, "coverage", 0.5

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return overlay_text(images, self.draw_strength(images, rng), rng)


@dataclass(frozen=True)
class Pixelate(Noise):
    """Point sampling: each noisy pixel is one pixel of a square cell, the clean one is its mean; ``noise=pixelate``."""

    cell_px: int = 8  # side of the cell
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
