"""The offset of images whose values lie below 0, and values on their way to a net and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from n2n_lightning.image_io.net_scale import OffsetSurvey, Scale, find_gain, find_offset
from n2n_lightning.image_io.value_range import ValueSpan

TEXTURE = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 1, (96, 80)), 6)
TEXTURE = (TEXTURE - TEXTURE.min()) / np.ptp(TEXTURE)  # 0 to 1
CELLS = np.where(TEXTURE > 0.6, TEXTURE, 0.0)  # on a background of 0


def image(clean: np.ndarray, sigma: float, blur_px: float = 0.0) -> np.ndarray:
    """Return (1, H, W, 1) with noise, which a blur may have correlated."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, clean.shape), blur_px)
    return (clean + sigma * noise / noise.std())[None, :, :, None]


@pytest.mark.parametrize("blur_px", [0.0, 1.0])
@pytest.mark.parametrize("sigma", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("clean", [CELLS, TEXTURE, np.zeros_like(CELLS)], ids=["cells", "texture", "nothing"])
def test_noise_around_a_background_of_0_is_no_offset(clean: np.ndarray, sigma: float, blur_px: float):
    assert find_offset(image(clean, sigma, blur_px)) == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e8])
@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.1])
def test_an_offset_is_found_whatever_the_noise(sigma: float, scale: float):
    """It lies at most a sixteenth of the contrast below the structure, and noise hardly changes it."""
    found = find_offset(image(scale * (CELLS - 0.35), scale * sigma)) / scale
    assert -0.35 - 1 / 16 <= found <= -0.35 + 0.005


def test_hounsfield_units_get_a_round_offset():
    values = np.rint(image(-1000 + 4000 * CELLS, 50)).astype(np.int16)
    assert find_offset(values) == -1024
    survey = OffsetSurvey()
    for top in range(0, 96, 16):
        survey.add(values[:, top : top + 16])
    assert survey.offset() == -1024


def test_a_few_values_far_below_0_are_no_offset():
    values = image(CELLS, 0.02)
    values[0, 30, 40] = -1000
    assert find_offset(values) == 0


@pytest.mark.parametrize(("shape", "value"), [((1, 1, 1, 1), -5), ((2, 3, 40, 2), -7), ((1, 17, 5, 3), -1)])
def test_images_of_any_size_have_an_offset(shape: tuple[int, ...], value: int):
    assert find_offset(np.full(shape, value, np.int8)) == value


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_values_survive_the_way_to_the_net_and_back(dtype: str):
    """Also far from 0, where float32 has no fractions."""
    base = {"int32": -(2**31) + 100, "int64": -(2**40), "float64": -(2.0**33)}.get(dtype, -100)
    values = (base + np.random.default_rng(0).integers(0, 99, (1, 6, 5, 2))).astype(dtype)
    scale = Scale(128.0, float(base))
    units = scale.to_net(values)
    assert 0 <= units.min() <= units.max() < 1
    np.testing.assert_array_equal(scale.from_net(units, values.dtype), values)


def test_dark_images_and_channels_get_a_gain():
    reaches = np.array([[4000.0, 100.0, 0.0], [1500.0, 60.0, 1000.0]])
    limits = np.stack([-reaches, reaches / 2])
    gain = find_gain(limits, ValueSpan(-4000, 2000), 4095, by_channel=True)
    assert gain is not None and gain.shape == (2, 1, 1, 3)
    np.testing.assert_array_equal(gain[:, 0, 0], [[1, 32, 1], [1, 64, 4]])
    assert find_gain(limits, ValueSpan(-4000, 2000), 4095, by_channel=False) is None
    slices = np.array([[[-1000], [-1000]], [[-990], [1000]]])
    air = find_gain(slices, ValueSpan(-1000, 1000, offset=-1000), 2047, by_channel=True)
    np.testing.assert_array_equal(np.ravel(air), [128, 1])  # by the distance from the offset
    values = np.random.default_rng(0).uniform(-1, 1, (2, 6, 5, 3)) * reaches[:, None, None, :]
    values = values.astype(np.float32)
    units = Scale(4096.0, 0.0, gain).to_net(values)
    assert 0.2 < units[1, 1].abs().max() < 1
    np.testing.assert_array_equal(Scale(4096.0, 0.0, gain).from_net(units, np.dtype(np.float32)), values)


def test_the_gain_of_an_image_of_next_to_nothing_is_finite():
    values = np.zeros((2, 4, 4, 1), np.float32)
    values[0], values[1, 0, 0] = 1, 1e-42
    gain = find_gain(np.array([[[0.0], [0.0]], [[1.0], [1e-42]]]), ValueSpan(0, 1), 1.0, by_channel=True)
    units = Scale(1.0, 0.0, gain).to_net(values)
    assert torch.isfinite(units).all()
    np.testing.assert_allclose(Scale(1.0, 0.0, gain).from_net(units, values.dtype), values, atol=1e-37)
