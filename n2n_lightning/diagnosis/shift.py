"""Shift of each frame against the others, to a tenth of a pixel under noise.

Coarse: cross-correlation (scikit-image) with a key frame. Fine: the frame and the mean of the others are taken for
one picture at two places, y(x) - r(x) = -d grad(s)(x), which is solved by least squares with the gradients of y and r
as instruments for each other, so that noise gives no bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from n2n_lightning.diagnosis.planes import gradients, tile_sums

BLUR_PX = 1.2
COARSE_BLUR_PX = 1.5
MAX_ERROR_PX = 0.15  # standard error from which on a place is not known


@dataclass(frozen=True)
class Shifts:
    """Place of each frame in px (row, column), relative to the first; None where the scene has too little structure."""

    place: tuple[tuple[float, float], ...] | None
    error: tuple[float, ...]  # standard error of each, the larger of the two directions
    tiles: int  # behind the standard errors
    # mean of (row^2, column^2, row*column) of the noise-free gradient, values squared per px^2
    gradient_energy: tuple[float, float, float]


def coarse_shifts(stack: np.ndarray) -> np.ndarray:
    """Return the integer place (N, 2) of each frame of (N, C, H, W) relative to the middle one; key frames follow a
    drift.
    """
    n = len(stack)
    small = ndimage.gaussian_filter(stack.mean(axis=1), (0, COARSE_BLUR_PX, COARSE_BLUR_PX))
    small -= small.mean(axis=(-2, -1), keepdims=True)
    places, middle = np.zeros((n, 2), int), n // 2
    for order in (range(middle + 1, n), range(middle - 1, -1, -1)):
        key, base, last = middle, np.zeros(2, int), np.zeros(2, int)
        for k in order:
            step = _coarse(small[key], small[k], last)
            places[k], last = base + step, step
            if np.abs(step).max() > min(small.shape[1:]) // 5:
                key, base, last = k, places[k].copy(), np.zeros(2, int)
    return places


def _coarse(reference: np.ndarray, moved: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the integer place of `moved` against `reference`, the likeliest of no shift, the one before and two
    correlations' peaks.
    """
    candidates = [np.zeros(2, int), near]
    taper = np.outer(np.hanning(len(moved)), np.hanning(moved.shape[1])).astype(np.float32)
    for normalization in (None, "phase"):
        found, _, _ = phase_cross_correlation(moved * taper, reference * taper, normalization=normalization)
        candidates.append(np.rint(found).astype(int))
    scores = [_mismatch(reference, moved, c) for c in candidates]
    best = int(np.argmin(scores))
    chance = np.sqrt(2 * 4 * np.pi * COARSE_BLUR_PX**2 / moved.size)  # of a mean square of blurred noise, relative
    if scores[best] >= (1 - max(0.02, 5 * chance)) * scores[0]:
        return candidates[0]
    around = [
        candidates[best] + np.array([y, x]) for y in (-1, 0, 1) for x in (-1, 0, 1)
    ]  # the taper draws the peak inwards
    return min(around, key=lambda c: _mismatch(reference, moved, c))


def _mismatch(reference: np.ndarray, moved: np.ndarray, place: np.ndarray) -> float:
    """Return the mean square difference of the parts that show the same, infinite where these are less than a third."""
    a, b = overlap(reference, moved, place)
    return float(np.var(a - b)) if a.size > 0.3 * moved.size else float("inf")


