"""Compare the frames of a scene with its first one: gain, level and place of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from n2n_lightning.diagnosis.levels import matched, measure_levels
from n2n_lightning.diagnosis.shift import aligned, coarse_shifts, fine_shifts

Floats = npt.NDArray[np.float64]
Stack = npt.NDArray[np.float32]

MIN_SIDE_PX = 32  # smaller frames hold too little to compare
GAIN_ERRORS = 5.0  # standard errors that the gain of an odd frame is below what is allowed


@dataclass(frozen=True)
class FrameComparison:
    """How N frames of a scene differ from the first: frame = gain * first + offset, and its picture is moved.

    NaN stands for what is not known: all gains of a flat scene, all places of a scene without structure, and
    everything of the frames in ``odd`` and ``apart``.
    """

    gain: Floats  # (N,)
    gain_error: Floats  # (N,) standard errors
    offset: Floats  # (N,) values as stored; where the gain is not known, with a gain of 1
    level: Floats  # (N,) mean less that of the first frame
    level_error: Floats  # (N,)
    place: Floats  # (N, 2) how far the picture lies down and right of the first frame's, px
    place_error: Floats  # (N,)
    noise_sd: float
    odd: tuple[int, ...] = ()  # frames that do not show what the others show
    apart: tuple[int, ...] = ()  # frames too far from the others to be compared

    @property
    def level_correction(self) -> tuple[Floats, Floats]:
        """Factor and summand (N,) that bring each frame's values to the level of the first; 1 and 0 if unknown."""
        gain = np.where(np.isnan(self.gain), 1.0, self.gain)
        return 1 / gain, -np.nan_to_num(self.offset) / gain


def compare(stack: Stack, least_gain: float) -> FrameComparison | None:
    """Compare frames (N, C, H, W) of one scene, N >= 2, values as stored; return None where they are too small.

    Args:
        stack: the frames.
        least_gain: a frame is odd if its gain is below this part of the median; of two frames none is.
    """
    if min(stack.shape[-2:]) < MIN_SIDE_PX:
        return None
    odd: list[int] = []
    while True:
        used = [k for k in range(len(stack)) if k not in odd]
        found = _compare_alike(stack[used], used, len(stack))
        if len(used) < 3 or np.isnan(found.gain).all():
            break
        limit = least_gain * float(np.nanmedian(found.gain))
        strange = np.flatnonzero(found.gain + GAIN_ERRORS * found.gain_error < limit).tolist()
        if not strange or len(used) - len(strange) < 2:
            break
        odd += strange
    return replace(found, odd=tuple(sorted(odd)))


def _compare_alike(stack: Stack, used: Sequence[int], count: int) -> FrameComparison:
    """Compare frames (K, C, H, W) that show the same; they are the frames ``used`` of ``count``."""
    places = coarse_shifts(stack)
    for _ in range(2):
        cut, kept = aligned(stack, places)
        if len(kept) < 2 or kept[0] != 0:
            return _not_compared(count, apart=tuple(used[1:]))
        levels = measure_levels(cut)
        same = matched(cut, levels)
        fine, error, _, structured = fine_shifts(same)
        total = places[kept] + fine
        if not structured or (np.rint(total) == places[kept]).all():
            break
        places[kept] = np.rint(total).astype(int)
    found = _not_compared(count, apart=tuple(used[k] for k in range(len(stack)) if k not in kept))
    at = [used[k] for k in kept]
    gain = np.ones(len(at)) if levels.gain is None else np.array(levels.gain) / levels.gain[0]
    mean = levels.mean + np.array(levels.level)
    if levels.gain is not None:
        found.gain[at] = gain
    found.gain_error[at] = levels.gain_error
    found.offset[at] = mean - gain * mean[0]
    found.level[at], found.level_error[at] = mean - mean[0], levels.level_error
    if structured:
        found.place[at], found.place_error[at] = total - total[0], error
    variance = ((same - same.mean(0)) ** 2).mean(dtype=np.float64) * len(same) / (len(same) - 1)
    return replace(found, noise_sd=float(np.sqrt(variance)))


def _not_compared(count: int, apart: tuple[int, ...]) -> FrameComparison:
    gain, gain_error, offset, level, level_error, place_error = np.full((6, count), np.nan)
    place = np.full((count, 2), np.nan)
    return FrameComparison(gain, gain_error, offset, level, level_error, place, place_error, np.nan, apart=apart)


def compare_in_parts(
    read: Callable[[list[int]], Stack], count: int, at_once: int, least_gain: float
) -> FrameComparison | None:
    """Compare any number of frames as ``compare`` does, with few of them in memory.

    Args:
        read: returns the frames of these numbers, (N, C, H, W).
        count: number of frames.
        at_once: number of frames in memory, 3 or more.
        least_gain: see ``compare``.
    """
    whole = compare(read(list(range(min(at_once, count)))), least_gain)
    while whole is not None and len(whole.gain) < count:
        done = len(whole.gain)
        anchor = int(np.flatnonzero(~np.isnan(whole.level))[-1]) if not np.isnan(whole.level).all() else 0
        numbers = [anchor, *range(done, min(done + at_once - 1, count))]
        part = compare(read(numbers), least_gain)
        assert part is not None
        whole = _joined(whole, part, numbers)
    return whole


def _joined(whole: FrameComparison, part: FrameComparison, numbers: list[int]) -> FrameComparison:
    """Return the comparison of all frames so far; the first of ``part``'s frames is known in ``whole``."""
    anchor = numbers[0]
    factor = np.where(np.isnan(part.gain), 1.0, part.gain)
    chained = replace(
        part,
        gain=part.gain * whole.gain[anchor],
        offset=part.offset + factor * whole.offset[anchor],
        level=part.level + whole.level[anchor],
        place=part.place + whole.place[anchor],
    )
    names = ("gain", "gain_error", "offset", "level", "level_error", "place", "place_error")
    arrays: dict[str, Any] = {n: np.concatenate([getattr(whole, n), getattr(chained, n)[1:]]) for n in names}
    odd, apart = (
        (*getattr(whole, name), *(numbers[k] for k in getattr(part, name) if k > 0)) for name in ("odd", "apart")
    )
    return replace(whole, **arrays, odd=odd, apart=apart)
