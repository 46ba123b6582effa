"""Findings about noise and single values: outliers, piles, correlation, stripes."""

from __future__ import annotations

import math

import numpy as np

from n2n_lightning.diagnosis.correlation import LAGS
from n2n_lightning.diagnosis.examine import Findings, SceneMeasures
from n2n_lightning.diagnosis.finding import MOVING_RHO, Finding, decibels, moving, report
from n2n_lightning.image_io.value_range import ValueSpan, covering_range

NOISE_SD = 5  # standard deviations by which noise takes values beyond the span


def outliers(scene: SceneMeasures) -> list[Finding]:
    """Report values far out, of single frames and of all, and what they do to the range."""
    measured, found = scene.outliers, []
    if measured is None:
        return []
    effect, hot_effect = decibels(scene, measured.energy), decibels(scene, measured.hot_energy)
    span = scene.span
    width, beyond = span.high - span.low, max(span.raw_high - span.high, span.low - span.raw_low)
    stretched = beyond > 0.5 * width and scene.noise is not None and beyond > 10 * scene.noise.sd
    advice = (f"data.range={ordinary_range(scene):.15g}",) if stretched else ()
    if effect > 0.1:
        count = sum(measured.by_frame)
        text = (
            f"{count} values in {len(measured.by_frame)} frames are far out ({1e6 * measured.share:.0f} per "
            "million): cosmic rays or a faulty read-out"
        )
        frames = [scene.used[k] for k in np.flatnonzero(measured.by_frame)][:10]
        settings, share = (*advice, "loss=l1"), measured.share
        found.append(
            report("outliers", "harmful", scene, text, share, frames=frames, effect_db=effect, settings=settings)
        )
    elif stretched and hot_effect <= 0.1:
        text = (
            f"a few values far out set the range: {span.raw_low:.6g} to {span.raw_high:.6g}, where "
            f"{span.low:.6g} to {span.high:.6g} holds all others"
        )
        found.append(report("outliers", "harmful", scene, text, beyond / max(width, 1e-30), settings=advice))
    if hot_effect > 0.1:
        text = f"{measured.hot} pixels stand out in all frames: hot pixels; they stay in the result and count as right"
        found.append(
            report("hot_pixels", "note", scene, text, measured.hot_share, effect_db=hot_effect, settings=advice)
        )
    return found


def ordinary_range(scene: SceneMeasures) -> float:
    """Return the range that holds all values that are not far out, their noise included."""
    assert scene.noise is not None and scene.picture is not None
    low, high, noise = scene.span.low, scene.span.high, scene.noise
    at_high = 0.0 if noise.gain is None or noise.intercept is None else noise.gain * high + noise.intercept
    reach = NOISE_SD * math.sqrt(max(noise.sd**2, at_high))
    has_integers = bool((scene.picture == np.rint(scene.picture)).all())
    values = ValueSpan(low - reach if low < 0 else 0, high + reach)
    return covering_range(values, np.dtype(np.int64 if has_integers else np.float64))


def piles(scene: SceneMeasures) -> list[Finding]:
    """Report values cut off at black or white."""
    p, found = scene.piles, []
    effect = decibels(scene, p.clip_bias**2)
    if p.clip_deficit < 0.85 and effect > 0.1:
        text = (
            f"noise is cut off at {p.lowest:g} ({100 * p.lowest_share:.2f} % of the values): dark places "
            "come out too bright; record with an offset"
        )
        found.append(report("clipped", "harmful", scene, text, p.lowest_share, effect_db=effect))
    share = p.highest_share + p.highest_always
    if share > 5e-4 and p.highest_stands_out > 4:
        text = (
            f"{100 * share:.2f} % of the values are at the highest one, {p.highest:g}: overexposed; the "
            "result is too dark there"
        )
        found.append(report("saturated", "harmful", scene, text, share))
    return found


