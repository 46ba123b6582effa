"""Filters that denoise without training, to compare nets with. Pure functions of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

PATCH_PX = 5  # side of the patches that non-local means compares
SEARCH_PX = 6  # and how far apart they may lie
LEAST_VARIANCE = 1e-10  # of noise; images without any are divided by its square root
LEAST_RISE = 0.05  # part by which the variance must rise over a standard deviation of the level, or it is constant
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


def median(images: Images, side_px: float) -> Images:
    """Return the median over a square window at each pixel. (N, C, H, W) float32 -> same shape."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(images, (1, 1, int(side_px), int(side_px))), np.float32)


def gaussian_blur(images: Images, sigma_px: float) -> Images:
    """Return the blurred images. (N, C, H, W) float32 -> same shape."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(images, (0, 0, sigma_px, sigma_px)), np.float32)


def non_local_means(images: Images, strength: float, noise: NoiseVariance) -> Images:
    """Return the means over similar patches (Buades et al. 2005), computed on images whose noise is stabilised.

    Args:
        images: (N, C, H, W) float32 in units of the range; the result is like it.
        strength: the parameter h, in standard deviations of the noise.
        noise: its variance.
    """
    from skimage.restoration import denoise_nl_means

    def denoise(image: Images) -> Images:
        last = np.moveaxis(image, 0, -1)
        settings = {"patch_size": PATCH_PX, "patch_distance": SEARCH_PX, "h": strength, "sigma": 1.0}
        denoised = denoise_nl_means(last, fast_mode=True, channel_axis=-1, **settings)
        return np.moveaxis(denoised.reshape(last.shape), -1, 0)  # scikit-image drops axes of length 1

    return noise.restore(np.stack([denoise(image) for image in noise.stabilise(images)]))


class Filter(NamedTuple):
    """A filter: the strengths to try, weakest first, and the function of images, strength and noise."""

    strengths: tuple[float, ...]
    apply: Callable[[Images, float, NoiseVariance], Images]


FILTERS = {
    "median": Filter((3, 5, 7), lambda images, side_px, _: median(images, side_px)),
    "gaussian": Filter(
        (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0), lambda images, sigma_px, _: gaussian_blur(images, sigma_px)
    ),
    "non_local_means": Filter((0.3, 0.4, 0.55, 0.75, 1.0), non_local_means),
}
