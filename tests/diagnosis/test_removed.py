"""What a denoiser removed: noise, which is even at one brightness, or texture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from skimage import data

from n2n_lightning.diagnosis.removed import Removed, measure_removed

Images = npt.NDArray[np.float64]
CLEAN: Images = np.moveaxis(data.coffee()[:256, :256] / 255, -1, 0)[None]


def noise(blur_px: float = 0.0) -> Images:
    """Return noise of standard deviation 1, which a blur may have correlated."""
    white = np.random.default_rng(0).normal(size=CLEAN.shape)
    blurred: Images = ndimage.gaussian_filter(white, (0, 0, blur_px, blur_px))
    return blurred / blurred.std()


def removed(part: Images, scale: float = 1.0) -> Removed:
    return measure_removed(scale * (CLEAN + part), scale * CLEAN)


@pytest.mark.parametrize("blur_px", [0, 0.6, 1.3])
@pytest.mark.parametrize("grows", [False, True])
def test_noise_is_even_also_where_it_grows_with_brightness(blur_px: float, grows: bool):
    found = removed(0.05 * noise(blur_px) * (np.sqrt(CLEAN) if grows else 1))
    assert found.is_noise and found.is_even
    assert found.is_correlated == (blur_px > 0)
    assert grows or found.sd == pytest.approx(0.05, rel=1e-4)


def test_texture_is_strong_but_not_even():
    sharp = CLEAN - ndimage.gaussian_filter(CLEAN, (0, 0, 1, 1))
    found = measure_removed(CLEAN, CLEAN - sharp)
    assert found.is_noise and not found.is_even


def test_next_to_nothing_is_no_noise():
    assert not removed(0.005 * noise()).is_noise
    assert removed(0 * noise()).strength == 0


def test_noise_in_bright_places_alone_is_found():
    bright = np.quantile(CLEAN, 0.8) < CLEAN
    assert removed(0.05 * noise() * ndimage.uniform_filter(bright.astype(float), (0, 0, 31, 31))).is_noise


def test_the_unit_does_not_matter():
    part = 0.05 * noise()
    np.testing.assert_allclose(removed(part, 1e4)[1:], removed(part)[1:], rtol=1e-5)  # without the sd


def test_constant_places_do_not_count():
    seen = (np.arange(256) < 96)[:, None]
    found = measure_removed((CLEAN + 0.05 * noise()) * seen, CLEAN * seen)
    assert found.is_noise and found.is_even


def test_a_constant_image_has_none():
    flat = np.full((1, 1, 32, 32), 7.0)
    assert measure_removed(flat, flat) == Removed()


def test_noise_of_one_page_is_seen_beside_a_clean_page():
    clean, noisy = np.concatenate([CLEAN, CLEAN]), np.concatenate([CLEAN, CLEAN + 0.05 * noise()])
    assert measure_removed(noisy, clean, pages=2).strength > 3 * measure_removed(noisy, clean).strength
