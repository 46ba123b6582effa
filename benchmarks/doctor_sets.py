"""Image sets with a planted defect, and clean ones, to test the doctor on.

The list of 60 defective and 40 clean sets is fixed. `SEED_TUNE` is for development; `SEED_REPORT` draws other crops,
noise, frames and outliers and is for the reported run only. The strength of a defect is found by simulation: it is
the one that moves the truth (pooled PSNR of a Gaussian blur, the best of five widths) or the error of the estimate
(`val/psnr_pairs` of that blur, docs/quality.md) by the number of dB that the list asks for. The weakest of each kind
asks for 0.3 dB. Copies and dead frames come in whole frames, so that their effect is only noted.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage import data

SEED_TUNE, SEED_REPORT = 11, 2024
BLURS = (0.6, 0.9, 1.3, 1.9, 2.7)  # px, the Gaussian blurs that stand for a denoiser
MARGIN = 12  # px around a crop, so that drift brings in real picture


@dataclass(frozen=True)
class Spec:
    """One generated set: what is planted, how strongly (dB), and the picture, noise and storage it is planted in."""

    kind: str | None
    target_db: float
    scene: str
    size: int
    depth: str  # u8, u16, f32
    noise: str  # g SIGMA | pg PEAK READ | p PEAK, in parts of the span; append "x" where frames differ in noise
    frames: int
    channels: int = 1
    scenes: int = 1
    variant: str = ""


@dataclass
class ImageSet:
    """A generated set: frames of each scene (N, H, W, C), and the planted truth."""

    spec: Spec
    scenes: list[np.ndarray]
    strength: float = 0.0
    effect_db: float = 0.0
    truth: dict = field(default_factory=dict)


def _s(kind, *rows):
    return [Spec(kind, *row[:6], **(row[6] if len(row) > 6 else {})) for row in rows]


DEFECTIVE = [
    *_s(
        "copy",
        (0.3, "moon", 192, "u8", "g 0.1", 12, {"variant": "1"}),
        (0.6, "cells", 256, "u16", "pg 40 0.02", 8, {"variant": "1"}),
        (1.2, "brick", 160, "f32", "g 0.1", 5, {"variant": "1"}),
        (2.5, "astronaut", 128, "u8", "g 0.06", 4, {"variant": "2", "channels": 3}),
        (5.0, "cells", 256, "u16", "pg 20 0.04", 6, {"variant": "twice"}),
    ),
    *_s(
        "shared_noise",
        (0.3, "camera", 320, "u16", "g 0.08", 5),
        (0.6, "cells", 256, "u8", "pg 60 0.02", 4),
        (1.2, "moon", 256, "f32", "g 0.1", 8),
        (2.5, "coffee", 192, "u8", "g 0.1", 4, {"channels": 3}),
        (5.0, "moon", 256, "u16", "pg 20 0.04", 3),
    ),
    *_s(
        "dead_frame",
        (0.3, "camera", 256, "u8", "g 0.06", 12, {"variant": "band"}),
        (0.6, "cells", 256, "u16", "pg 60 0.02", 8, {"variant": "dark_noise"}),
        (1.2, "coins", 192, "u8", "g 0.1", 6, {"variant": "constant"}),
        (2.5, "astronaut", 160, "f32", "g 0.1", 4, {"variant": "half", "channels": 3}),
        (5.0, "moon", 256, "u16", "pg 100 0.02", 3, {"variant": "black"}),
    ),
    *_s(
        "gain",
        (0.3, "camera", 256, "u16", "g 0.08", 6, {"variant": "bleach"}),
        (0.6, "cells", 384, "u16", "pg 40 0.02", 12, {"variant": "bleach"}),
        (1.2, "coins", 192, "u8", "g 0.08", 4, {"variant": "one"}),
        (2.5, "astronaut", 128, "f32", "g 0.1", 3, {"variant": "bleach", "channels": 3}),
        (5.0, "filaments", 256, "u8", "pg 60 0.02", 2, {"variant": "one"}),
    ),
    *_s(
        "offset",
        (0.3, "moon", 256, "u8", "g 0.05", 6, {"variant": "flicker"}),
        (0.6, "brick", 256, "u16", "g 0.1", 8, {"variant": "flicker"}),
        (1.2, "cells", 192, "u16", "pg 60 0.03", 5, {"variant": "one"}),
        (2.5, "coffee", 160, "u8", "g 0.06", 4, {"variant": "flicker", "channels": 3}),
        (5.0, "camera", 128, "f32", "g 0.08", 2, {"variant": "one"}),
    ),
    *_s(
        "shift",
        (0.3, "camera", 256, "u16", "g 0.08", 6, {"variant": "drift"}),
        (0.6, "cells", 256, "u16", "pg 60 0.02", 8, {"variant": "drift"}),
        (1.2, "grass", 192, "u8", "g 0.1", 4, {"variant": "one"}),
        (2.5, "astronaut", 192, "f32", "g 0.06", 5, {"variant": "drift", "channels": 3}),
        (5.0, "filaments", 256, "u8", "pg 100 0.02", 2, {"variant": "one"}),
    ),
    *_s(
        "outliers",
        (0.3, "camera", 256, "u16", "g 0.08", 6, {"variant": "15"}),
        (0.6, "cells", 256, "u16", "pg 40 0.03", 4, {"variant": "25"}),
        (1.2, "coins", 256, "u16", "pg 100 0.02", 5, {"variant": "hot 20"}),
        (2.5, "coffee", 192, "f32", "g 0.05", 3, {"variant": "40", "channels": 3}),
        (5.0, "moon", 192, "u16", "g 0.06", 2, {"variant": "60"}),
    ),
    *_s(
        "clipped",
        (0.3, "camera", 256, "u8", "g 0.1", 6),
        (0.6, "cells", 256, "u16", "pg 60 0.05", 4),
        (1.2, "filaments", 256, "u8", "g 0.12", 3),
        (2.5, "dark", 320, "f32", "g 0.1", 8),
        (5.0, "astronaut", 192, "u8", "g 0.1", 2, {"channels": 3}),
    ),
    *_s(
        "saturated",
        (0.3, "camera", 256, "u8", "g 0.08", 6),
        (0.6, "cells", 256, "u16", "pg 60 0.02", 4),
        (1.2, "page", 190, "u8", "g 0.1", 3),
        (2.5, "coffee", 192, "u8", "g 0.06", 8, {"channels": 3}),
        (5.0, "coins", 256, "f32", "g 0.08", 2),
    ),
    *_s(
        "correlated_noise",
        (0.3, "camera", 320, "u8", "g 0.08", 4, {"variant": "horizontal"}),
        (0.6, "cells", 256, "u16", "pg 60 0.02", 6, {"variant": "both"}),
        (1.2, "moon", 256, "f32", "g 0.08", 2, {"variant": "both"}),
        (2.5, "astronaut", 192, "u8", "g 0.1", 3, {"variant": "both", "channels": 3}),
        (5.0, "filaments", 256, "u16", "pg 10 0.05", 2, {"variant": "vertical"}),
    ),
    *_s(
        "lag",
        (0.3, "camera", 320, "u16", "g 0.08", 8, {"variant": "recursive"}),
        (0.6, "cells", 256, "u16", "pg 60 0.02", 6, {"variant": "mean"}),
        (1.2, "moon", 256, "u8", "g 0.08", 12, {"variant": "recursive"}),
        (2.5, "coffee", 160, "f32", "g 0.08", 5, {"variant": "mean", "channels": 3}),
        (5.0, "cells", 256, "u16", "pg 20 0.04", 4, {"variant": "recursive"}),
    ),
    *_s(
        "stripes",
        (0.3, "camera", 256, "u16", "g 0.08", 4, {"variant": "rows"}),
        (0.6, "cells", 256, "u16", "pg 60 0.02", 3, {"variant": "rows"}),
        (1.2, "coins", 192, "u8", "g 0.08", 6, {"variant": "columns"}),
        (2.5, "astronaut", 192, "f32", "g 0.08", 2, {"variant": "rows", "channels": 3}),
        (5.0, "dark", 256, "u16", "pg 60 0.03", 8, {"variant": "rows"}),
    ),
]

CLEAN = _s(
    None,
    (0, "camera", 96, "u8", "g 0.08", 2),
    (0, "camera", 512, "u8", "g 0.05", 4),
    (0, "coins", 256, "u8", "pg 60 0.02", 6),
    (0, "moon", 256, "u8", "g 0.03", 12),
    (0, "page", 190, "u8", "g 0.06", 5),
    (0, "brick", 320, "u8", "g 0.1", 3),
    (0, "grass", 256, "u8", "pg 100 0.03", 2, {"scenes": 4}),
    (0, "gravel", 160, "u8", "g 0.12", 8),
    (0, "astronaut", 256, "u8", "g 0.06", 4, {"channels": 3}),
    (0, "coffee", 200, "u8", "pg 100 0.02", 2, {"channels": 3, "scenes": 3}),
    (0, "chelsea", 128, "u8", "g 0.1", 6, {"channels": 3}),
    (0, "flat", 256, "u8", "g 0.05", 4),
    (0, "dark", 256, "u8", "pg 40 0.02", 5),
    (0, "cells", 192, "u8", "pg 20 0.04", 10),
    (0, "camera", 256, "u16", "g 0.08", 6),
    (0, "camera", 384, "u16", "pg 200 0.01", 2),
    (0, "cells", 512, "u16", "pg 30 0.02", 8),
    (0, "cells", 256, "u16", "p 10", 4),
    (0, "cells", 128, "u16", "p 50", 12),
    (0, "filaments", 256, "u16", "pg 60 0.02", 3),
    (0, "filaments", 384, "u16", "p 5", 2),
    (0, "dark", 256, "u16", "p 20", 6),
    (0, "dark", 512, "u16", "pg 100 0.01", 2),
    (0, "stars", 256, "u16", "pg 100 0.01", 6),
    (0, "flat", 320, "u16", "pg 500 0.01", 10),
    (0, "flat", 128, "u16", "p 40", 3),
    (0, "moon", 256, "u16", "pg 40 0.02 x", 6),
    (0, "brick", 192, "u16", "g 0.06 x", 5, {"scenes": 3}),
    (0, "coins", 96, "u16", "g 0.1", 4, {"scenes": 6}),
    (0, "retina", 256, "u16", "pg 100 0.02", 4, {"channels": 3}),
    (0, "camera", 256, "f32", "g 0.1", 2),
    (0, "cells", 256, "f32", "pg 60 0.03", 5),
    (0, "gravel", 256, "f32", "g 0.3", 8),
    (0, "moon", 320, "f32", "g 0.02", 3),
    (0, "grass", 192, "f32", "pg 30 0.02", 4),
    (0, "flat", 192, "f32", "g 0.1", 2),
    (0, "dark", 192, "f32", "g 0.05", 12),
    (0, "filaments", 256, "f32", "g 0.5", 6),
    (0, "astronaut", 128, "f32", "pg 60 0.02 x", 6, {"channels": 3}),
    (0, "checker", 160, "f32", "g 0.15", 2, {"scenes": 5}),
)


# ---- pictures ----


def _cells(rng: np.random.Generator, side: int, density: float, background: float) -> np.ndarray:
    """(side, side) float64 in [0, 1]: soft ellipses on a dark background."""
    x = np.full((side, side), background)
    yy, xx = np.mgrid[:side, :side]
    for _ in range(int(density * side * side / 400)):
        cy, cx, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(3, 12)
        rr = np.hypot((yy - cy) * rng.uniform(0.7, 1.4), xx - cx)
        x += rng.uniform(0.2, 0.8) / (1 + np.exp(np.minimum((rr - r) / 0.8, 50)))
    return np.clip(x, 0, 1)


def _filaments(rng: np.random.Generator, side: int) -> np.ndarray:
    x = np.zeros((side, side))
    for _ in range(side // 8):
        p, angle = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi)
        for _ in range(2 * side):
            angle += rng.normal(0, 0.06)
            p = p + 0.5 * np.array([np.sin(angle), np.cos(angle)])
            i, j = np.rint(p).astype(int)
            if 0 <= i < side and 0 <= j < side:
                x[i, j] = 1
    x = ndimage.gaussian_filter(x, 1.1)
    return 0.03 + 0.97 * np.clip(x / np.quantile(x, 0.995), 0, 1)


def picture(name: str, side: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side, channels) float64 in [0, 1]."""
    if name == "cells":
        return _cells(rng, side, 1.0, 0.05)[..., None]
    if name == "dark":
        return _cells(rng, side, 0.08, 0.02)[..., None]
    if name == "filaments":
        return _filaments(rng, side)[..., None]
    yy, xx = np.mgrid[:side, :side] / side
    if name == "flat":
        return (0.5 - 0.05 * ((yy - 0.5) ** 2 + (xx - 0.4) ** 2))[..., None]
    if name == "checker":
        return (0.2 + 0.6 * ((np.floor(yy * 8) + np.floor(xx * 8)) % 2))[..., None]
    if name == "stars":
        x = np.zeros((side, side))
        x[tuple(rng.integers(0, side, (2, side // 2)))] = rng.pareto(1.5, side // 2) + 0.3
        return np.clip(0.02 + 6 * ndimage.gaussian_filter(x, 1.0), 0, 1)[..., None]
    image = getattr(data, name)().astype(float)
    image = image[..., None] if image.ndim == 2 else image
    if min(image.shape[:2]) < side:
        image = np.pad(image, [(0, max(0, side - s)) for s in image.shape[:2]] + [(0, 0)], mode="reflect")
    top, left = (rng.integers(0, s - side + 1) for s in image.shape[:2])
    crop = image[top : top + side, left : left + side]
    crop = crop if channels == 3 else crop.mean(-1, keepdims=True)
    return np.clip((crop - crop.min()) / max(np.ptp(crop), 1), 0, 1)


# ---- noise ----


def storage(spec: Spec) -> tuple[float, float, float, float]:
    """Return black level, span, gain (variance per value) and read-out sd in stored values; noise of 4.5 sd stays
    inside the type.
    """
    kind, *numbers = spec.noise.replace(" x", "").split()
    loudest = 2.0 if spec.noise.endswith("x") else 1.0
    peak = float("inf") if kind == "g" else float(numbers[0])
    read = {"g": float(numbers[0]), "pg": float(numbers[-1]), "p": 0.0}[kind]
    if kind == "p" and spec.depth == "u16":  # photon counting: the counts themselves, without an offset
        return 0.0, peak, 1.0, 0.0
    below, above = 4.5 * loudest * read, 4.5 * loudest * (1 / peak + read**2) ** 0.5
    span = {"u8": 245 / (1 + below + above), "u16": 3000.0, "f32": 1.0}[spec.depth]
    black = {"u8": 5 + below * span, "u16": 300 + below * span, "f32": 0.0}[spec.depth]
    return black, span, span / peak, read * span


def _noisy(mean: np.ndarray, black: float, gain: float, read: float, rng: np.random.Generator) -> np.ndarray:
    """Return `mean` (stored values) with Poisson-Gaussian noise, not quantised."""
    out = rng.poisson(np.maximum(mean - black, 0) / gain) * gain + black if gain else mean.copy()
    return out + rng.normal(0, read, mean.shape) if read else out


def quantise(values: np.ndarray, depth: str) -> np.ndarray:
    if depth == "f32":
        return values.astype(np.float32)
    dtype = {"u8": np.uint8, "u16": np.uint16}[depth]
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


# ---- defects; `a` is the strength ----


def _means(spec: Spec, x: np.ndarray, black: float, a: float, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Return the noise-free frames (N, H, W, C) in stored values, of the scene x (with margin), and the truth."""
    n, m = spec.frames, MARGIN
    place, gains, offsets = np.zeros((n, 2)), np.ones(n), np.zeros(n)
    odd = int(rng.integers(0, n))
    angle = rng.uniform(0, 2 * np.pi)
    pattern = rng.normal(0, 1, n)
    pattern = (pattern - pattern.mean()) / pattern.std()
    if spec.kind == "gain":
        gains = np.linspace(1, 1 - a, n) if spec.variant == "bleach" else np.where(np.arange(n) == odd, 1 - a, 1.0)
    if spec.kind == "offset":
        offsets = (
            a * storage(spec)[1] * (pattern if spec.variant == "flicker" else np.where(np.arange(n) == odd, 1.0, 0.0))
        )
    if spec.kind == "shift":
        steps = np.linspace(0, 1, n) if spec.variant == "drift" else (np.arange(n) == odd).astype(float)
        place = a * steps[:, None] * np.array([np.sin(angle), np.cos(angle)])
    frames = []
    for k in range(n):
        moved = ndimage.shift(x, (*place[k], 0), order=5, mode="reflect") if place[k].any() else x
        frames.append(black + gains[k] * (moved[m:-m, m:-m] - black) + offsets[k])
    return np.stack(frames), {"gains": gains, "offsets": offsets, "shifts": place}


def _spatial(u: np.ndarray, variant: str, a: float) -> np.ndarray:
    """Return the white field u (H, W, C) filtered so that neighbours correlate; variance kept."""
    taps = np.array([a, 1, a]) / np.sqrt(1 + 2 * a * a)
    for axis, name in ((0, "vertical"), (1, "horizontal")):
        if variant in (name, "both"):
            u = ndimage.convolve1d(u, taps, axis=axis, mode="wrap")
    return u


def _reshape_noise(
    spec: Spec, noise: np.ndarray, sd: np.ndarray, a: float, rng: np.random.Generator
) -> tuple[np.ndarray, dict]:
    """Return the noise (N, H, W, C) with the planted correlation, and the truth."""
    n, u = spec.frames, noise / np.maximum(sd, 1e-9)
    first, second = rng.permutation(n)[:2]
    if spec.kind == "correlated_noise":
        return np.stack([_spatial(f, spec.variant, a) for f in u]) * sd, {
            "rho": 2 * a / (1 + 2 * a * a),
            "variant": spec.variant,
        }
    if spec.kind == "shared_noise":
        u[second] = a * u[first] + np.sqrt(1 - a * a) * u[second]
        return u * sd, {"pair": (int(first), int(second)), "rho": a}
    if spec.kind == "lag":
        if spec.variant == "recursive":
            for k in range(1, n):
                u[k] = a * u[k - 1] + np.sqrt(1 - a * a) * u[k]
            return u * sd, {"rho": a}
        u[1:] = (u[1:] + a * u[:-1]) / np.sqrt(1 + a * a)
        return u * sd, {"rho": a / (1 + a * a)}
    if spec.kind == "stripes":
        scale = a * float(np.sqrt(np.mean(sd**2)))
        shape = (n, noise.shape[1], 1, 1) if spec.variant == "rows" else (n, 1, noise.shape[2], 1)
        return noise + rng.normal(0, scale, shape), {"row_sd": scale}
    return noise, {}


def _afterwards(
    spec: Spec, frames: np.ndarray, means: np.ndarray, sd: float, a: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return frames and their noise-free means (N, H, W, C) after the defects of recording."""
    n, h, w, c = frames.shape
    black, span = storage(spec)[:2]
    if spec.kind == "outliers":
        amplitude = float(spec.variant.split()[-1]) * sd
        count = max(1, round(a * h * w))
        hot = rng.permutation(h * w)[:count]
        for k in range(n):
            frames[k].reshape(h * w, c)[hot if "hot" in spec.variant else rng.permutation(h * w)[:count]] += amplitude
        return frames, means, {"per_frame": count, "amplitude": amplitude}
    if spec.kind == "clipped":
        low = black + (a - 0.25) * span  # the level that becomes 0
        return np.maximum(frames - low, 0), means - low, {"cut": a}
    if spec.kind == "saturated":
        high = black + (1.2 - a) * span
        frames = np.minimum(frames, high)
        if spec.depth == "u8":  # fill the 8 bits
            frames, means = frames * 255 / high, means * 255 / high
        return frames, means, {"white": high}
    return frames, means, {}


def _replaced(spec: Spec, frames: np.ndarray, rng: np.random.Generator) -> dict:
    """Plant copies and dead frames in the quantised frames (N, H, W, C), in place; return the truth."""
    n, h = frames.shape[:2]
    order = [int(k) for k in rng.permutation(n)]
    black, span, _, read = storage(spec)
    if spec.kind == "copy":
        if spec.variant == "twice":
            frames[1::2] = frames[::2]
            return {"bad": list(range(1, n, 2))}
        bad = order[1 : 1 + int(spec.variant)]
        frames[bad] = frames[order[0]]
        return {"bad": bad}
    if spec.kind == "dead_frame":
        k = order[0]
        if spec.variant == "band":
            frames[k, h // 2 : h // 2 + h // 8] = 0
        elif spec.variant == "half":
            frames[k, : h // 2] = 0
        elif spec.variant == "dark_noise":
            frames[k] = quantise(rng.normal(black, read, frames[k].shape), spec.depth)
        else:
            frames[k] = quantise(
                np.full(frames[k].shape, black + 0.4 * span if spec.variant == "constant" else 0.0), spec.depth
            )
        return {"bad": [k]}
    return {}


def render(spec: Spec, x: np.ndarray, a: float, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return stored frames, noise-free means (N, H, W, C) and the truth of the picture x in [0, 1] (with margin)."""
    black, span, gain, read = storage(spec)
    rng, planted = np.random.default_rng([*seed, 1]), np.random.default_rng([*seed, 2])
    base = black + span * (x if gain == 0 or spec.depth != "u16" else np.maximum(x, 0.004))
    means, truth = _means(spec, base, black, a, planted)
    factors = 1 + 0.5 * (np.arange(spec.frames) % 3) if spec.noise.endswith("x") else np.ones(spec.frames)
    clean = np.stack([_noisy(m, black, gain, read, rng) for m in means])
    noise = (clean - means) * factors[:, None, None, None]
    sd = np.sqrt(gain * np.maximum(means - black, 0) + read**2)
    noise, more = _reshape_noise(spec, noise, sd, a, planted)
    frames, means, extra = _afterwards(spec, means + noise, means, float(np.sqrt(np.mean(sd**2))), a, planted)
    frames = quantise(frames, spec.depth)
    return frames, means, truth | more | extra | _replaced(spec, frames, planted)


# ---- strength by effect ----


def _scores(frames: np.ndarray, means: np.ndarray, sigma: float) -> tuple[float, float]:
    """Return the true MSE of a blur of width sigma and the MSE that pairs of frames estimate."""
    f = frames.astype(float)
    estimate = ndimage.gaussian_filter(f, (0, sigma, sigma, 0), mode="reflect")
    truth = float(np.mean((estimate - means) ** 2))
    n = len(f)
    if n == 2:
        pairs = np.mean((estimate - f[::-1]) ** 2) - 0.5 * np.mean((f[0] - f[1]) ** 2)
    else:  # the mean over all triples of (estimate_i - f_j) (estimate_i - f_k)
        others, squares = f.sum(0) - f, (f**2).sum(0) - f**2
        total = (n - 1) * estimate - others
        products = total**2 - ((n - 1) * estimate**2 - 2 * estimate * others + squares)
        pairs = np.mean(products) / ((n - 1) * (n - 2))
    return truth, max(float(pairs), truth * 1e-3)


def effect(spec: Spec, x: np.ndarray, a: float, seed: tuple[int, ...]) -> float:
    """Return the largest move in dB of the result or of the estimate's error that the strength `a` causes."""
    clean_spec = Spec(None, 0, *(getattr(spec, k) for k in ("scene", "size", "depth", "noise", "frames", "channels")))
    frames, means, _ = render(clean_spec, x, 0.0, seed)
    sigma = min(BLURS, key=lambda s: _scores(frames, means, s)[0])
    clean_truth, clean_pairs = _scores(frames, means, sigma)
    frames, means, truth = render(spec, x, a, seed)
    scale = 255 / truth["white"] if spec.kind == "saturated" and spec.depth == "u8" else 1.0
    true, pairs = (v / scale**2 for v in _scores(frames, means, sigma))
    moved_result = 10 * np.log10(true / clean_truth)
    moved_error = 10 * np.log10((pairs / true) / (clean_pairs / clean_truth))
    return float(max(abs(moved_result), abs(moved_error)))


LIMITS = {  # of the strength: the smallest and largest tried
    "shared_noise": (0.005, 0.98),
    "gain": (0.003, 0.6),
    "offset": (0.001, 0.5),
    "shift": (0.02, 9.0),
    "outliers": (1e-5, 0.02),
    "clipped": (0.01, 0.8),
    "saturated": (0.01, 0.95),
    "correlated_noise": (0.003, 0.7),
    "lag": (0.005, 0.8),
    "stripes": (0.01, 3.0),
}


def calibrate(spec: Spec, x: np.ndarray, seed: tuple[int, ...]) -> tuple[float, float]:
    """Return the strength whose effect is `spec.target_db`, by bisection in the logarithm, and its effect in dB."""
    if spec.kind not in LIMITS:
        return 1.0, effect(spec, x, 1.0, seed)
    low, high = np.log(LIMITS[spec.kind])
    for _ in range(11):
        middle = (low + high) / 2
        if effect(spec, x, float(np.exp(middle)), seed) < spec.target_db:
            low = middle
        else:
            high = middle
    a = float(np.exp(high))
    return a, effect(spec, x, a, seed)


def make(spec: Spec, seed: int) -> ImageSet:
    """Return the set that `spec` describes; `seed` draws crop, noise and places."""
    index = zlib.crc32(repr(spec).encode())
    a, moved, truth, scenes = 0.0, 0.0, {}, []
    for number in range(spec.scenes):
        key = (seed, index, number)
        x = picture(spec.scene, spec.size + 2 * MARGIN, spec.channels, np.random.default_rng(key))
        if spec.kind and number == 0:
            a, moved = calibrate(spec, x, key)
        frames, _, truth = render(spec, x, a, key)
        scenes.append(frames)
    return ImageSet(spec, scenes, a, moved, truth)
