"""Gain and offset of each frame against the others, unbiased by noise.

Frame i is y_i = g_i s + o_i + noise. The covariance of two frames is g_i g_j var(s), free of noise where the noises
are independent; so the gains are the loadings of a factor analysis with one factor, fitted to what is off the
diagonal. Two frames have one such number only; there a ring of neighbours stands in for a third frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from n2n_lightning.diagnosis.planes import TILE_PX, TILES, block_means, ring_mean, tile_sums, tiles_along

BLOCK = 3  # px, frames are averaged in blocks before they are compared


@dataclass(frozen=True)
class Levels:
    """Gain and level of each frame; the gains' mean is 1. `gain` is None where the scene is too flat to tell gain
    from offset.
    """

    gain: tuple[float, ...] | None
    gain_error: tuple[float, ...]  # standard errors
    level: tuple[float, ...]  # mean of each frame less the mean of all, values as stored
    level_error: tuple[float, ...]
    scene_variance: float  # of the picture without noise, in blocks
    mean: float  # of all frames
    tiles: int  # behind the standard errors


def measure_levels(stack: np.ndarray) -> Levels:
    """Measure the levels of the frames (N, C, H, W) float32, aligned to a pixel; N >= 2."""
    n = len(stack)
    blocks = block_means(stack, BLOCK if min(stack.shape[-2:]) >= TILES * TILE_PX * BLOCK else 1)
    means = blocks.reshape(n, -1).mean(axis=1)
    centred = blocks - blocks.mean(axis=(-2, -1), keepdims=True)  # colours differ in level; that is no structure
    gains, variance, certain = loadings(centred)
    picture = np.tensordot(gains, centred, 1) / np.sum(gains**2)
    instrument = ring_of(centred) if n == 2 else picture
    residual = centred - gains[:, None, None, None] * picture
    pixels = picture.size
    strength = abs(float((instrument * picture).mean())) if n == 2 else variance
    gain_error = np.sqrt((tile_sums(residual * instrument) ** 2).sum(axis=(-2, -1))) / pixels / max(strength, 1e-30)
    level = means - means.mean()
    deviation = blocks - means[:, None, None, None] - (blocks - means[:, None, None, None]).mean(axis=0)
    sums = tile_sums(deviation)  # stripes make the tiles of a row, or of a column, differ together
    spread = [
        (sums**2).sum(axis=(-2, -1)),
        (sums.sum(axis=-1) ** 2).sum(axis=-1),
        (sums.sum(axis=-2) ** 2).sum(axis=-1),
    ]
    level_error = np.sqrt(np.max(spread, axis=0)) / pixels
    scale = np.sqrt(n / (n - 1))  # residuals against a mean that holds the frame itself are too small
    known = certain and float(np.median(gain_error)) < 0.1
    return Levels(
        tuple(map(float, gains)) if known else None,
        tuple(map(float, gain_error * scale)),
        tuple(map(float, level)),
        tuple(map(float, level_error * scale)),
        float(variance),
        float(means.mean()),
        tiles_along(blocks.shape[-2]) * tiles_along(blocks.shape[-1]),
    )


def loadings(centred: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Return gains (N,) of mean 1, the scene's variance, and whether it stands out of the noise; centred: (N, C, H,
    W).
    """
    n = len(centred)
    if n == 2:
        return ring_loadings(centred)
    flat = centred.reshape(n, -1)
    covariance = flat @ flat.T / flat.shape[1]
    off = covariance - np.diag(np.diag(covariance))
    gains = np.ones(n)
    for _ in range(50):
        gains = off @ gains / np.maximum(np.sum(gains**2) - gains**2, 1e-12)
        total = abs(gains.sum())
        gains = gains * n / total if total > 0 else np.ones(n)
    products = np.outer(gains, gains)
    np.fill_diagonal(products, 0)
    variance = float((off * products).sum() / max((products**2).sum(), 1e-12))
    chance = float(np.mean(np.diag(covariance))) / np.sqrt(flat.shape[1] * n * (n - 1) / 2)
    return gains, variance, bool(off.sum() / (n * (n - 1)) > 6 * chance and variance > 6 * chance)


def ring_loadings(centred: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Return the same for two frames (2, C, H, W), with the ring of neighbours in both frames as the third."""
    ring = ring_of(centred)
    with_ring = np.array([(frame * ring).mean() for frame in centred])
    variance = float((centred[0] * centred[1]).mean())
    chance = np.sqrt((centred[0] ** 2).mean() * (centred[1] ** 2).mean() / centred[0].size)
    total = with_ring.sum()
    if total <= 0:
        return np.ones(2), variance, False
    return 2 * with_ring / total, variance, bool(variance > 6 * chance)


def ring_of(centred: np.ndarray) -> np.ndarray:
    """Return the mean of the neighbours (C, H, W) in both of two frames (2, C, H, W)."""
    return np.asarray(ring_mean(centred.sum(axis=0, keepdims=True), outer=5)[0])


def matched(stack: np.ndarray, levels: Levels) -> np.ndarray:
    """Return the frames (N, C, H, W) float32 at one common gain and level."""
    n = len(stack)
    gains = np.ones(n) if levels.gain is None else np.asarray(levels.gain)
    gains = np.where(np.abs(gains) < 0.2, 1.0, gains)
    means = levels.mean + np.asarray(levels.level)
    scale = (1 / gains).astype(np.float32).reshape(n, 1, 1, 1)
    return stack * scale + (levels.mean - means / gains).astype(np.float32).reshape(n, 1, 1, 1)
