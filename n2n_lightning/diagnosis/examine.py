"""Examine scenes: run all measures on a bounded sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from n2n_lightning.diagnosis import correlation, noise, shift, temporal
from n2n_lightning.diagnosis.copies import near_copy, same_pixels
from n2n_lightning.diagnosis.levels import Levels, matched, measure_levels
from n2n_lightning.diagnosis.planes import tiles_along
from n2n_lightning.diagnosis.sample import FrameReader, FrameValues, Sample, take
from n2n_lightning.diagnosis.values import Outliers, Piles, Span, find_outliers, measure_piles, supported_span

FULL_SCENES = 24  # examined in full; of more scenes, that many spread over them
MIN_SIDE_PX = 16  # smaller frames hold too little to measure
NOISE_FRAMES = 40  # neighbouring frames on which noise and correlation are measured


@dataclass(frozen=True)
class SceneMeasures:
    """What was measured of one scene; None where it has too few frames. Indices of frames count within the scene."""

    name: str
    frames: tuple[str, ...]
    indices: tuple[int, ...]  # frames that were read
    values: tuple[FrameValues, ...]  # of each of these
    dead: tuple[int, ...]
    strangers: tuple[int, ...]  # frames that do not show what the others show
    mixes: tuple[int, ...]  # frames that are made from others, as their mean
    copies: tuple[tuple[int, ...], ...]
    used: tuple[int, ...]  # frames on which levels, shifts and outliers were measured
    apart: tuple[int, ...]  # frames that have drifted too far to be compared
    piles: Piles
    span: Span
    # place in whole px (row, column) against the first, of `used` and `apart` together, by rising index
    drift: tuple[tuple[int, int], ...] = ()
    levels: Levels | None = None
    shifts: shift.Shifts | None = None
    noise: noise.NoiseFit | None = None
    spatial: correlation.Spatial | None = None
    stripes: correlation.Stripes | None = None
    between: temporal.Temporal | None = None
    outliers: Outliers | None = None
    shared: float = 0.0  # of two frames: how much of their noise is the same
    samples: int = 0  # independent noise values behind `spatial`
    picture: np.ndarray | None = None  # (H, W), the part of the first good frame that was examined, first channel
    residual: np.ndarray | None = None  # (H, W), its noise: the mean of all frames is taken off


@dataclass(frozen=True)
class Findings:
    """All that was measured. `copies`: frames with the same pixels in different scenes, as (scene, frame)."""

    scenes: tuple[SceneMeasures, ...]
    copies: tuple[tuple[tuple[int, int], ...], ...]
    places: tuple[int, ...]  # of the measured scenes among all
    scene_count: int


def examine(
    scenes: Sequence[FrameReader], progress: Callable[[int, int], None] | None = None, max_frames: int = 400
) -> Findings:
    """Measure the scenes, of more than 24 a spread of 24; progress(done, total) is called after each."""
    places = sorted({int(k) for k in np.linspace(0, len(scenes) - 1, min(FULL_SCENES, len(scenes)))})
    measured, digests, owners = [], [], []
    for done, k in enumerate(places):
        result = examine_scene(scenes[k], max_frames)
        measured.append(result)
        digests += [v.digest for v in result.values]
        owners += [(k, index) for index in result.indices]
        if progress:
            progress(done + 1, len(places))
    across = [tuple(owners[m] for m in group) for group in same_pixels(digests)]
    return Findings(tuple(measured), tuple(g for g in across if len({s for s, _ in g}) > 1), tuple(places), len(scenes))


def examine_scene(scene: FrameReader, max_frames: int = 400) -> SceneMeasures:
    """Measure one scene."""
    sample = take(scene, max_frames)
    index = sample.indices
    dead = dead_frames(sample)
    groups = same_pixels([v.digest for v in sample.values])
    copied = {k for group in groups for k in group[1:]}
    good = [k for k in range(len(index)) if k not in dead and k not in copied]
    stack = sample.stack[good] if good else sample.stack
    empty = SceneMeasures(
        name=scene.name,
        frames=scene.frames,
        indices=index,
        values=sample.values,
        dead=tuple(index[k] for k in dead),
        strangers=(),
        mixes=(),
        copies=tuple(tuple(index[k] for k in g) for g in groups if not set(g) & set(dead)),
        used=tuple(index[k] for k in good),
        apart=(),
        piles=measure_piles(stack),
        span=supported_span(stack, raw_span(sample, good)),
        picture=stack[0, 0],
    )
    if not good or min(scene.shape[:2]) < MIN_SIDE_PX:
        return empty
    return single(sample, good[0], empty) if len(good) == 1 else several(sample, good, empty)


def raw_span(sample: Sample, good: Sequence[int]) -> tuple[float, float]:
    """Return the lowest and highest value of the whole frames."""
    some = [sample.values[k] for k in good] or list(sample.values)
    return min(v.lowest for v in some), max(v.highest for v in some)


def dead_frames(sample: Sample) -> list[int]:
    """Return the frames, as places in the sample, of which rows hold one value only where the others' do not."""
    share = np.array([v.constant_rows for v in sample.values])
    usual = float(np.median(share)) if len(share) > 2 else float(share.min())
    chance = 5 * np.sqrt(max(usual * (1 - usual), 1e-9) / sample.scene.shape[0])
    if usual > 0.999:
        return list(range(len(share)))
    return [int(k) for k in np.flatnonzero((share > 0.999) | (share - usual > max(0.05, chance)))]


