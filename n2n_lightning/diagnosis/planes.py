"""Helpers on stacks of planes (N, C, H, W): block means, sums over tiles, variance by brightness."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

TILES = 8  # tiles a side at most; their sums give standard errors that correlated noise does not fool
TILE_PX = 8  # at least


def block_means(stack: np.ndarray, side: int) -> np.ndarray:
    """(..., H, W) -> (..., H // side, W // side) float64: mean of each block of side x side pixels; the rest is cut
    off.
    """
    h, w = stack.shape[-2] // side, stack.shape[-1] // side
    cut = stack[..., : h * side, : w * side]
    return np.asarray(cut.reshape(*stack.shape[:-2], h, side, w, side).mean(axis=(-3, -1), dtype=np.float64))


def tile_sums(planes: np.ndarray) -> np.ndarray:
    """(..., C, H, W) -> (..., T, U) float64: sums over channels and tiles that cover the whole plane."""
    rows, columns = (np.linspace(0, side, tiles_along(side) + 1).astype(int)[:-1] for side in planes.shape[-2:])
    summed = np.add.reduceat(planes.sum(axis=-3, dtype=np.float64), rows, axis=-2)
    return np.add.reduceat(summed, columns, axis=-1)


def tiles_along(side: int) -> int:
    """Return how many tiles a side of that many pixels is cut into."""
    return max(1, min(TILES, side // TILE_PX))


def ring_mean(planes: np.ndarray, outer: int = 7, inner: int = 3) -> np.ndarray:
    """(..., H, W) -> same: mean of the outer x outer pixels around each pixel, without the inner x inner ones.

    Noise of a pixel is not in its ring's mean, so that the two are independent where noise has no long range.
    """
    axes = (1,) * (planes.ndim - 2)
    big = ndimage.uniform_filter(planes, (*axes, outer, outer), mode="reflect") * outer**2
    return np.asarray(
        (big - ndimage.uniform_filter(planes, (*axes, inner, inner), mode="reflect") * inner**2) / (outer**2 - inner**2)
    )


def gradients(planes: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(..., H, W) -> two of the same: derivatives by row and by column of the planes blurred by sigma px."""
    axes = (0,) * (planes.ndim - 2)
    blurred = ndimage.gaussian_filter(planes, (*axes, sigma, sigma), mode="nearest") if sigma else planes
    return np.gradient(blurred, axis=-2), np.gradient(blurred, axis=-1)


def by_brightness(level: np.ndarray, values: np.ndarray, bins: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return brightness, mean value and share of each of up to `bins` classes of equally many pixels.

    level, values: the same shape. Results: (K,) float64 each, by rising brightness.
    """
    flat = level.ravel()
    some = flat[:: max(1, flat.size // 200_000)]
    edges = np.unique(np.quantile(some, np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(edges, flat, side="right")
    counts = np.bincount(which, minlength=len(edges) + 1).astype(float)
    kept = counts > 0
    centre = np.bincount(which, flat, len(counts))[kept] / counts[kept]
    return centre, np.bincount(which, values.ravel(), len(counts))[kept] / counts[kept], counts[kept] / flat.size


def interpolated(level: np.ndarray, centre: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the value at each level (any shape), linear between the classes' centres, constant outside; float32."""
    return np.asarray(np.interp(level, centre, value).astype(np.float32))
