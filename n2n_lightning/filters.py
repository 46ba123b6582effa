"""Filters that denoise without training, to compare nets with. Pure functions of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from n2n_lightning.noise_variance import NoiseVariance

PATCH_PX = 5  # side of the patches that non-local means compares
SEARCH_PX = 6  # and how far apart they may lie
ITERATIONS = 40  # of the reduction of total variation
SHIFTS_PX = 1  # by which the images are shifted, in each direction, to remove small wavelet coefficients
LEAST_WAVELET_PX = 6  # side of images that have wavelets
OPPONENT = np.array([[1, 1, 1], [1, 0, -2], [1, -1, 1]])  # the colours in which BM3D compares patches
LEAST_BM3D_PX = 16  # side to which smaller images are padded
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


def total_variation(images: Images, strength: float, noise: NoiseVariance) -> Images:
    """Return the images of less total variation (Rudin et al. 1992; Chambolle 2004), computed on stabilised images.

    Args:
        images: (N, C, H, W) float32 in units of the range; the result is like it.
        strength: the weight of the total variation, in standard deviations of the noise.
        noise: its variance.
    """
    from skimage.restoration import denoise_tv_chambolle

    settings = {"eps": 0.0, "max_num_iter": ITERATIONS, "channel_axis": 0}  # no early stop: SURE differentiates it
    denoised = [denoise_tv_chambolle(image, strength, **settings) for image in noise.stabilise(images)]
    return noise.restore(np.stack(denoised))


def wavelet(images: Images, strength: float, noise: NoiseVariance) -> Images:
    """Return the images with small wavelet coefficients removed (BayesShrink, Chang et al. 2000), on stabilised images.

    The mean over shifted images is taken (cycle spinning, Coifman and Donoho 1995). It needs the package PyWavelets.

    Args:
        images: (N, C, H, W) float32 in units of the range; the result is like it.
        strength: the standard deviation of the noise that is assumed, in those of ``noise``.
        noise: its variance.
    """
    from skimage.restoration import cycle_spin, denoise_wavelet

    settings = {"sigma": strength, "wavelet": "db2", "convert2ycbcr": images.shape[1] == 3, "channel_axis": -1}

    def denoise(image: Images) -> Images:
        last = np.moveaxis(image, 0, -1)
        spin = {"max_shifts": SHIFTS_PX, "workers": 1, "channel_axis": -1}
        return np.moveaxis(cycle_spin(last, denoise_wavelet, func_kw=settings, **spin), -1, 0)

    levels = min(images.shape[2:]) >= LEAST_WAVELET_PX
    return noise.restore(np.stack([denoise(image) for image in noise.stabilise(images)])) if levels else images.copy()


def bm3d(images: Images, strength: float, noise: NoiseVariance) -> Images:
    """Return the images denoised by block matching (Dabov et al. 2007; Makinen et al. 2020), on stabilised images.

    It needs the package bm3d, which is licensed for non-commercial use only.

    Args:
        images: (N, C, H, W) float32 in units of the range; the result is like it. Three channels are taken for RGB.
        strength: the standard deviation of the noise that is assumed, in those of ``noise``.
        noise: its variance.
    """
    from bm3d import bm3d as denoise_channel
    from bm3d import bm3d_rgb

    height, width = images.shape[2:]

    def denoise(image: Images) -> Images:
        last = np.moveaxis(image, 0, -1).astype(np.float64)
        lacking = [(0, max(LEAST_BM3D_PX - size, 0)) for size in (height, width)]
        padded = np.pad(last, [*lacking, (0, 0)], "symmetric")
        ranges = np.ptp(padded @ OPPONENT, (0, 1)) if len(image) == 3 else np.zeros(3)
        if ranges.min() > 1e-6 * ranges.max():  # bm3d_rgb divides by them
            denoised = bm3d_rgb(padded, strength)
        else:
            denoised = np.stack([denoise_channel(channel, strength) for channel in np.moveaxis(padded, -1, 0)], -1)
        return np.asarray(np.moveaxis(denoised[:height, :width], -1, 0), np.float32)

    return noise.restore(np.stack([denoise(image) for image in noise.stabilise(images)]))


class Filter(NamedTuple):
    """A filter: the strengths to try, weakest first, and the function of images, strength and noise."""

    strengths: tuple[float, ...]
    apply: Callable[[Images, float, NoiseVariance], Images]
    module: str = "skimage"  # that it needs
    slow: bool = False  # takes minutes for a photograph

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


FILTERS = {
    "median": Filter((3, 5, 7), lambda images, side_px, _: median(images, side_px)),
    "gaussian": Filter(
        (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0), lambda images, sigma_px, _: gaussian_blur(images, sigma_px)
    ),
    "non_local_means": Filter((0.3, 0.4, 0.55, 0.75, 1.0), non_local_means),
    "total_variation": Filter((0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0), total_variation),
    "wavelet": Filter((1.0,), wavelet, "pywt"),
    "bm3d": Filter((1.0,), bm3d, "bm3d", slow=True),
}
