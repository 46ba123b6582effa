"""Choose the strength of a filter from the noisy images alone. Pure functions of numpy arrays."""

from __future__ import annotations

import numpy as np

from n2n_lightning.filters import FILTERS, Images
from n2n_lightning.noise_variance import NoiseVariance

CHOOSING_PX = 200_000  # of the images, to choose a strength by
MASK_PX = 4  # distance of the pixels that are masked


def choose_strength(name: str, images: Images, noise: NoiseVariance) -> float:
    """Return the strength of a filter that suits noisy images best, found from these images alone.

    Each strength predicts masked pixels, one in 16, from the others. Where the noise is independent from pixel to
    pixel, the strength of the least error is near the best one (Noise2Self, Batson and Royer 2019).

    Args:
        name: of one of ``FILTERS``.
        images: (N, C, H, W) float32 in units of the range; at most ``CHOOSING_PX`` pixels of them are used.
        noise: its variance.
    """
    from skimage.restoration import calibrate_denoiser

    strengths, function = FILTERS[name][:2]
    if len(strengths) == 1:
        return strengths[0]
    if min(images.shape[2:]) < MASK_PX:
        size = "x".join(map(str, images.shape[2:]))
        raise ValueError(f"images to choose a strength by must have {MASK_PX}x{MASK_PX} px, got {size}; set a strength")

    def denoise(image: Images, *, strength: float, channel_axis: int) -> Images:
        return np.moveaxis(function(np.moveaxis(image, channel_axis, 0)[None], strength, noise)[0], 0, channel_axis)

    choices = {"strength": strengths, "channel_axis": [-1]}
    losses = np.zeros(len(strengths))
    for image in np.moveaxis(choosing_part(images), 1, -1):
        _, (_, errors) = calibrate_denoiser(image, denoise, choices, stride=MASK_PX, extra_output=True)
        losses += errors
    return strengths[int(np.argmin(losses))]


def choosing_part(images: Images) -> Images:
    """Return images of at most ``CHOOSING_PX`` pixels, spread over all; of a larger one the middle. (N, C, H, W)."""
    count, _, height, width = images.shape
    few = min(max(CHOOSING_PX // (height * width), 1), count)
    side = int(CHOOSING_PX**0.5) if height * width > CHOOSING_PX else max(height, width)
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return images[np.linspace(0, count - 1, few).round().astype(int), :, top : top + side, left : left + side]
