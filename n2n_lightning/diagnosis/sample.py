"""Read the frames of a scene once, and keep what is measured on: one window of all frames, and a few numbers of each
whole frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

WINDOW_VALUES = 16_000_000  # values of all frames in the window, as float32 64 MB
BAND_VALUES = 16_000_000  # values read at a time from one frame
MAX_SIDE_PX = 768


@dataclass(frozen=True)
class FrameReader:
    """Frames of one scene and the way to read them.

    `read(frame, top, left, height, width)` returns (height, width, C) of any real type, as stored. `frames` names
    each frame.
    """

    name: str
    frames: tuple[str, ...]
    shape: tuple[int, int, int]  # height, width, channels
    read: Callable[[int, int, int, int, int], np.ndarray]


@dataclass(frozen=True)
class FrameValues:
    """What one whole frame holds: values as stored."""

    lowest: float
    highest: float
    mean: float
    digest: bytes  # of type, shape and pixels
    constant_rows: float  # share of the rows that hold one value only
    non_finite: float  # share of the values that are NaN or infinite


@dataclass(frozen=True)
class Sample:
    """What is kept of a scene: `stack` (N, C, h, w) float32, the window of all frames, as stored; NaN or infinite
    become the frame's mean.
    """

    scene: FrameReader
    indices: tuple[int, ...]  # of the frames that were read
    top: int
    left: int
    stack: np.ndarray
    values: tuple[FrameValues, ...]


def scene_of_array(name: str, frames: np.ndarray) -> FrameReader:
    """Return a scene of the frames (N, H, W, C) in memory."""
    names = tuple(f"frame {k}" for k in range(len(frames)))
    return FrameReader(
        name, names, frames.shape[1:], lambda k, top, left, h, w: frames[k, top : top + h, left : left + w]
    )


def take(scene: FrameReader, max_frames: int = 400) -> Sample:
    """Read the scene once; of more than `max_frames` frames, that many which follow each other in equal runs."""
    indices = chosen(len(scene.frames), max_frames)
    h, w, c = scene.shape
    side = int(np.sqrt(WINDOW_VALUES / (len(indices) * c)))
    height, width = min(h, side, MAX_SIDE_PX), min(w, side, MAX_SIDE_PX)
    top, left = place(scene, indices, height, width)
    stack = np.empty((len(indices), c, height, width), np.float32)
    values = []
    for n, k in enumerate(indices):
        if h * w * c <= BAND_VALUES:
            whole = np.asarray(scene.read(k, 0, 0, h, w))
            bands, window = iter([whole]), whole[top : top + height, left : left + width]
        else:
            bands, window = in_bands(scene, k), np.asarray(scene.read(k, top, left, height, width))
        values.append(frame_values(bands))
        stack[n] = np.nan_to_num(
            np.moveaxis(window.astype(np.float32), -1, 0),
            nan=values[-1].mean,
            posinf=values[-1].mean,
            neginf=values[-1].mean,
        )
    return Sample(scene, tuple(indices), top, left, stack, tuple(values))


def chosen(count: int, most: int) -> list[int]:
    """Return the indices of all frames, or of `most` in 8 runs of neighbours spread over them."""
    if count <= most:
        return list(range(count))
    run = most // 8
    return sorted({int(start) + k for start in np.linspace(0, count - run, 8) for k in range(run)})


def in_bands(scene: FrameReader, frame: int) -> Iterator[np.ndarray]:
    """Yield the rows of a large frame in bands (h, W, C)."""
    h, w, c = scene.shape
    rows = max(1, BAND_VALUES // (w * c))
    for top in range(0, h, rows):
        yield np.asarray(scene.read(frame, top, 0, min(rows, h - top), w))


def frame_values(bands: Iterator[np.ndarray]) -> FrameValues:
    """Return what a frame holds, from its bands of rows (h, W, C)."""
    digest = hashlib.blake2b(digest_size=16)
    lowest, highest, total, count, constant, rows, bad = np.inf, -np.inf, 0.0, 0, 0, 0, 0
    for band in bands:
        digest.update(f"{band.dtype.str}{band.shape}".encode())
        digest.update(np.ascontiguousarray(band).data)
        flat = band.reshape(len(band), -1)
        low, high = flat.min(axis=1), flat.max(axis=1)
        if band.dtype.kind == "f" and not np.isfinite(low.sum() + high.sum()):
            finite = np.isfinite(flat)
            bad += int(flat.size - finite.sum())
            flat = np.where(finite, flat, np.mean(flat[finite]) if finite.any() else 0.0)
            low, high = flat.min(axis=1), flat.max(axis=1)
        lowest, highest = min(lowest, float(low.min())), max(highest, float(high.max()))
        total, count = total + float(flat.sum(dtype=np.float64)), count + flat.size
        constant, rows = constant + int((low == high).sum()), rows + len(flat)
    return FrameValues(lowest, highest, total / count, digest.digest(), constant / rows, bad / count)


def place(scene: FrameReader, indices: list[int], height: int, width: int) -> tuple[int, int]:
    """Return top and left of the window with most structure, judged on up to three frames; in the middle where that
    is as good.
    """
    h, w, c = scene.shape
    if (height, width) == (h, w) or h * w * c > 4 * BAND_VALUES:
        return (h - height) // 2, (w - width) // 2
    block = 16
    coarse = []
    for k in sorted({indices[0], indices[len(indices) // 2], indices[-1]}):
        frame = np.nan_to_num(np.asarray(scene.read(k, 0, 0, h, w))[..., 0].astype(np.float32), posinf=0.0, neginf=0.0)
        cut = frame[: h // block * block, : w // block * block].reshape(h // block, block, w // block, block)
        coarse.append(np.median(cut, axis=(1, 3)))
    picture = np.median(coarse, axis=0)
    size = (max(1, height // block), max(1, width // block))
    local = ndimage.uniform_filter(picture**2, size) - ndimage.uniform_filter(picture, size) ** 2
    tops, lefts = np.linspace(0, h - height, 5).astype(int), np.linspace(0, w - width, 5).astype(int)
    scores = {
        (int(t), int(q)): float(
            local[
                min((t + height // 2) // block, local.shape[0] - 1), min((q + width // 2) // block, local.shape[1] - 1)
            ]
        )
        for t in tops
        for q in lefts
    }
    middle = (int(tops[2]), int(lefts[2]))
    best = max(scores, key=scores.__getitem__)
    return middle if scores[middle] > 0.5 * scores[best] else best
