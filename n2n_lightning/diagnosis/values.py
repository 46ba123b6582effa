"""Single values: piles at the lowest and highest value, outliers of one frame, hot pixels, the range without a few
values far out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from n2n_lightning.diagnosis.clipping import clipping, regions
from n2n_lightning.diagnosis.planes import interpolated, ring_mean

SOME = 3_000_000  # values that are counted


@dataclass(frozen=True)
class Piles:
    """Shares of the values (pixels that differ from frame to frame) that lie at the lowest and the highest value."""

    lowest: float
    highest: float
    lowest_share: float
    highest_share: float
    lowest_always: float  # share of the pixels that hold the lowest value in every frame
    highest_always: float
    highest_stands_out: float  # the highest value's count against those of the next ones below
    clip_bias: float  # root mean square by which cutting off at the lowest value raises the mean, values as stored
    # noise variance at the lowest value against what the brighter pixels say; 1: nothing is cut off
    clip_deficit: float


@dataclass(frozen=True)
class Outliers:
    """Pixels far out: of single frames, and of all frames (hot)."""

    by_frame: tuple[int, ...]
    share: float  # of all values
    energy: float  # mean square they add, values squared
    hot: int  # pixels
    hot_share: float
    hot_energy: float
    places: tuple[tuple[int, int, int], ...]  # up to ten of (frame, row, column) in the window


@dataclass(frozen=True)
class Span:
    """Lowest and highest value that more than one frame or pixel supports, and the raw ones."""

    low: float
    high: float
    raw_low: float
    raw_high: float


def supported_span(stack: np.ndarray, raw: tuple[float, float]) -> Span:
    """Return the span of the frames (N, C, H, W) without values that stand alone; raw: lowest and highest value of
    the whole frames.
    """
    n = len(stack)
    some = stack if n <= 16 else stack[np.linspace(0, n - 1, 16).astype(int)]
    if n > 1:
        ordered = np.partition(some, (1, len(some) - 2), axis=0)
        low, high = ordered[1], ordered[-2]
    else:
        low = high = some[0]
    base = float(np.median(some[:, :, ::3, ::3]))
    return Span(-_supported(-low, -base, n > 1), _supported(high, base, n > 1), *raw)


def _supported(planes: np.ndarray, base: float, repeated: bool) -> float:
    """Return the highest value of the planes (C, H, W) that a neighbour supports: by a third of its height above
    `base` where the value came twice (so that a bright spot of one pixel stays, and a hot pixel goes), else by one as
    high.
    """
    few = min(planes.size, 4096)
    top = np.argpartition(planes.ravel(), -few)[-few:]
    beside = np.sort(_patches(planes, top, 1), axis=1)[:, -2]
    value = planes.ravel()[top]
    return float(np.max(np.minimum(value, base + 3 * (beside - base)) if repeated else beside))


def _patches(planes: np.ndarray, flat: np.ndarray, radius: int) -> np.ndarray:
    """Return the values around each flat index into planes (C, H, W), edges mirrored: (K, (2 radius + 1)^2)."""
    padded = np.pad(planes, ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    c, y, x = np.unravel_index(flat, planes.shape)
    steps = np.arange(2 * radius + 1)
    return np.asarray(
        padded[
            c[:, None, None], y[:, None, None] + steps[None, :, None], x[:, None, None] + steps[None, None, :]
        ].reshape(len(flat), -1)
    )


def measure_piles(stack: np.ndarray) -> Piles:
    """Measure how many values of the aligned frames (N, C, H, W) lie at the lowest and highest value."""
    n = len(stack)
    some = stack.ravel()[:: max(1, stack.size // SOME)]
    levels, counts = np.unique(some, return_counts=True)
    lowest, highest = float(levels[0]), float(levels[-1])
    low, high = stack == lowest, stack == highest
    always_low, always_high = regions(low.all(axis=0)), high.all(axis=0)
    low_share, high_share = float(low.mean() - always_low.mean()), float(high.mean() - always_high.mean())
    if n == 1:
        low_share, high_share, always_low, always_high = (
            float(low.mean()),
            float(high.mean()),
            always_low * False,
            always_high * False,
        )
    below = counts[-4:-1]
    stands_out = float(counts[-1] / max(below.max(), 1)) if len(below) else 1.0
    bias, deficit = clipping(stack, low, lowest) if n > 1 and low_share > 2e-4 else (0.0, 1.0)
    return Piles(
        lowest,
        highest,
        low_share,
        high_share,
        float(always_low.mean()),
        float(always_high.mean()),
        stands_out,
        bias,
        deficit,
    )


def find_outliers(stack: np.ndarray) -> tuple[Outliers, np.ndarray]:
    """Return the outliers of aligned frames (N, C, H, W) of one level, and where they and hot pixels are (N, C, H, W)
    bool.

    An outlier leaves the frames' median by 8 sd of the noise at that brightness and leaves the range of the
    neighbours too, so that a small shift of an edge is none.
    """
    n = len(stack)
    few = stack if n <= 15 else stack[np.linspace(0, n - 1, 15).astype(int)]
    centre = np.median(few, axis=0) if n > 2 else stack.mean(axis=0)
    if n <= 2:
        centre = ndimage.median_filter(centre, (1, 3, 3))
    level = ndimage.gaussian_filter(centre, (0, 1.5, 1.5))
    limit = _limits(few, centre, level, n)
    high = ndimage.maximum_filter(centre, (1, 3, 3)) + limit
    low = ndimage.minimum_filter(centre, (1, 3, 3)) - limit
    where = np.stack([(frame > high) | (frame < low) for frame in stack])
    if n == 2:  # texture stands out of its neighbours too, but in both frames
        where &= np.abs(stack[0] - stack[1]) > np.sqrt(2) * limit
    if n > 1:  # what both or most frames show is no outlier of one
        where &= where.mean(axis=0) <= 0.5
    energy = float(np.sum(((stack - centre)[where]) ** 2, dtype=np.float64) / stack.size)
    mean = centre if n > 2 else stack.mean(axis=0)
    hot, hot_energy = hot_pixels(mean, limit, n)
    places = tuple((int(k), int(y), int(x)) for k, _, y, x in np.argwhere(where)[:10])
    by_frame = tuple(int(v) for v in where.reshape(n, -1).sum(axis=1))
    found = Outliers(by_frame, float(where.mean()), energy, int(hot.sum()), float(hot.mean()), hot_energy, places)
    return found, where | hot


def _limits(frames: np.ndarray, centre: np.ndarray, level: np.ndarray, n: int) -> np.ndarray:
    """Return how far (C, H, W) a value may lie from the centre: 8 sd, or 3 times the 99 % quantile, of its
    brightness.
    """
    apart = (
        frames[: min(n, 6)] - centre
        if n > 2
        else (frames - frames.mean(axis=0)) * np.sqrt(2)
        if n == 2
        else frames - level
    )
    levels = np.broadcast_to(level, apart.shape).ravel()
    size = np.abs(apart).ravel()
    edges = np.unique(np.quantile(levels[:: max(1, levels.size // 100_000)], np.linspace(0, 1, 13)[1:-1]))
    which = np.searchsorted(edges, levels, side="right")
    centres, limits = [], []
    for k in range(len(edges) + 1):
        inside = which == k
        if inside.sum() < 50:
            continue
        values = size[inside]
        tail = np.quantile(values, 0.99)
        sd = np.sqrt(np.mean(values[values <= tail] ** 2) / 0.92)
        centres.append(levels[inside].mean())
        limits.append(max(8 * sd, 3 * tail))
    step = np.diff(np.unique(frames[0].ravel()[:20000]))
    quantum = float(step[step > 0].min()) if (step > 0).any() else 0.0
    if not centres:
        return np.full_like(centre, np.inf)
    return interpolated(level, np.array(centres), np.array(limits)) + np.float32(3 * quantum)


def hot_pixels(mean: np.ndarray, limit: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """Return where (C, H, W) single pixels of the mean frame stand out of their neighbours without spreading to them,
    and their mean square.
    """
    need = limit * (0.8 if n > 1 else 1.0)
    apart = mean - ring_mean(mean, outer=3, inner=1)
    picked = np.flatnonzero(np.abs(apart) > 0.6 * need)[:200_000]
    hot = np.zeros(mean.shape, bool)
    if not picked.size:
        return hot, 0.0
    usual = np.median(_patches(mean, picked, 2), axis=1)
    value, most, least = _above_neighbours(mean, picked)
    some = _above_neighbours(mean, np.arange(0, mean.size, max(1, mean.size // 50_000)))
    texture = 4 * float(np.quantile(np.maximum(some[0] - some[1], 0), 0.998))
    limits = np.maximum(need.ravel()[picked], texture)
    up, down = value - most, least - value
    bright = (up > limits) & (up > 0.6 * (value - usual))
    cold = int(((down > limits) & (down > 0.6 * (usual - value))).sum())
    if bright.sum() <= 3 + 3 * cold:  # the picture has single pixels of its own, or there are too few to tell
        return hot, 0.0
    hot.ravel()[picked[bright]] = True
    return hot, float(np.sum((value - usual)[bright] ** 2) / mean.size)


def _above_neighbours(planes: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each pixel's value, the highest and the lowest of its eight neighbours; flat: (K,) indices into planes
    (C, H, W).
    """
    near = _patches(planes, flat, 1)
    others = np.sort(np.delete(near, 4, axis=1), axis=1)
    return near[:, 4], others[:, -1], others[:, 0]
