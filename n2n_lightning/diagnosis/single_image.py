"""What one image alone tells of its noise: enough to say whether a denoiser for independent noise suits it.

The limits were found on photographs, clean and with Gaussian (3 to 50 of 255), Poisson, blurred and compressed noise.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from n2n_lightning.diagnosis.correlation import cut_patches, flat_patches, without_plane
from n2n_lightning.diagnosis.noise import single_noise

MIN_SIDE_PX = 16  # smaller images hold too little to measure
LEAST_NOISE = 0.012  # sd as a part of the image's contrast: less is also found in clean photographs, 3 of 255
CORRELATED = 0.3  # of neighbours; blurred and demosaiced noise has more
MOST_UNEVEN = 2.0  # ratio of sds: noise is about as strong everywhere, the texture of a photograph is not
MOST_SATURATED = 0.05  # share of the values at the highest one

Kind = Literal["small", "constant", "clean", "correlated", "independent"]


class ImageNoise(NamedTuple):
    """What was found in an image; values as stored."""

    kind: Kind
    low: float  # least value
    high: float  # greatest value
    sd: float = 0.0  # of the noise
    correlation: float = 0.0  # between neighbouring pixels, in the smoothest places
    saturated: float = 0.0  # share of the values that are the greatest one, if it is large enough to matter


def whole_patches(side: int) -> int:
    """Return a number of px without what is left over by the patches that are measured."""
    return side // MIN_SIDE_PX * MIN_SIDE_PX or side


def find_noise(image: np.ndarray) -> ImageNoise:
    """Estimate the noise of one image, (C, H, W) of any real type, finite."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return ImageNoise("constant", low, high)
    share = float(np.mean(image == image.max()))
    saturated = share if share > MOST_SATURATED else 0.0
    if min(image.shape[1:]) < MIN_SIDE_PX:
        return ImageNoise("small", low, high, saturated=saturated)
    scaled = ((image.astype(np.float64) - low) / (high - low)).astype(np.float32)  # so that no square overflows
    bottom, top = np.quantile(scaled, (0.001, 0.999))
    contrast = float(top - bottom) or 1.0
    rho = max(flat_patches(scaled).rho[:2])
    smoothest, usual = np.quantile(without_plane(cut_patches(scaled)).std(axis=(1, 2)), (0.05, 0.25))
    kind: Kind
    if rho > CORRELATED and smoothest > max(LEAST_NOISE * contrast, usual / MOST_UNEVEN):
        kind, sd = "correlated", float(smoothest)
    else:
        sd = single_noise(scaled).sd
        kind = "independent" if sd > LEAST_NOISE * contrast else "clean"
    return ImageNoise(kind, low, high, sd * (high - low), rho, saturated)
