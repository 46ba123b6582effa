"""What one image tells of its noise, on photographs with known noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from n2n_lightning.diagnosis.single_image import find_noise

PHOTOGRAPHS = {"coffee": data.coffee(), "chelsea": data.chelsea(), "camera": data.camera()[..., None]}


def photograph(name: str) -> np.ndarray:
    """Return (C, H, W) float64 in 0..255."""
    return np.moveaxis(PHOTOGRAPHS[name][:288, :320], -1, 0).astype(np.float64)


def stored(image: np.ndarray) -> np.ndarray:
    return np.rint(image.clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("sigma", [10, 25])
def test_the_strength_of_independent_noise_is_found(name: str, sigma: int):
    clean = photograph(name)
    found = find_noise(stored(clean + np.random.default_rng(0).normal(0, sigma, clean.shape)))
    assert found.kind == "independent"
    assert found.sd == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0.0), (16.0, 30_000.0), (1e30, 0.0)])
def test_the_scale_of_the_values_does_not_matter(scale: float, offset: float):
    clean = photograph("coffee")
    noisy = clean + np.random.default_rng(0).normal(0, 20, clean.shape)
    one, other = find_noise(noisy.astype(np.float32)), find_noise(noisy * scale + offset)
    assert one.kind == other.kind == "independent"
    assert other.sd == pytest.approx(one.sd * scale, rel=0.01)


@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_a_clean_photograph_has_hardly_any(name: str):
    found = find_noise(np.moveaxis(PHOTOGRAPHS[name], -1, 0))
    assert found.kind == "clean" and found.sd < 3


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("blur_px", [0.7, 2.0])
def test_noise_that_neighbours_share_is_told_from_independent_noise(name: str, blur_px: float):
    clean = photograph(name)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (0, blur_px, blur_px))
    found = find_noise(stored(clean + 20 * noise / noise.std()))
    assert found.kind == "correlated" and found.correlation > 0.3
    assert 8 < found.sd < 25


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_is_constant(value: int):
    found = find_noise(np.full((3, 40, 50), value, np.uint8))
    assert (found.kind, found.low, found.high, found.saturated) == ("constant", value, value, 0.0)


def test_saturation_is_the_share_of_the_highest_value():
    noisy = stored(1.8 * photograph("coffee") + np.random.default_rng(0).normal(0, 10, (3, 288, 320)))
    assert find_noise(noisy).saturated == pytest.approx(float((noisy == 255).mean()))
    assert find_noise(stored(0.5 * photograph("coffee"))).saturated == 0


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 15, 400), (3, 9, 7)])
def test_a_small_image_is_not_judged(shape: tuple[int, int, int]):
    values = np.random.default_rng(0).integers(0, 255, shape)
    assert find_noise(values).kind == "small"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["two values", "one pixel", "ramp", "stripes"])
def test_any_image_is_judged_without_a_warning(kind: str, dtype: str, recwarn: pytest.WarningsRecorder):
    image = np.zeros((2, 40, 50))
    if kind == "two values":
        image[:, :, 25:] = 100
    elif kind == "one pixel":
        image[0, 3, 4] = 100
    elif kind == "ramp":
        image += np.arange(50)
    else:
        image[:, ::2] = 100
    found = find_noise(image.astype(dtype))
    assert np.isfinite([found.sd, found.correlation, found.saturated]).all() and not recwarn.list
