"""Frames that are copies of each other, by their pixels, and pairs that share most of their noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from n2n_lightning.diagnosis.noise import CENTRE
from n2n_lightning.diagnosis.planes import ring_mean


def same_pixels(digests: Sequence[bytes]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of two or more indices whose digests are the same, in order."""
    groups: dict[bytes, list[int]] = {}
    for k, digest in enumerate(digests):
        groups.setdefault(digest, []).append(k)
    return tuple(tuple(g) for g in groups.values() if len(g) > 1)


def near_copy(first: np.ndarray, second: np.ndarray) -> float:
    """Return how much of their noise two frames (C, H, W) share, from 0 to 1, by the finest detail where there is
    least of it.

    Texture is shared too and counts, so that only large values mean anything. Pixels are chosen by the detail around
    them, not by their own.
    """
    both = np.stack([first, second, first - second])
    detail = np.stack([[ndimage.convolve(plane, CENTRE, mode="reflect") for plane in frame] for frame in both]) ** 2
    around = ring_mean(detail[0] + detail[1], outer=13, inner=5)
    changing = ndimage.uniform_filter(np.abs(first - second), (1, 5, 5)) > 0  # not what is cut off at black or white
    around = np.where(changing, around, np.inf)
    calm = around <= np.quantile(around[changing], 0.05) if changing.any() else changing
    if not calm.any():
        return 0.0
    alone, apart = (
        float(np.mean(d[d <= np.quantile(d, 0.8)])) for d in (detail[:2, calm].sum(axis=0), detail[2, calm])
    )
    return float(np.clip(1 - apart / alone, 0, 1)) if alone > 0 else 0.0
