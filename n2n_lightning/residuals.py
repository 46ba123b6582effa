"""Where a denoiser worked and where not: what it removed, and its error by region. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

REACH_PX = 7  # largest lag of the autocorrelation in pictures
NEAR_PX = 2  # lags up to this one show whether signal was removed
MEASURED_PX = 256  # side of the image's centre that a picture's autocorrelation is measured on
BLOCK_PX = 16  # side of the regions whose error is estimated
SHOWN_SIGMAS = 3.0  # a residual of this many standard deviations is shown white, or black
SHOWN_CORRELATION = 0.25  # this autocorrelation is shown white, its negative black


def autocovariance(images: Tensor, reach: int) -> Tensor:
    """Return the autocovariance of each image, the mean over its channels; each channel's mean is taken off first.

    (N, C, H, W) float32 -> (N, 2 r + 1, 2 r + 1) float32, lag 0 in the middle. r is ``reach``, or less for images
    that are not larger than it.
    """
    height, width = images.shape[-2:]
    reach = min(reach, height - 1, width - 1)
    centred = images - images.mean((-2, -1), keepdim=True)
    side = 2 * reach + 1
    covariance = images.new_zeros(len(images), side, side)
    for dy in range(reach + 1):
        for dx in range(-reach, reach + 1):
            first = centred[..., dy:, max(dx, 0) : width + min(dx, 0)]
            second = centred[..., : height - dy, max(-dx, 0) : width - max(dx, 0)]
            value = (first * second).mean((1, 2, 3))
            covariance[:, reach + dy, reach + dx] = covariance[:, reach - dy, reach - dx] = value
    return covariance


def largest_correlation(covariance: Tensor) -> float:
    """Return the autocorrelation of the lag, other than 0, where it is farthest from 0. (side, side) -> -1 to 1.

    The images' autocovariances are averaged before, so that images with more noise count more. White noise has 0. It
    is 0 too if there is no other lag, or nothing varies.
    """
    values = covariance.flatten()
    middle = len(values) // 2
    if middle == 0 or not values[middle] > 0:
        return 0.0
    others = torch.cat([values[:middle], values[middle + 1 :]]) / values[middle]
    return float(others[others.abs().argmax()])


def residual_picture(residual: Tensor) -> Tensor:
    """Scale residuals so that they can be seen: grey is 0, white and black are 3 standard deviations of the image.

    (N, C, H, W) float32 -> same shape in [0, 1].
    """
    spread = residual.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    return (0.5 + 0.5 * residual / (SHOWN_SIGMAS * spread)).clamp(0, 1)


def autocorrelation_picture(residual: Tensor) -> Tensor:
    """Draw the autocorrelation of each image's centre, as large as the image: grey is 0, white 0.25, black -0.25.

    (N, C, H, W) float32 -> (N, 1, H, W) in [0, 1], lag 0 in the middle.
    """
    height, width = residual.shape[-2:]
    top, left = (max(side - MEASURED_PX, 0) // 2 for side in (height, width))
    centre = residual[..., top : top + MEASURED_PX, left : left + MEASURED_PX]
    covariance = autocovariance(centre, REACH_PX)
    middle = covariance.shape[-1] // 2
    variance = covariance[:, middle, middle].clamp_min(1e-24)
    shown = (0.5 + 0.5 * covariance / variance[:, None, None] / SHOWN_CORRELATION).clamp(0, 1)
    return functional.interpolate(shown[:, None], (height, width), mode="nearest-exact")


def pair_error_map(estimate: Tensor, other_estimate: Tensor, noisy: Tensor, other_noisy: Tensor) -> Tensor:
    """Estimate the squared error of each pixel, as ``metrics.pair_error`` does for the image, without clipping.

    (N, C, H, W) float32 four times -> (N, 1, H, W), the mean over channels. Single values are mostly noise and may be
    negative: average them over regions.
    """
    crossed = (estimate - other_noisy).square() + (other_estimate - noisy).square()
    return (0.5 * (crossed - (noisy - other_noisy).square())).mean(1, keepdim=True)


def triple_error_map(estimate: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Estimate the squared error of each pixel, as ``metrics.triple_error`` does for the image, without clipping.

    (N, C, H, W) float32 three times -> (N, 1, H, W), the mean over channels, which may be negative.
    """
    return ((estimate - second) * (estimate - third)).mean(1, keepdim=True)


def region_means(images: Tensor, block_px: int = BLOCK_PX) -> Tensor:
    """Replace each block of pixels by its mean; blocks at the lower and right edge may be smaller.

    (N, C, H, W) float32 -> same shape.
    """
    height, width = images.shape[-2:]
    means = functional.avg_pool2d(images, block_px, ceil_mode=True)
    return means.repeat_interleave(block_px, 2).repeat_interleave(block_px, 3)[..., :height, :width]


def error_picture(errors: Tensor, noise: Tensor) -> Tensor:
    """Draw the error of each block: black is no error, white an error as large as the noise of the noisy image.

    Args:
        errors: (N, 1, H, W) float32, from ``pair_error_map`` or ``triple_error_map``.
        noise: (N,) float32, the mean squared error of each noisy image.

    Returns:
        (N, 1, H, W) in [0, 1], the root of the block's mean squared error, divided by that of the noise.
    """
    share = region_means(errors) / noise.clamp_min(1e-24)[:, None, None, None]
    return share.clamp(0, 1).sqrt()
