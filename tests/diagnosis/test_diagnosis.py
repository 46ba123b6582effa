"""Measures against simulated truth; tolerances are the bars of the issue."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from n2n_lightning.diagnosis import FrameReader, examine, judge, scene_of_array

MOON, CAMERA = (getattr(data, n)().astype(float) for n in ("moon", "camera"))


def picture(side=256, place=(0.0, 0.0)):
    """(side, side) float64 in 100..1100: part of a photograph, moved."""
    crop = CAMERA[60 : 60 + side + 40, 100 : 100 + side + 40] * (1000 / 255) + 100
    return ndimage.shift(crop, place, order=5, mode="reflect")[20:-20, 20:-20]


def burst(n=6, side=256, sd=60.0, gains=None, offsets=None, places=None, seed=0):
    """(n, side, side, 1) float32 with white Gaussian noise."""
    rng = np.random.default_rng(seed)
    places = np.zeros((n, 2)) if places is None else places
    gains, offsets = np.ones(n) if gains is None else gains, np.zeros(n) if offsets is None else offsets
    frames = [
        g * picture(side, p) + o + rng.normal(0, sd, (side, side))
        for g, o, p in zip(gains, offsets, places, strict=True)
    ]
    return np.stack(frames)[..., None].astype(np.float32)


def measured(frames):
    return examine([scene_of_array("scene", frames)])


def kinds(frames, **more):
    return {f.kind for f in judge(measured(frames), **more)}


@pytest.mark.parametrize("n", [2, 3, 8])
def test_gain_to_one_percent_under_noise_and_offset(n):
    gains = np.linspace(1, 0.7, n)
    levels = measured(burst(n, gains=gains, offsets=np.linspace(0, 30, n))).scenes[0].levels
    assert np.allclose(np.array(levels.gain) / levels.gain[0], gains, rtol=0.01)


def test_gain_survives_noise_much_stronger_than_the_step():
    gains = np.array([1, 1.02, 0.98, 1, 1.03, 0.97])
    levels = measured(burst(6, sd=150, gains=gains)).scenes[0].levels
    assert np.allclose(levels.gain, gains / gains.mean(), atol=0.01)


def test_level_of_a_flat_scene_is_measured_and_its_gain_is_not_claimed():
    rng = np.random.default_rng(1)
    frames = (500 + np.array([0, 5, -5, 0.0])[:, None, None, None] + rng.normal(0, 20, (4, 128, 128, 1))).astype(
        np.float32
    )
    levels = measured(frames).scenes[0].levels
    assert levels.gain is None
    assert np.allclose(levels.level, [0, 5, -5, 0], atol=0.7)
    assert kinds(frames) == {"offset"}


@pytest.mark.parametrize(
    "places", [[(0, 0), (0.1, -0.05), (0.3, 0.2), (0.5, -0.4)], [(0, 0), (1.3, 0.6)], [(0, 0), (3.2, -5.7), (7.5, 2.5)]]
)
def test_shift_to_a_tenth_of_a_pixel(places):
    found = measured(burst(len(places), sd=80, places=np.array(places))).scenes[0].shifts
    assert np.allclose(found.place, places, atol=0.1)


def test_drift_far_beyond_the_window_is_followed():
    rng = np.random.default_rng(0)
    scene = ndimage.gaussian_filter(rng.normal(0, 1, (900, 96)), 2) * 50
    frames = np.stack([scene[8 * k : 8 * k + 96] + rng.normal(0, 3, (96, 96)) for k in range(60)])[..., None].astype(
        np.float32
    )
    found = measured(frames).scenes[0]
    assert np.abs(np.array(found.drift)[:, 0] + 8 * np.arange(60)).max() <= 2
    assert "shift" in kinds(frames)


@pytest.mark.parametrize("n", [2, 5])
def test_poisson_gaussian_noise_to_five_percent(n):
    rng = np.random.default_rng(2)
    x = picture() - 100
    frames = np.stack([4 * rng.poisson(x / 4) + rng.normal(0, 40, x.shape) for _ in range(n)])[..., None].astype(
        np.float32
    )
    noise = measured(frames).scenes[0].noise
    assert noise.gain == pytest.approx(4, rel=0.05)
    for level in (100, 400, 800):
        assert noise.gain * level + noise.intercept == pytest.approx(4 * level + 1600, rel=0.05)


def test_noise_of_a_single_frame_is_roughly_right():
    noise = measured(burst(1, sd=50)).scenes[0].noise
    assert noise.sd == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("a", [0.03, 0.2])
def test_correlation_between_neighbours(a):
    rng = np.random.default_rng(3)
    taps = np.array([a, 1, a]) / np.sqrt(1 + 2 * a * a)
    noise = ndimage.convolve1d(rng.normal(0, 60, (3, 256, 256)), taps, axis=2, mode="wrap")
    found = measured((picture() + noise)[..., None].astype(np.float32)).scenes[0].spatial
    assert np.allclose(found.rho[:4], [2 * a / (1 + 2 * a * a), 0, 0, 0], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 4, 6, 12])
def test_lag_is_told_from_a_pair_that_shares_noise(n):
    rng = np.random.default_rng(4)
    white = rng.normal(0, 60, (n, 256, 256))
    lagged, shared = white.copy(), white.copy()
    for k in range(1, n):
        lagged[k] = 0.3 * lagged[k - 1] + np.sqrt(0.91) * white[k]
    shared[2] = 0.3 * white[0] + np.sqrt(0.91) * white[2]
    lag, pair = (measured((picture() + f)[..., None].astype(np.float32)).scenes[0].between for f in (lagged, shared))
    assert [(p[0], p[1]) for p in pair.pairs] == [(0, 2)]
    assert pair.pairs[0][2] == pytest.approx(0.3, abs=0.05)
    if n > 3:
        assert lag.lag[0] == pytest.approx(0.3, abs=0.05)
        assert not lag.pairs


def test_a_mean_among_its_frames_is_found():
    frames = burst(4)
    assert measured(np.concatenate([frames, frames.mean(axis=0, keepdims=True)])).scenes[0].mixes == (4,)


@pytest.mark.parametrize("axis", [1, 2])
def test_stripes_and_not_neighbours(axis):
    rng = np.random.default_rng(5)
    shape = [4, 1, 1, 1]
    shape[axis] = 256
    frames = burst(4) + rng.normal(0, 12, shape).astype(np.float32)
    stripes = measured(frames).scenes[0].stripes
    found, other = (stripes.rows, stripes.columns)[:: 1 if axis == 1 else -1]
    assert found == pytest.approx(144 / (3600 + 144), rel=0.25)
    assert abs(other) < 0.002
    assert kinds(frames) == {"stripes"}


def test_copies_by_pixels_in_and_across_scenes():
    frames, more = burst(4), burst(3, seed=9)
    frames[3] = frames[1]
    more[2] = frames[0]
    found = examine([scene_of_array("a", frames), scene_of_array("b", more)])
    assert found.scenes[0].copies == ((1, 3),)
    assert found.copies == (((0, 0), (1, 2)),)
    assert {f.severity for f in judge(found) if f.kind == "copy"} == {"fatal", "harmful"}


@pytest.mark.slow
@pytest.mark.parametrize("value", [0, 400])
def test_dead_torn_and_dark_frames(value):
    frames = burst(5)
    frames[2] = value
    frames[4, 100:180] = 0
    assert measured(frames).scenes[0].dead == (2, 4)
    frames = burst(5)
    frames[3] = np.random.default_rng(0).normal(100, 20, frames[3].shape)
    assert measured(frames).scenes[0].strangers == (3,)


def test_masked_surroundings_are_no_defect():
    frames = burst(4)
    frames[:, :90] = 0
    frames[:, :, 200:] = 0
    assert kinds(frames) == set()


def test_one_cosmic_ray_does_not_set_the_range():
    frames = np.clip(np.rint(burst(6)), 0, 65535).astype(np.uint16)
    clean = measured(frames).scenes[0]
    frames[2, 100, 100] = 65535
    hit = measured(frames).scenes[0]
    assert hit.span.high == pytest.approx(clean.span.high, rel=0.05)
    assert hit.outliers.by_frame == (0, 0, 1, 0, 0, 0)
    assert hit.noise.sd == pytest.approx(clean.noise.sd, rel=0.01)
    (finding,) = judge(measured(frames))
    assert finding.kind == "outliers"
    assert any(s.startswith("data.range=") for s in finding.settings)


def test_hot_pixels_are_told_from_stars():
    rng = np.random.default_rng(6)
    spots = np.zeros((256, 256))
    spots[tuple(rng.integers(0, 256, (2, 60)))] = 1
    stars, hot = 4000 * ndimage.gaussian_filter(spots, 1.0), 600 * spots
    noise = rng.normal(200, 20, (4, 256, 256))
    assert kinds((stars + noise)[..., None].astype(np.float32)) == set()
    assert kinds((hot + noise)[..., None].astype(np.float32)) == {"hot_pixels"}


def test_noise_cut_off_at_black_is_told_from_counts_of_photons():
    rng = np.random.default_rng(7)
    x = np.clip((picture() - 100) / 1000, 0, 1)
    cut = np.maximum(200 * x - 5 + rng.normal(0, 20, (4, 256, 256)), 0)
    counts = rng.poisson(8 * x**2, (4, 256, 256))
    assert "clipped" in kinds(np.rint(cut)[..., None].astype(np.uint8))
    assert kinds(counts[..., None].astype(np.uint16)) == set()


def test_overexposure():
    assert "saturated" in kinds(np.clip(np.rint(burst(4) / 3.5), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 9, 3), (2, 15, 40, 1), (4, 16, 16, 3)])
def test_small_frames_and_odd_values_end_without_a_crash(shape):
    frames = np.random.default_rng(8).normal(0, 1, shape).astype(np.float32)
    judge(measured(frames))
    frames.flat[0] = np.nan
    assert "non_finite" in kinds(frames) | ({"non_finite"} if frames.size == 1 else set())


@pytest.mark.slow
def test_a_long_burst_is_examined_within_bounds():
    base = np.tile(picture(256), (4, 4)) + 300
    noise = np.random.default_rng(0).normal(0, 60, (1110, 1110))
    large, frames = (1024, 1024, 1), 40

    def read(k, top, left, height, width):
        rows, columns = slice(top, top + height), slice(left, left + width)
        frame = base[rows, columns] + noise[k : k + 1024, 2 * k : 2 * k + 1024][rows, columns]
        return frame.astype(np.uint16)[..., None]

    tracemalloc.start()
    found = examine([FrameReader("long", tuple(map(str, range(frames))), large, read)]).scenes[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600e6
    assert len(found.used) == frames


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_good_burst_has_no_findings(n, seed):
    assert kinds(np.clip(np.rint(burst(n, seed=seed) + 300), 0, 65535).astype(np.uint16)) == set()
