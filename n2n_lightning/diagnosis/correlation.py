"""Correlation of the noise: between neighbouring pixels and along rows and columns. All from what frames
do not share.

residual: (N, C, H, W) float32, frames less their mean, divided by the local noise sd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))  # px down and to the right
PROFILE_PX = 15  # rows over which a slow change of brightness is taken out of row means


@dataclass(frozen=True)
class Spatial:
    """Correlation of the noise at each lag (rows, columns) of `LAGS`, in its order, and its standard error."""

    rho: tuple[float, ...]
    error: float


@dataclass(frozen=True)
class Stripes:
    """Variance of the noise that whole rows (columns) share, as a part of the noise variance, and the standard
    errors.
    """

    rows: float
    rows_error: float
    columns: float
    columns_error: float


def without_picture(stack: np.ndarray, place: np.ndarray | None) -> np.ndarray:
    """Return the frames (N, C, H, W), aligned to a pixel and of one level, less their mean; and less what a shift by
    `place` (N, 2) px leaves.

    The shift's part is a Taylor series of the mean frame, to the second order. (Fitting it to the frames instead
    would take noise out, too.)
    """
    mean = stack.mean(axis=0)
    residual = stack - mean
    if place is None or np.abs(place).max() < 0.02:
        return np.asarray(residual)
    smooth = ndimage.gaussian_filter(mean, (0, 0.5, 0.5))
    y, x = np.gradient(smooth, axis=(-2, -1))
    yy, yx, xx = np.gradient(y, axis=-2), np.gradient(y, axis=-1), np.gradient(x, axis=-1)
    for k, (v, u) in enumerate(place):
        residual[k] -= -v * y - u * x + 0.5 * (v * v * yy + 2 * u * v * yx + u * u * xx)
    return np.asarray(residual - residual.mean(axis=0))


def spatial(residual: np.ndarray) -> Spatial:
    """Measure the correlation between neighbouring pixels, rows' and columns' means and slow changes taken out."""
    n, _, h, w = residual.shape
    some = residual[: min(n, 8)]
    side = min(33, h, w)
    some = some - some.mean(axis=-1, keepdims=True)
    some = some - some.mean(axis=-2, keepdims=True)
    some = some - ndimage.uniform_filter(some, (1, 1, side, side))
    power = float(np.mean(some**2, dtype=np.float64))
    taken = 1 / side**2 + 1 / h + 1 / w  # what the means that were taken out held of each pixel's own noise
    rho = []
    for y, x in LAGS:
        a = some[..., y:, max(x, 0) : w + min(x, 0)]
        b = some[..., : h - y, max(-x, 0) : w - max(x, 0)]
        rho.append(float(np.mean(a * b, dtype=np.float64)) / power * (1 - taken) + taken_at(y, x, side, h, w))
    independent = (min(n, 8) - (1 if n <= 8 else 0)) * some[0].size
    return Spatial(tuple(rho), float(1 / np.sqrt(independent)))


def taken_at(y: int, x: int, side: int, h: int, w: int) -> float:
    """Return by how much taking out the means has lowered the correlation of white noise at the lag (y, x)."""
    return 1 / side**2 + (1 / w if y == 0 else 0.0) + (1 / h if x == 0 else 0.0)


def stripes(residual: np.ndarray) -> Stripes:
    """Measure row and column noise: what the left and the right half of a row share, so that correlation between
    neighbours does not count.
    """
    rows, rows_error = _stripes(residual)
    columns, columns_error = _stripes(np.swapaxes(residual, -1, -2))
    return Stripes(rows, rows_error, columns, columns_error)


def _stripes(residual: np.ndarray) -> tuple[float, float]:
    n, c, h, w = residual.shape
    some = residual[: min(n, 32)]
    gap = min(8, w // 8)
    halves = [some[..., : w // 2 - gap].mean(axis=-1), some[..., w // 2 + gap :].mean(axis=-1)]
    size = min(PROFILE_PX, h)
    halves = [half - ndimage.uniform_filter1d(half, size, axis=-1, mode="nearest") for half in halves]
    own = len(some) - (1 if n == len(some) else 0)
    scale = len(some) / own / (1 - 1 / size)
    power = float(np.mean(some**2, dtype=np.float64)) * len(some) / own
    products = halves[0] * halves[1]
    chance = np.sqrt(np.mean(halves[0] ** 2) * np.mean(halves[1] ** 2) / (h * own * c))
    return float(products.mean() * scale / power), float(chance * scale / power)


def flat_patches(image: np.ndarray, patch: int = 16) -> Spatial:
    """Estimate the correlation within one image (C, H, W), in the twentieth of its patches that is smoothest; texture
    makes it too large.
    """
    patches = cut_patches(image, patch)
    smooth = ndimage.uniform_filter(patches, (1, 5, 5))
    slope = np.var(smooth, axis=(1, 2)) / np.maximum(np.var(patches, axis=(1, 2)), 1e-30)
    calm = patches[np.argsort(slope)[: max(4, len(patches) // 20)]]
    left = without_plane(calm)
    return Spatial(tuple(lag_correlation(left, LAGS).tolist()), float(1 / np.sqrt(left.size)))


def lag_correlation(patches: np.ndarray, lags: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the mean correlation within patches (K, P, P), less their planes, at each lag (rows, columns)."""
    patch = patches.shape[-1]
    scaled = patches / np.maximum(patches.std(axis=(1, 2)), 1e-30)[:, None, None]
    taken = 3 / patch**2  # what the plane held of each pixel's own noise
    rho = []
    for y, x in lags:
        a = scaled[:, y:, max(x, 0) : patch + min(x, 0)]
        b = scaled[:, : patch - y, max(-x, 0) : patch - max(x, 0)]
        rho.append(float(np.mean(a * b)) * (1 - taken) + taken)
    return np.array(rho)


def cut_patches(image: np.ndarray, patch: int = 16) -> np.ndarray:
    """Return the square patches of an image (C, H, W): (K, patch, patch) float64, less the rest at its edges."""
    c, h, w = image.shape
    patch = min(patch, h, w)
    cut = image[:, : h // patch * patch, : w // patch * patch].reshape(c, h // patch, patch, w // patch, patch)
    return np.moveaxis(cut, 2, 3).reshape(-1, patch, patch).astype(np.float64)


def without_plane(patches: np.ndarray) -> np.ndarray:
    """Return each of the patches (K, P, P) less the plane that fits it best, in the sense of least squares."""
    patch = patches.shape[-1]
    y, x = np.mgrid[:patch, :patch]
    plane = np.stack([np.ones(patch**2), y.ravel(), x.ravel()], axis=1)
    left = patches.reshape(len(patches), -1) @ (np.eye(patch**2) - plane @ np.linalg.pinv(plane))
    return np.asarray(left.reshape(patches.shape))
