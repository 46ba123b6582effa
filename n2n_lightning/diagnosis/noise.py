"""Strength of the noise as a function of brightness: var = gain * value + intercept (Poisson-Gaussian), from frame
differences.

The brightness is seen in a ring of neighbours, whose noise is not the pixel's own; as an instrument it makes slope
and intercept unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from n2n_lightning.diagnosis.planes import by_brightness, interpolated, ring_mean, tile_sums

CENTRE = (
    np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
)  # Immerkaer's mask: unit response to white noise


@dataclass(frozen=True)
class NoiseFit:
    """Noise of a scene, values as stored."""

    sd: float  # root of the mean variance
    gain: float | None  # variance per value; None where the scene is too flat to tell
    gain_error: float
    intercept: float | None  # variance at value 0: read-out variance less gain times the black level
    intercept_error: float
    level: tuple[float, ...]  # brightness of the classes of pixels
    variance: tuple[float, ...]  # noise variance of each class
    frames: int  # 1: estimated within one image, rough
    sd_by_frame: tuple[float, ...]


def measure_noise(mean: np.ndarray, residual: np.ndarray, pile: tuple[float, float]) -> NoiseFit:
    """Fit the noise of aligned frames of one level; pixels near the values `pile` (lowest, highest) do not count.

    mean: (C, H, W) of N >= 2 frames; residual: (N, C, H, W), the frames less their mean.
    """
    n = len(residual)
    variance = (residual**2).sum(axis=0) / (n - 1)
    level, spread, _ = by_brightness(ring_mean(mean), variance)
    gain, intercept, gain_error, intercept_error = fitted(mean, variance, pile)
    by_frame = tuple(float(v) for v in frame_sds(residual))
    known = gain_error < 0.2 * abs(gain) or intercept_error < 0.15 * float(variance.mean())
    return NoiseFit(
        float(np.sqrt(variance.mean())),
        gain if known else None,
        gain_error,
        intercept if known else None,
        intercept_error,
        tuple(map(float, level)),
        tuple(map(float, spread)),
        n,
        by_frame,
    )


def fitted(mean: np.ndarray, variance: np.ndarray, pile: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return gain, intercept and their standard errors; mean, variance: (C, H, W)."""
    ring = ring_mean(mean)
    sd = float(np.sqrt(variance.mean()))
    used = (ring > pile[0] + 3 * sd) & (ring < pile[1] - 3 * sd)
    used = used if used.mean() > 0.05 else np.ones_like(used)
    weight = used.astype(np.float64)
    for _ in range(3):
        total = weight.sum()
        r0, m0, v0 = ((weight * a).sum() / total for a in (ring, mean, variance))
        instrument = weight * (ring - r0)
        bottom = (instrument * (mean - m0)).sum()
        gain = float((instrument * (variance - v0)).sum() / bottom) if bottom > 0 else 0.0
        intercept = float(v0 - gain * m0)
        expected = np.maximum(gain * ring + intercept, 0.05 * v0)
        weight = used / expected**2
    left = variance - gain * mean - intercept
    gain_error = np.sqrt((tile_sums(instrument * left) ** 2).sum()) / max(bottom, 1e-30)
    level_error = np.sqrt((tile_sums(weight * left) ** 2).sum()) / weight.sum()
    return gain, intercept, float(gain_error), float(np.hypot(level_error, gain_error * m0))


def frame_sds(residual: np.ndarray) -> np.ndarray:
    """Return the noise sd (N,) of each frame, from the frames less their mean (N, C, H, W); of two frames the mean of
    both, for both.

    E r_i^2 = sigma_i^2 (1 - 2/N) + sum(sigma^2) / N^2.
    """
    n = len(residual)
    left = (residual**2).mean(axis=(1, 2, 3), dtype=np.float64)
    total = left.sum() * n / (n - 1)
    if n == 2:
        return np.asarray(np.sqrt(np.full(2, total / 2)))
    return np.asarray(np.sqrt(np.maximum((left - total / n**2) / (1 - 2 / n), 0)))


def local_sd(mean: np.ndarray, noise: NoiseFit) -> np.ndarray:
    """Return the noise sd at each pixel (C, H, W) float32 of the frames' mean, from the classes of brightness."""
    level = ring_mean(mean, outer=5, inner=1)
    floor = 0.02 * noise.sd**2 + 1e-30
    return np.asarray(np.sqrt(np.maximum(interpolated(level, np.array(noise.level), np.array(noise.variance)), floor)))


def single_noise(image: np.ndarray) -> NoiseFit:
    """Estimate the noise within one image (C, H, W): the finest detail of the half of the pixels whose surroundings
    are smoothest.

    Right for noise that is independent from pixel to pixel; correlated noise comes out too small.
    """
    detail = np.stack([ndimage.convolve(plane, CENTRE, mode="reflect") for plane in image])
    smooth = ndimage.gaussian_filter(image, (0, 3, 3))
    slope = np.hypot(*np.gradient(smooth, axis=(-2, -1)))
    level, limit, _ = by_brightness(smooth, slope)
    calm = slope <= interpolated(smooth, level, limit)
    order = np.argsort(smooth[calm])
    groups = np.array_split(order, min(16, max(1, calm.sum() // 500)))
    centre = np.array([smooth[calm][g].mean() for g in groups])
    spread = np.array([(np.median(np.abs(detail[calm][g])) / 0.6745) ** 2 for g in groups])
    kept = spread > 0
    sd = float(np.sqrt(spread.mean()))
    gain, intercept = None, None
    if kept.sum() >= 4 and np.ptp(centre[kept]) > 0:
        slope_fit, start = np.polyfit(centre[kept], spread[kept], 1, w=1 / spread[kept])
        gain, intercept = float(slope_fit), float(start)
    return NoiseFit(sd, gain, np.inf, intercept, np.inf, tuple(map(float, centre)), tuple(map(float, spread)), 1, (sd,))


def detail_variances(stack: np.ndarray, rho: tuple[float, ...]) -> np.ndarray | None:
    """Return the variance (N,) of each frame's finest detail, per unit of its noise variance; what the picture adds
    is the same in all.

    None where the noise has too little fine detail, for its pixels are correlated.

    stack: (N, C, H, W), less the smooth picture and divided by the local noise sd; rho: correlation of the noise at
    the lags (0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0).
    """
    response = (
        1 + 2 * (-24 * (rho[0] + rho[1]) + 16 * (rho[2] + rho[3]) + 6 * (rho[4] + rho[5])) / 36
    )  # the mask's own correlation at these lags
    if response < 0.4:
        return None
    detail = np.array(
        [np.mean([np.mean(ndimage.convolve(plane, CENTRE, mode="reflect") ** 2) for plane in frame]) for frame in stack]
    )
    return detail / response
