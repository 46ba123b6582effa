"""The spacing at which the noise of one image is independent, for ``inference.passes.estimate_at_spacing``.

The limits were found on photographs with white noise (standard deviation 5 to 50 of 255), on JPEG files of a camera,
and on fluorescence microscopy: confocal and two-photon (white), wide-field (correlated over 2 px).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from n2n_lightning.diagnosis.correlation import cut_patches, lag_correlation, without_plane

SPACINGS = (1, 2, 3, 4)  # px
CALMEST = 0.02  # part of the patches that is measured
FEWEST_PATCHES = 16
CORRELATED = 0.3  # of neighbours; texture and white noise have less in the calmest patches
MOST_LEFT = 0.2  # part of the noise variance that a net leaves in calm places, where the noise is independent to it
MOST_UNEVEN = 2.0  # ratio of standard deviations: noise is about as strong everywhere, texture is not
LEAST_VARIANCE = 1e-7  # of patches, in units of the range; others are clipped
DenoiseAt = Callable[[np.ndarray, int], np.ndarray]


class NoiseSpacing(NamedTuple):
    """The spacing at which noise is independent, and what was measured."""

    spacing: int  # px, 1 for independent noise
    sd: float  # of the noise in the calmest patches, in units of the range
    correlation: tuple[float, float, float]  # at lags of 1, 2 and 3 px, mean of rows, columns and channels
    left: tuple[float, ...] = ()  # part of the noise variance that is left, for each of ``SPACINGS`` that was tried


def find_spacing(noisy: np.ndarray, denoise: DenoiseAt) -> NoiseSpacing:
    """Find the smallest spacing at which a denoiser of independent noise removes the noise.

    A net takes correlated noise for structure and leaves it. The calmest patches of the image, as denoised at the
    greatest spacing, show how much is left.

    Args:
        noisy: (N, C, H, W) float32 in units of the range.
        denoise: of such images and a spacing -> same shape.
    """

    def patches(images: np.ndarray) -> np.ndarray:
        return without_plane(np.concatenate([cut_patches(image) for image in images]))

    all_noisy = patches(noisy)
    spread = all_noisy.var(axis=(1, 2))
    at_greatest = patches(denoise(noisy, SPACINGS[-1]))
    usable = np.flatnonzero(spread > LEAST_VARIANCE)
    if not len(usable):
        return NoiseSpacing(1, 0.0, (0.0, 0.0, 0.0))
    count = max(FEWEST_PATCHES, int(CALMEST * len(usable)))
    calm = usable[np.argsort(at_greatest[usable].var(axis=(1, 2)))[:count]]
    first, second, third = (lag_correlation(all_noisy[calm], ((0, lag), (lag, 0))).mean() for lag in (1, 2, 3))
    correlation = float(first), float(second), float(third)
    sd = float(np.sqrt(spread[calm].mean()))
    is_even = np.median(spread[calm]) * MOST_UNEVEN**2 > np.quantile(spread[usable], 0.25)
    if first <= CORRELATED or not is_even:
        return NoiseSpacing(1, sd, correlation)
    left: list[float] = []
    for spacing in SPACINGS[1:]:
        found = at_greatest if spacing == SPACINGS[-1] else patches(denoise(noisy, spacing))
        left.append(float(found[calm].var(axis=(1, 2)).sum() / spread[calm].sum()))
        if left[-1] <= MOST_LEFT:
            break
    return NoiseSpacing(SPACINGS[len(left)], sd, correlation, tuple(left))
