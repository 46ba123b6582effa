"""Whether what a denoiser removes from one image is noise, or texture and nothing.

Noise is about as strong everywhere at one brightness; texture is not. A denoiser of independent noise removes little
from a clean image. Of noise that neighbours share it removes a part, whose pixels are then correlated, too. At a
spacing, where it sees only every second or third pixel, it also removes fine texture. The limits were found on 138
photographs without noise, on these with Gaussian noise (3 to 25 of 255) and with the noise of a simulated camera
(mosaic, gamma, JPEG), on files of cameras, and on microscopy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from n2n_lightning.diagnosis.correlation import cut_patches, lag_correlation, without_plane

LEAST_STRENGTH = 0.01  # part of the image's contrast: less is also removed from clean photographs
LEAST_CORRELATION = 0.2  # of what is removed: 0.22 to 0.5 for cameras, up to 0.2 for most clean photographs
MOST_UNEVEN = 1.4  # ratio of quartiles: noise has up to 1.4, most texture more
CLASSES, CLASS_PATCHES = 6, 40  # classes of brightness in each channel, and the patches that one needs
LEAST_VARYING = 0.25  # part of a channel's patches; in drawings the others are constant, and only edges are left
LEAST_VARIANCE = 1e-12  # of patches, relative to the contrast; others are constant


class Removed(NamedTuple):
    """What was removed from an image."""

    sd: float = 0.0  # root mean square, in the image's unit
    strength: float = 0.0  # standard deviation as a part of the contrast, in the class of brightness with the most
    usual: float = 0.0  # median of the standard deviations of patches, as a part of the contrast
    unevenness: float = 1.0  # ratio of the quartiles of standard deviations of patches of one brightness
    correlation: float = 0.0  # of neighbours, mean of rows and columns

    @property
    def is_noise(self) -> bool:
        """Whether it is strong enough to be noise, where the denoiser knows what texture looks like."""
        return self.strength > LEAST_STRENGTH

    @property
    def is_even(self) -> bool:
        """Whether it is about as strong everywhere at one brightness."""
        return self.unevenness <= MOST_UNEVEN

    @property
    def is_correlated(self) -> bool:
        """Whether neighbours share it, as they do not share what is removed from texture."""
        return self.correlation >= LEAST_CORRELATION


def measure_removed(noisy: np.ndarray, estimate: np.ndarray, pages: int = 1) -> Removed:
    """Compare an image with its estimate. (N, C, H, W) of any unit, twice.

    Strength is the lower quartile of a class's patches, so that a few edges do not make it. A channel that is constant
    nearly everywhere does not count. The classes are those of one channel and page, because a noisy page may lie beside
    a clean one.

    Args:
        noisy: windows of the image.
        estimate: of the same windows.
        pages: that the windows are from, equally many of each, in order.
    """
    bottom, top = np.quantile(noisy, (0.001, 0.999))
    contrast = float(top - bottom) or float(np.ptp(noisy)) or 1.0
    strengths, ratios, parts = [], [], []
    by_page = [np.split(images, pages) for images in (noisy, estimate)]
    for page, channel in np.ndindex(pages, noisy.shape[1]):
        seen, kept = (patches_of(images[page][:, channel]) for images in by_page)
        varies = without_plane(seen).var(axis=(1, 2)) > LEAST_VARIANCE * contrast**2
        if varies.mean() < LEAST_VARYING:
            continue
        part = without_plane(seen - kept)[varies]
        spread = part.std(axis=(1, 2))
        order = np.argsort(kept[varies].mean(axis=(1, 2)))
        for members in np.array_split(order, np.clip(len(order) // CLASS_PATCHES, 1, CLASSES)):
            low, high = np.quantile(spread[members], (0.25, 0.75))
            strengths.append(float(low) / contrast)
            ratios.append(float(high / max(low, 1e-9 * contrast)))
        parts.append(part)
    if not parts:
        return Removed()
    removed = np.concatenate(parts)
    sd = float(np.sqrt(np.mean(np.square(noisy - estimate, dtype=np.float64))))
    usual = float(np.median(removed.std(axis=(1, 2)))) / contrast
    correlation = float(lag_correlation(removed, ((0, 1), (1, 0))).mean())
    return Removed(sd, max(strengths), usual, float(np.median(ratios)), correlation)


def patches_of(images: np.ndarray) -> np.ndarray:
    """Return the patches of (N, H, W): (K, P, P)."""
    return np.concatenate([cut_patches(image[None]) for image in images])
