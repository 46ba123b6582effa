"""Findings about frames: copies, dead ones, levels, shift."""

from __future__ import annotations

import numpy as np

from n2n_lightning.diagnosis.examine import Findings, SceneMeasures
from n2n_lightning.diagnosis.finding import CHANCE, HARM_DB, Finding, chance, decibels, graded, report, shift_chance

SKIP, ALIGN = ("data.skip_bad=true",), ("data.align=true",)


def copies(scene: SceneMeasures) -> list[Finding]:
    """Report frames with the same pixels, and frames made from others."""
    found = []
    for group in scene.copies:
        first, *rest = (scene.frames[k] for k in group)
        text = (
            f"{', '.join(rest[:3])}{' and more' if len(rest) > 3 else ''}: the same pixels as {first}; leave "
            "the copies out"
        )
        found.append(report("copy", "fatal", scene, text, len(rest), frames=group, settings=SKIP))
    for k in scene.mixes:
        text = f"{scene.frames[k]} is made from other frames, as their mean: its noise is theirs"
        found.append(report("shared_noise", "fatal", scene, text, 1.0, frames=[k], settings=SKIP))
    if scene.shared > 0.9:
        text = f"the two frames share {100 * scene.shared:.0f} % of their noise: they come from one exposure"
        settings = ("data=single",)
        found.append(report("shared_noise", "fatal", scene, text, scene.shared, frames=scene.used, settings=settings))
    return found


def across(findings: Findings) -> list[Finding]:
    """Report frames of different scenes with the same pixels."""
    found = []
    scenes = dict(zip(findings.places, findings.scenes, strict=True))
    for group in findings.copies:
        first, *rest = (f"{scenes[s].name}/{scenes[s].frames[f]}" for s, f in group)
        text = f"{', '.join(rest[:3])}: the same pixels as {first} in another scene"
        found.append(Finding("copy", "harmful", "", (first, *rest), float(len(rest)), float("nan"), text, SKIP))
    return found


def dead(scene: SceneMeasures) -> list[Finding]:
    """Report frames that are black, constant or torn, that show something else, or that hold NaN."""
    found, count = [], len(scene.indices)
    if scene.dead:
        share = max(scene.values[scene.indices.index(k)].constant_rows for k in scene.dead)
        text = (
            f"{len(scene.dead)} of {count} frames have rows of a single value (up to {100 * share:.0f} %): "
            "black or torn"
        )
        found.append(report("dead_frame", "fatal", scene, text, share, frames=scene.dead, settings=SKIP))
    if scene.strangers:
        text = f"{len(scene.strangers)} of {count} frames do not show what the others show: dark, or another scene"
        found.append(report("dead_frame", "fatal", scene, text, 0.0, frames=scene.strangers, settings=SKIP))
    lost = [k for k, v in zip(scene.indices, scene.values, strict=True) if v.non_finite > 0]
    if lost:
        text = f"{len(lost)} of {count} frames hold NaN or infinite values"
        found.append(report("non_finite", "fatal", scene, text, len(lost), frames=lost, settings=SKIP))
    return found


def levels(scene: SceneMeasures) -> list[Finding]:
    """Report gain or level that differs from frame to frame."""
    measured = scene.levels
    if measured is None or scene.noise is None:
        return []
    n = len(measured.level)
    level, level_error = np.array(measured.level), np.array(measured.level_error)
    gain = np.ones(n) if measured.gain is None else np.array(measured.gain)
    gain_error = np.array(measured.gain_error)
    by_level = float(np.sum(level**2 - level_error**2)) / (n - 1)
    by_gain = (
        0.0
        if measured.gain is None
        else float(np.sum((gain - 1) ** 2 - gain_error**2)) / (n - 1) * measured.scene_variance
    )
    effect = decibels(scene, by_level + by_gain)
    sure_level, sure_gain = chance(level, level_error, n - 1, measured.tiles), 1.0
    if measured.gain is not None:
        sure_gain = chance(gain - 1, gain_error, n - 1, measured.tiles)
    if min(sure_level, sure_gain) > CHANCE or effect < HARM_DB:
        return []
    kind, size = "offset", float(np.ptp(level))
    text = f"the level changes from frame to frame: by {size:.4g}, {size / scene.noise.sd:.2f} of the noise sd"
    if sure_gain < CHANCE and by_gain > 0.03 * (by_gain + by_level):
        ratio = gain / gain[0]
        kind, size = "gain", float(np.abs(ratio - 1).max())
        text = (
            f"brightness changes from frame to frame: gain {ratio.min():.3f} to {ratio.max():.3f} of the first frame's"
        )
    worst, settings = [scene.used[int(np.argmax(np.abs(level)))]], ("data.match_levels=true",)
    return [report(kind, graded(effect), scene, text, size, frames=worst, effect_db=effect, settings=settings)]


def shifts(scene: SceneMeasures) -> list[Finding]:
    """Report frames that lie at different places."""
    if scene.shifts is None or scene.shifts.place is None or scene.levels is None:
        return []
    place = np.array(scene.shifts.place)
    centred = place - place.mean(axis=0)
    n = len(place)
    rows, columns, mixed = scene.shifts.gradient_energy
    energy = float(
        np.sum(centred[:, 0] ** 2 * rows + centred[:, 1] ** 2 * columns + 2 * centred[:, 0] * centred[:, 1] * mixed)
    ) / (n - 1)
    effect = decibels(scene, min(energy, 2 * scene.levels.scene_variance))
    far = np.hypot(*(place - place[0]).T)
    found = []
    if shift_chance(scene) < CHANCE and effect > HARM_DB and np.ptp(place, axis=0).max() > 0.05:
        text = f"the picture moves between frames: by up to {far.max():.2f} px from the first frame"
        worst, kind = [scene.used[int(np.argmax(far))]], graded(effect)
        found.append(report("shift", kind, scene, text, far.max(), frames=worst, effect_db=effect, settings=ALIGN))
    if scene.apart:
        most = float(np.hypot(*np.array(scene.drift).T).max())
        text = (
            f"{len(scene.apart)} of {len(scene.indices)} frames have moved too far to be compared: by up to "
            f"{most:.0f} px"
        )
        found.append(report("shift", "fatal", scene, text, most, frames=scene.apart, settings=ALIGN))
    return found
