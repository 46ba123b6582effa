"""Frames against the first one: gain, level and place, with errors that say how sure they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from skimage import data

from n2n_lightning.diagnosis.compare import compare, compare_in_parts

Stack = npt.NDArray[np.float32]


def picture(size: int = 160) -> Stack:
    return data.camera()[100 : 100 + size, 100 : 100 + size].astype(np.float32) * 0.7 + 30


def noisy(frames: list[Stack], sd: float = 15, seed: int = 0) -> Stack:
    """(N, 1, H, W)"""
    rng = np.random.default_rng(seed)
    return np.stack([frame + rng.normal(0, sd, frame.shape) for frame in frames]).astype(np.float32)[:, None]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_gain_and_level_are_found(count: int):
    gains, offsets = np.linspace(1, 0.6, count), np.linspace(0, 12, count)
    stack = noisy([picture() * gain + offset for gain, offset in zip(gains, offsets, strict=True)])
    found = compare(stack, 0.35)
    assert found is not None and not found.odd and not found.apart
    assert np.abs(found.gain - gains).max() < 0.01 * (3 if count == 2 else 1)
    factor, summand = found.level_correction
    matched = stack.mean((1, 2, 3)) * factor + summand
    assert np.abs(matched - stack[0].mean()).max() < 0.5


def test_frames_that_are_alike_are_found_alike():
    found = compare(noisy([picture()] * 5), 0.35)
    assert found is not None
    assert np.abs(found.gain - 1).max() < 0.01 and np.abs(found.level).max() < 1 and np.abs(found.place).max() < 0.1
    assert found.noise_sd == pytest.approx(15, rel=0.05)


def test_places_are_found_to_a_fraction_of_a_pixel():
    places = np.array([(0, 0), (0.3, -0.4), (2.5, 1), (7, -3), (-4.2, 0)])
    frames = [ndimage.shift(picture(), place, order=3, mode="reflect") for place in places]
    found = compare(noisy(frames), 0.35)
    assert found is not None and np.abs(found.place - places).max() < 0.1


def test_a_flat_scene_has_levels_but_no_gain_and_no_place():
    found = compare(noisy([np.full((96, 96), level, np.float32) for level in (100, 100, 110)]), 0.35)
    assert found is not None and np.isnan(found.gain).all() and np.isnan(found.place).all()
    assert np.abs(found.level - (0, 0, 10)).max() < 1


@pytest.mark.parametrize("place", [0, 2])
def test_a_frame_without_the_picture_is_odd(place: int):
    frames = [picture()] * 5
    frames[place] = np.full_like(frames[place], 3)
    found = compare(noisy(frames), 0.35)
    assert found is not None and found.odd == (place,)
    others = np.delete(np.arange(5), place)
    assert np.abs(found.gain[others] - 1).max() < 0.01 and np.isnan(found.gain[place])


def test_many_frames_are_compared_in_parts():
    gains, steps = np.linspace(1, 0.7, 20), np.arange(20)
    frames = [np.roll(picture() * gain, (step, -step), (0, 1)) for gain, step in zip(gains, steps, strict=True)]
    frames[7] = np.zeros_like(frames[7])
    stack = noisy(frames)
    found = compare_in_parts(lambda numbers: stack[numbers], 20, 6, 0.35)
    assert found is not None and found.odd == (7,) and not found.apart
    known = np.delete(np.arange(20), 7)
    assert np.abs(found.gain - gains)[known].max() < 0.02
    assert np.abs(found.place - np.stack([steps, -steps], 1))[known].max() < 0.3


def test_images_that_are_too_small_are_not_compared():
    assert compare(noisy([picture(20)] * 3), 0.35) is None