def between(scene: SceneMeasures) -> list[Finding]:
    """Report noise that frames share."""
    t, found = scene.between, []
    if t is None:
        return []
    least = MOVING_RHO if moving(scene) else 0.01
    for i, k, rho in t.pairs:
        if rho < least:
            continue
        frames = (scene.used[i], scene.used[k])
        names = " and ".join(scene.frames[f] for f in frames)
        text = f"{names} share noise: correlation {rho:.3f}; they are not independent exposures"
        severity, settings = "fatal" if rho > 0.5 else "harmful", ("data.skip_bad=true",)
        found.append(report("shared_noise", severity, scene, text, rho, frames=frames, settings=settings))
    if t.lag and t.lag[0] > max(6 * t.lag_error, least):
        text = (
            f"the noise of successive frames is correlated, {t.lag[0]:.3f}: lag of the sensor, or a running "
            "mean; use every second frame"
        )
        severity = "fatal" if t.lag[0] > 0.5 else "harmful"
        found.append(report("lag", severity, scene, text, t.lag[0], settings=("data=single",)))
    return found


def neighbours(findings: Findings, source: str) -> list[Finding]:
    """Report noise that is correlated between neighbouring pixels, over all scenes."""
    scenes = [s for s in findings.scenes if s.spatial is not None and s.samples > 0]
    if not scenes:
        return []
    weights = np.array([s.samples for s in scenes], float)
    rho = np.array([s.spatial.rho for s in scenes if s.spatial is not None])
    striped = max((max(s.stripes.rows, s.stripes.columns) for s in scenes if s.stripes), default=0.0)
    floor = max(0.015, 0.3 * striped, MOVING_RHO if any(moving(s) for s in scenes) else 0.0)
    pooled = np.average(rho, axis=0, weights=weights)
    sure: list[tuple[float, np.ndarray, SceneMeasures | None]]
    sure = [(abs(pooled).max() - max(floor, 5.5 / np.sqrt(weights.sum())), pooled, None)]
    sure += [(abs(r).max() - max(floor, 6.5 / np.sqrt(w)), r, s) for r, w, s in zip(rho, weights, scenes, strict=True)]
    excess, worst, scene = max(sure, key=lambda t: t[0])
    if excess <= 0:
        return []
    k = int(np.argmax(np.abs(worst)))
    down, right = LAGS[k]
    text = (
        f"the noise of neighbouring pixels is correlated, {worst[k]:.2f} at {down} px down, {right} px right: "
        "harmless with frames, but data=single with its usual loss fails"
    )
    severity = "harmful" if source == "single" else "note"
    return [report("correlated_noise", severity, scene, text, worst[k], settings=("data=burst",))]


def neighbours_single(findings: Findings, source: str) -> list[Finding]:
    """Report the same for scenes of one frame, roughly."""
    rho = [s.spatial.rho for s in findings.scenes if s.spatial is not None and s.samples == 0]
    if not rho or np.abs(typical := np.median(rho, axis=0)).max() < 0.2:
        return []
    text = (
        f"the noise of neighbouring pixels seems correlated, about "
        f"{typical[np.argmax(np.abs(typical))]:.1f} in the flattest places: data=single with its usual loss fails"
    )
    severity = "harmful" if source == "single" else "note"
    settings = ("loss=noise2void", "loss.mask=auto") if source == "single" else ()
    return [report("correlated_noise", severity, None, text, np.abs(typical).max(), settings=settings)]


def lines(findings: Findings) -> list[Finding]:
    """Report rows or columns that share noise, over all scenes."""
    found = []
    scenes = [s for s in findings.scenes if s.stripes is not None]
    for name in ("rows", "columns"):
        if not scenes:
            break
        share = np.array([getattr(s.stripes, name) for s in scenes])
        error = np.array([max(getattr(s.stripes, name + "_error"), 1e-9) for s in scenes])
        mean = float(np.average(share, weights=1 / error**2))
        if mean > max(0.003, 6 / np.sqrt(np.sum(1 / error**2))):
            text = f"stripes: whole {name} share {100 * mean:.1f} % of the noise variance"
            found.append(report("stripes", "note", None, text, mean))
    return found
