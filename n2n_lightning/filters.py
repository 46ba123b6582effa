"""Filters that denoise without training, to compare nets with. Pure functions of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from n2n_lightning.noise_variance import NoiseVariance

PATCH_PX = 5  # side of the patches that non-local means compares
SEARCH_PX = 6  # and how far apart they may lie
Images = npt.NDArray[np.float32]


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