def overlap(a: np.ndarray, b: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of a and b (H, W) that show the same, where b's picture lies `place` px further down and
    right.
    """
    h, w = a.shape
    y, x = int(place[0]), int(place[1])
    return a[max(0, -y) : h - max(0, y), max(0, -x) : w - max(0, x)], b[
        max(0, y) : h + min(0, y), max(0, x) : w + min(0, x)
    ]


def aligned(stack: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames cut to what all show (M, C, h, w), and which frames (M,) those are; places: integers (N, 2).

    Frames that lie more than a quarter of the window away from the median place are left out.
    """
    middle = np.rint(np.median(places, axis=0)).astype(int)
    relative = places - middle
    kept = np.flatnonzero((np.abs(relative) <= np.array(stack.shape[-2:]) // 4).all(axis=1))
    low, high = relative[kept].min(axis=0), relative[kept].max(axis=0)
    h, w = stack.shape[-2] - (high[0] - low[0]), stack.shape[-1] - (high[1] - low[1])
    if not (high - low).any():
        return (stack if len(kept) == len(stack) else stack[kept]), kept
    cut = [stack[k, :, y : y + h, x : x + w] for k, (y, x) in zip(kept, relative[kept] - low, strict=True)]
    return np.stack(cut), kept


def fine_shifts(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], bool]:
    """Return places (N, 2), errors (N,), the gradient's energy, and whether there is structure enough.

    stack: (N, C, H, W) float32, levels matched, aligned to about a pixel. Places have zero mean.
    """
    places, errors, structured = _solve(stack)
    if structured and np.abs(places).max() > 0.25:
        more, errors, _ = _solve(moved_back(stack, places))
        places = places + more
    return places, errors, gradient_energy(stack), structured and float(np.median(errors)) < MAX_ERROR_PX


def moved_back(stack: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the frames (N, C, H, W) resampled at their places (N, 2), without the edges that are not known then."""
    back = np.empty_like(stack)
    for to, frame, d in zip(back, stack, places, strict=True):
        for k, plane in enumerate(frame):
            ndimage.shift(plane, -d, output=to[k], order=3, mode="nearest")
    edge = int(np.ceil(np.abs(places).max())) + 2
    return back[..., edge:-edge, edge:-edge]


def _solve(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return places (N, 2) of zero mean, their errors (N,) and whether there is structure enough, by one step of
    least squares.
    """
    n, pixels = len(stack), stack[0].size
    blurred = ndimage.gaussian_filter(stack, (0, 0, BLUR_PX, BLUR_PX), mode="nearest")
    total = blurred.sum(axis=0)
    places, errors, structured = np.zeros((n, 2)), np.zeros(n), []
    for k, frame in enumerate(blurred):
        others = (total - frame) / (n - 1)
        own, rest = np.stack(gradients(frame, 0)), np.stack(gradients(others, 0))
        both, difference = own + rest, frame - others
        difference = difference - difference.mean(axis=(-2, -1), keepdims=True)
        cross = np.einsum("ichw,jchw->ij", own, rest, dtype=np.float64) / pixels
        matrix = cross + cross.T
        chance = np.sqrt(
            np.mean(own**2) * np.mean(rest**2) * 10 / pixels
        )  # 10: pixels of a blurred frame are not independent
        strength, axes = np.linalg.eigh(matrix)
        seen = strength > 8 * chance  # of a grating, the shift along the lines cannot be seen
        structured.append(seen.any())
        if not seen.any():
            continue
        inverse = (axes[:, seen] / strength[seen]) @ axes[:, seen].T
        d = -inverse @ (both * difference).mean(axis=(1, 2, 3), dtype=np.float64)
        left = difference + np.tensordot(d, both, 1).astype(np.float32) / 2
        sums = tile_sums(both * left).reshape(2, -1) / pixels
        errors[k] = np.sqrt(np.diag(inverse @ (sums @ sums.T) @ inverse).max()) * (n - 1) / n
        places[k] = d * (n - 1) / n
    return places - places.mean(axis=0), errors, bool(np.mean(structured) > 0.5)


def gradient_energy(stack: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of (row^2, column^2, row*column) of the gradient of what the frames (N, C, H, W) share."""
    n = len(stack)
    some = stack[:: max(1, n // 8)]
    n = len(some)
    if n < 2:
        return (0.0, 0.0, 0.0)
    y, x = gradients(some, 0)

    def shared(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean(a.sum(0) * b.sum(0) - (a * b).sum(0)) / (n * (n - 1)))

    return max(shared(y, y), 0.0), max(shared(x, x), 0.0), shared(x, y)
