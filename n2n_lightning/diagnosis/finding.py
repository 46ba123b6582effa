"""A finding, and how the size of an error is judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from n2n_lightning.diagnosis.examine import SceneMeasures

CHANCE = 1e-6  # a finding that chance alone explains more often than this is none
LEFT_OVER = 0.1  # share of the noise variance that a denoiser leaves, against which errors are judged
MOVING_RHO = 0.15  # of a moving scene: smaller correlations may be its picture's
HARM_DB = 0.2  # an error of the estimate that is worth a word
FATAL_DB = 10.0  # as large as the noise itself


@dataclass(frozen=True)
class Finding:
    """One finding. `effect_db`: by how much the error that a denoiser leaves (a tenth of the noise) seems or becomes
    larger; nan where not known.
    """

    # copy, dead_frame, stranger, shared_noise, gain, offset, shift, outliers, hot_pixels, clipped, saturated,
    # correlated_noise, lag, stripes, ...
    kind: str
    severity: str  # fatal, harmful, note
    scene: str  # "" for all
    frames: tuple[str, ...]
    value: float
    effect_db: float
    message: str
    settings: tuple[str, ...]  # what to set


def report(
    kind: str,
    severity: str,
    scene: SceneMeasures | None,
    text: str,
    value: float,
    *,
    frames: Iterable[int] = (),
    effect_db: float = float("nan"),
    settings: tuple[str, ...] = (),
) -> Finding:
    """Return a finding of one scene, or of all (None); frames: indices within the scene."""
    where = "" if scene is None else scene.name
    names = () if scene is None else tuple(scene.frames[k] for k in frames)
    return Finding(kind, severity, where, names, float(value), effect_db, text, settings)


def power(scene: SceneMeasures) -> float:
    """Return the mean square error that a good denoiser leaves: a tenth of the noise."""
    return LEFT_OVER * scene.noise.sd**2 if scene.noise and scene.noise.sd > 0 else float("inf")


def decibels(scene: SceneMeasures, energy: float) -> float:
    return float(10 * np.log10(1 + max(energy, 0) / max(power(scene), 1e-30)))


def graded(effect_db: float) -> str:
    return "fatal" if effect_db >= FATAL_DB else "harmful"


def chance(values: np.ndarray, errors: np.ndarray, free: int, tiles: int) -> float:
    """Return the probability that chance alone makes the values differ that much: `free` of them, standard errors
    from so many tiles.
    """
    squares = np.sum((values / np.maximum(errors, 1e-30)) ** 2)
    return float(stats.f.sf(squares / free, free, max(tiles - 1, 1)))


def moving(scene: SceneMeasures) -> bool:
    """Whether the frames lie so far apart that a rest of the picture is left in their differences."""
    if scene.shifts is None or scene.shifts.place is None:
        return False
    return float(np.ptp(np.array(scene.shifts.place), axis=0).max()) > 0.2 and shift_chance(scene) < CHANCE


def shift_chance(scene: SceneMeasures) -> float:
    """Return the probability that chance alone makes the places differ that much."""
    assert scene.shifts is not None
    place, error = np.array(scene.shifts.place), np.maximum(np.array(scene.shifts.error), 1e-3)
    return chance(place - place.mean(axis=0), error[:, None], 2 * (len(place) - 1), scene.shifts.tiles)