def single(sample: Sample, frame: int, empty: SceneMeasures) -> SceneMeasures:
    """Measure what one frame tells."""
    stack = sample.stack[[frame]]
    outliers, _ = find_outliers(stack)
    held = within(stack[0], empty.span)
    found = noise.single_noise(held)
    return replace(empty, noise=found, spatial=correlation.flat_patches(held), outliers=outliers, samples=0)


def several(sample: Sample, good: list[int], empty: SceneMeasures) -> SceneMeasures:
    """Measure two or more frames: their place, levels, outliers, noise and correlation."""
    raw = sample.stack[good]
    held = within(raw, empty.span)
    places = shift.coarse_shifts(held)
    cut, kept = shift.aligned(held, places)
    levels = measure_levels(cut)
    strange = strangers(cut, levels)
    mix = temporal.dependent(cut) if not strange else None
    odd = [good[int(kept[k])] for k in (strange or ([] if mix is None else [mix]))]
    if odd and len(kept) - len(odd) >= 2:
        rest = [k for k in good if k not in odd]
        again = several(sample, rest, replace(empty, used=tuple(sample.indices[k] for k in rest)))
        named = tuple(sample.indices[k] for k in odd)
        return (
            replace(again, strangers=again.strangers + named) if strange else replace(again, mixes=again.mixes + named)
        )
    if len(kept) < 2:
        return empty
    fine, error, energy, structured = shift.fine_shifts(matched(cut, levels))
    total = places[kept] + fine
    better = np.rint(total).astype(int)
    if structured and (better != places[kept]).any():
        places = places.copy()
        places[kept] = better
        cut, kept = shift.aligned(held, places)
        levels = measure_levels(cut)
        fine, error, energy, structured = shift.fine_shifts(matched(cut, levels))
        total = places[kept] + fine
    if structured and np.abs(fine).max() > 0.1:
        levels = measure_levels(shift.moved_back(cut, fine))
    relative = total - total[0]
    tiles = tiles_along(cut.shape[-2]) * tiles_along(cut.shape[-1])
    moved = shift.Shifts(
        tuple((float(y), float(x)) for y, x in relative) if structured else None,
        tuple(map(float, error)),
        tiles,
        energy,
    )
    outliers, clean = cleaned(raw, cut, places, levels)
    used = tuple(empty.used[int(k)] for k in kept)
    apart = tuple(k for k in empty.used if k not in used)
    drift = tuple((int(y), int(x)) for y, x in places - places[0])
    found = replace(
        empty,
        used=used,
        apart=apart,
        drift=drift,
        levels=levels,
        shifts=moved,
        outliers=outliers,
        piles=measure_piles(shift.aligned(raw, places)[0]),
    )
    return with_noise(clean, found, fine if structured else None)


def within(stack: np.ndarray, span: Span) -> np.ndarray:
    """Return the frames with values far outside the span brought to half of its width outside it, so that single ones
    cannot spoil the measures.
    """
    margin = 0.5 * (span.high - span.low)
    return np.clip(stack, span.low - margin, span.high + margin) if margin > 0 else stack.copy()


def cleaned(raw: np.ndarray, cut: np.ndarray, places: np.ndarray, levels: Levels) -> tuple[Outliers, np.ndarray]:
    """Return the outliers of the raw frames (N, C, H, W), and the aligned frames of one level without them."""
    flat = matched(shift.aligned(raw, places)[0], levels)
    outliers, where = find_outliers(flat)
    flat = matched(cut, levels)
    if not where.any():
        return outliers, flat
    centre = np.median(flat[: min(len(flat), 15)], axis=0) if len(flat) > 2 else flat.mean(axis=0)
    return outliers, np.where(where, ndimage.median_filter(centre, (1, 3, 3)), flat)


def strangers(cut: np.ndarray, levels: Levels) -> list[int]:
    """Return the frames that do not show the picture that the others show."""
    if levels.gain is None or len(cut) < 3:
        return []
    gains, errors = np.array(levels.gain), np.array(levels.gain_error)
    usual = np.median(gains)
    return [int(k) for k in np.flatnonzero(gains + 5 * errors < 0.35 * usual)]


def with_noise(clean: np.ndarray, found: SceneMeasures, place: np.ndarray | None) -> SceneMeasures:
    """Add noise and correlations, from frames of one level without outliers (N, C, H, W), aligned to the pixel and
    `place` (N, 2) px off.
    """
    clean, place = clean[:NOISE_FRAMES], None if place is None else place[:NOISE_FRAMES]
    mean, residual = clean.mean(axis=0), correlation.without_picture(clean, place)
    found = replace(found, residual=residual[0, 0].copy())
    measured = noise.measure_noise(mean, residual, (found.piles.lowest, found.piles.highest))
    if measured.sd <= 0:
        return replace(found, noise=measured)
    sd = noise.local_sd(mean, measured)
    residual /= sd
    near = correlation.spatial(residual)
    lines = correlation.stripes(residual)
    squares = 1 + 2 * sum(max(r * r - near.error**2, 0) for r in near.rho)
    squares += residual.shape[-1] * lines.rows**2 + residual.shape[-2] * lines.columns**2
    detail = (
        noise.detail_variances((clean - ndimage.gaussian_filter(mean, (0, 2, 2))) / sd, near.rho)
        if len(clean) in (3, 4)
        else None
    )
    between = temporal.temporal(residual, squares, detail)
    shared = near_copy(clean[0], clean[1]) if len(clean) == 2 else 0.0
    used = min(len(clean), 8)
    samples = (used - (used == len(clean))) * clean[0].size
    return replace(found, noise=measured, spatial=near, stripes=lines, between=between, shared=shared, samples=samples)
