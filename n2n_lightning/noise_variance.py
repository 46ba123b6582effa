"""The variance of Gaussian and Poisson noise as a function of the level, fitted to images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LEAST_VARIANCE = 1e-10  # of noise; images without any are divided by its square root
LEAST_RISE = 0.05  # part by which the variance must rise over a standard deviation of the level, or it is constant
CLASSES = 16  # of equally many pixels by their level
CALM = 0.3  # part of the pixels of each class that have the least structure around them
Images = npt.NDArray[np.float32]
PerChannel = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoiseVariance:
    """The variance of the noise in each channel: ``slope`` x level + ``offset``, (C,) each, in units of the range.

    A slope of 0 is noise of the same strength everywhere, as Gaussian noise has.
    """

    slope: PerChannel
    offset: PerChannel

    @classmethod
    def fit(cls, noisy: Images, other: Images, *, clean: bool = False) -> Self:
        """Fit the line by least squares to two images of each scene, (N, C, H, W) in units of the range.

        Args:
            noisy: has the noise.
            other: has noise of its own, as strong.
            clean: ``other`` has no noise.
        """
        square = np.square(noisy - other) * (1.0 if clean else 0.5)
        level = other if clean else 0.5 * (noisy + other)
        axes = (0, 2, 3)
        mean, mean_level = (values.mean(axes, np.float64) for values in (square, level))
        spread = level.var(axes, np.float64)
        with_level = (square * level).mean(axes, np.float64) - mean * mean_level
        slope = with_level / np.maximum(spread, LEAST_VARIANCE)
        slope[slope * np.sqrt(spread) <= np.maximum(LEAST_RISE * mean, LEAST_VARIANCE)] = 0.0
        return cls(slope, np.where(slope > 0, mean - slope * mean_level, np.maximum(mean, LEAST_VARIANCE)))

    @classmethod
    def fit_residual(cls, noisy: Images, denoised: Images, divergence: Images) -> Self:
        """Fit the line to one noisy image of each scene, by what a denoiser removes where the scene is calm.

        With noise of variance v that is independent from pixel to pixel, the residual of the best denoiser has the
        variance v (1 - d), where d is the derivative of a pixel's estimate by its own noisy value: the second-order
        Tweedie formula (Manor and Michaeli 2024).

        Args:
            noisy: (N, C, H, W) in units of the range.
            denoised: the denoiser's estimate of it.
            divergence: an estimate of d at each pixel.
        """
        residual = np.square(noisy - denoised)
        lines = [fit_classes(*(x[:, c] for x in (denoised, residual, divergence))) for c in range(noisy.shape[1])]
        slope, offset = np.array(lines).T
        return cls(slope, offset)

    def at(self, level: Images) -> Images:
        """Return the variance at each pixel. (N, C, H, W) float32 in units of the range -> same shape."""
        variance = self.slope[:, None, None] * level + self.offset[:, None, None]
        return np.maximum(variance, LEAST_VARIANCE).astype(np.float32)

    def stabilise(self, images: Images) -> Images:
        """Return images whose noise has the variance 1: the generalised Anscombe transform (Starck et al. 1998).

        (N, C, H, W) float32 -> same shape; a channel of constant variance is divided by its root.
        """
        slope, offset, rises = self._by_channel()
        shifted = np.maximum(slope * images + 3 / 8 * slope**2 + offset, 0.0)
        return np.where(rises, 2 / slope * np.sqrt(shifted), images / np.sqrt(np.abs(offset))).astype(np.float32)

    def restore(self, stabilised: Images) -> Images:
        """Return stabilised images in units of the range again, by the inverse that has no bias for much light."""
        slope, offset, rises = self._by_channel()
        risen = slope * (np.square(stabilised) / 4 - 1 / 8) - offset / slope
        return np.where(rises, risen, stabilised * np.sqrt(np.abs(offset))).astype(np.float32)

    def _by_channel(self) -> tuple[PerChannel, PerChannel, npt.NDArray[np.bool_]]:
        """Return slope, with 1 in the place of 0, offset, and whether the slope is above 0: (C, 1, 1) each."""
        rises = self.slope > 0
        columns = np.where(rises, self.slope, 1.0)[:, None, None], self.offset[:, None, None]
        return (*columns, rises[:, None, None])


def fit_classes(level: Images, residual: Images, divergence: Images) -> tuple[float, float]:
    """Return slope and offset of the variance of one channel, see ``NoiseVariance.fit_residual``. (N, H, W) each.

    The residual is squared. Each class of pixels of a similar level counts by what is known of its variance.
    """
    structure = local_structure(level)
    edges = np.unique(np.quantile(level, np.linspace(0, 1, CLASSES + 1)[1:-1]))
    number = np.searchsorted(edges, level)
    found = []
    for one in range(len(edges) + 1):
        inside = number == one
        if not inside.any():
            continue
        calm = inside & (structure <= np.quantile(structure[inside], CALM))
        removed = min(max(float(divergence[calm].mean(dtype=np.float64)), 0.0), 0.9)
        variance = float(residual[calm].mean(dtype=np.float64)) / (1 - removed)
        found.append((float(level[calm].mean(dtype=np.float64)), max(variance, LEAST_VARIANCE), int(calm.sum())))
    centre, variance, count = np.array(found).T
    mean = float(np.average(variance, weights=count))
    if len(centre) < 3:
        return 0.0, mean
    expected = np.full_like(variance, mean)
    slope, offset = 0.0, mean
    for _ in range(3):  # the standard error of a variance is in proportion to it
        slope, offset = np.polyfit(centre, variance, 1, w=np.sqrt(count) / expected)
        expected = np.maximum(slope * centre + offset, 0.05 * mean)
    if slope * centre.std() <= LEAST_RISE * mean:
        return 0.0, mean
    return float(slope), float(offset)


def local_structure(level: Images) -> Images:
    """Return how much an image without noise changes around each pixel. (N, H, W) -> same shape."""
    fine, coarse = (ndimage.gaussian_filter(level, (0, sigma, sigma)) for sigma in (1.0, 2.0))
    slopes = np.square(np.stack(np.gradient(fine, axis=(-2, -1)))).sum(0)
    around: Images = ndimage.uniform_filter(slopes + np.square(level - coarse), (0, 7, 7))
    return around
