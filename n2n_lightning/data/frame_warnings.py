"""Warn of noisy images of one scene that differ in brightness or in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from n2n_lightning.data.scenes import Scene
from n2n_lightning.diagnosis.compare import Floats, FrameComparison

GAIN_LIMIT = 0.03  # differences above these harm the result:
LEVEL_LIMIT = 0.25  # of the noise's standard deviation
SHIFT_LIMIT_PX = 0.3
ERRORS = 5.0  # standard errors that a difference must have too
SHOWN_FRAMES = 5

Compared = Sequence[tuple[Scene, list[int], FrameComparison]]  # scenes, and the frames of each that were compared


def level_warning(compared: Compared, advice: str) -> str | None:
    """Return a warning that names frames of another brightness than their scene's first one, with what to do."""

    def describe(one: FrameComparison, k: int) -> str:
        return f"gain {one.gain[k]:.2f}" if abs(one.gain[k] - 1) > GAIN_LIMIT else f"level {one.level[k]:+.3g}"

    words = worst_scene(compared, excess_of_levels, describe)
    return words and f"frames differ in brightness: {words}; {advice}"


def shift_warning(compared: Compared, advice: str) -> str | None:
    """Return a warning that names frames at another place than their scene's first one, with what to do."""

    def describe(one: FrameComparison, k: int) -> str:
        if k in one.apart:
            return "too far to be compared"
        down, right = one.place[k]
        return f"{abs(down):.1f} px {'down' if down > 0 else 'up'}, {abs(right):.1f} {'right' if right > 0 else 'left'}"

    words = worst_scene(compared, excess_of_shifts, describe)
    return words and f"frames are shifted: {words}; {advice}"


def worst_scene(
    compared: Compared, excess_of: Callable[[FrameComparison], Floats], describe: Callable[[FrameComparison, int], str]
) -> str | None:
    """Return the harmful frames of the scene where they harm most, and how many other scenes have some, as text."""
    found = [(excess_of(one), scene, frames, one) for scene, frames, one in compared]
    wrong = [item for item in found if (item[0] > 1).any()]
    if not wrong:
        return None
    excess, scene, frames, one = max(wrong, key=lambda item: item[0].max())
    more = f", and in {len(wrong) - 1} of {len(found) - 1} other scenes looked at" if len(wrong) > 1 else ""
    return list_frames(scene, frames, excess, lambda k: describe(one, k)) + more


def excess_of_levels(one: FrameComparison) -> Floats:
    """Return how large each frame's difference in gain or level is, (N,); above 1 it harms."""
    gain, level = np.abs(one.gain - 1), np.abs(one.level)
    gain[gain < ERRORS * np.hypot(one.gain_error, one.gain_error[0])] = 0
    level[level < ERRORS * np.hypot(one.level_error, one.level_error[0])] = 0
    excess: Floats = np.fmax(gain / GAIN_LIMIT, level / max(LEVEL_LIMIT * one.noise_sd, 1e-30))
    return np.nan_to_num(excess)


def excess_of_shifts(one: FrameComparison) -> Floats:
    """Return how large each frame's shift is, (N,); above 1 it harms."""
    shift = np.hypot(*one.place.T)
    shift[shift < ERRORS * np.hypot(one.place_error, one.place_error[0])] = 0
    excess: Floats = np.nan_to_num(shift / SHIFT_LIMIT_PX)
    excess[list(one.apart)] = np.inf
    return excess


def list_frames(scene: Scene, frames: list[int], excess: Floats, describe: Callable[[int], str]) -> str:
    """Return the names of the frames that harm, the first of many, each with what is wrong, against the first frame."""
    harmful = np.flatnonzero(excess > 1).tolist()
    pages = len({image.stack.name for image in scene.noisy}) == 1
    names = [f"page {image.number + 1}" if pages else image.name for image in scene.noisy]
    words = [f"{names[frames[k]]} ({describe(k)})" for k in harmful[:SHOWN_FRAMES]]
    more = [f"{len(harmful) - SHOWN_FRAMES} more"] if len(harmful) > SHOWN_FRAMES else []
    return f"{', '.join([*words, *more])} against {scene.noisy[frames[0]].name}"
