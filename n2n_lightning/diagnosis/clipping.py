"""Noise that is cut off at the lowest value, told from counts of photons, which pile up there as well."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, special

from n2n_lightning.diagnosis.planes import by_brightness, ring_mean


def regions(mask: np.ndarray) -> np.ndarray:
    """Return the mask (C, H, W) without what is thinner than 5 px: masked-out regions stay, dark pixels that are at
    the lowest value by chance go.
    """
    return np.asarray(ndimage.binary_opening(mask, np.ones((1, 5, 5), bool)))


def clipping(stack: np.ndarray, at_lowest: np.ndarray, lowest: float) -> tuple[float, float]:
    """Return the bias (rms) that cutting off at the lowest value causes, and the noise variance there against that
    before cutting off.

    Counts of photons pile up at 0 too, but without a bias: their variance keeps to a line through the lowest value,
    and their share of zeros is exp(-mean^2 / variance); that of Gaussian noise cut off is smaller. 0.0, 1.0 for such
    counts.
    """
    kept = ~regions(np.all(at_lowest, axis=0))
    mean = stack.mean(axis=0)
    level = ring_mean(mean, outer=7, inner=1)[kept]
    v, share = by_brightness(level, stack.var(axis=0, ddof=1)[kept], 48)[1:]
    m, p = (by_brightness(level, a[kept], 48)[1] for a in (mean - lowest, at_lowest.mean(axis=0)))
    clear, piled = (p < 0.003) & (v > 0), p > 0.02
    if not piled.any():
        return 0.0, 1.0
    weight = (share * p)[piled]
    expected = cut_off_variance(m, p) if cut_by_shape(m, v, p, share) else _from_brighter(m, v, clear, piled, weight)
    if expected is None:
        return 0.0, 1.0
    deficit = float(np.average(v[piled] / expected[piled], weights=weight))
    t = -special.ndtri(np.clip(p, 1e-6, 1 - 1e-6))
    bias = np.sqrt(expected) * (_density(t) - t * special.ndtr(-t))
    return float(np.sqrt(np.sum(share * np.where(p > 1e-3, bias, 0) ** 2))), deficit


def _from_brighter(
    m: np.ndarray, v: np.ndarray, clear: np.ndarray, piled: np.ndarray, weight: np.ndarray
) -> np.ndarray | None:
    """Return the variance (K,) that the classes which nothing is cut off of (`clear`) lead to expect; None if all
    keeps to a line through 0.
    """
    if not clear.any():
        return None
    through = np.sum(m[clear] / v[clear]) / np.sum(m[clear] ** 2 / v[clear] ** 2)
    if np.average(v[piled] / (through * m[piled]), weights=weight) < 1.4:
        return None
    if clear.sum() < 4:
        return np.full_like(v, v[clear].min())
    dark = np.flatnonzero(clear)[: max(4, clear.sum() // 2)]
    slope = max(np.polyfit(m[dark], v[dark], 1, w=1 / v[dark])[0], 0.0)
    start = float(np.average(v[dark] - slope * m[dark], weights=1 / v[dark] ** 2))
    return np.asarray(np.maximum(slope * m + max(start, 0.0), 1e-30))


def _density(t: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-t * t / 2) / np.sqrt(2 * np.pi))


def cut_by_shape(m: np.ndarray, v: np.ndarray, p: np.ndarray, share: np.ndarray) -> bool:
    """Return whether the share p at the lowest value fits Gaussian noise cut off, rather than counts, of mean m above
    it and variance v; all (K,).
    """
    dark = (p > 0.1) & (v > 0)
    if not dark.any() or p[dark].max() < 0.15:
        return False
    t = np.linspace(-3, 6, 400)
    mean = _density(t) + t * special.ndtr(t)
    variance = (1 + t * t) * special.ndtr(t) + t * _density(t) - mean**2
    ratio = m[dark] ** 2 / v[dark]
    weights = (share * p)[dark]
    cut = np.average(p[dark] / np.interp(ratio, mean**2 / variance, special.ndtr(-t)), weights=weights)
    counts = np.average(p[dark] / np.exp(-ratio), weights=weights)
    return bool(counts < 0.88 and abs(np.log(cut)) < abs(np.log(counts)))


def cut_off_variance(mean: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the variance before cutting off of Gaussian noise that now has this mean above the lowest value and this
    share at it.
    """
    t = -special.ndtri(np.clip(share, 1e-6, 1 - 1e-6))
    return np.asarray((mean / np.maximum(_density(t) + t * special.ndtr(t), 1e-9)) ** 2)
