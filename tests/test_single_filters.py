"""The strength of a filter, chosen from the noisy images alone."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from n2n_lightning import single_filters
from n2n_lightning.filters import FILTERS
from n2n_lightning.noise_variance import NoiseVariance
from n2n_lightning.single_filters import choose_strength, choosing_part

CHOSEN = [name for name, one in FILTERS.items() if len(one.strengths) > 1]


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sd", [0.05, 0.15])
def test_the_strength_is_within_one_step_of_the_best_by_the_clean_image(name: str, channels: int, sd: float):
    clean = data.astronaut()[:128, 150:278, :channels].transpose(2, 0, 1)[None] / 255
    noisy = (clean + np.random.default_rng(0).normal(0, sd, clean.shape)).astype(np.float32)
    noise = NoiseVariance(np.zeros(channels), np.full(channels, sd**2))
    strengths = FILTERS[name].strengths
    errors = [np.mean((FILTERS[name].apply(noisy, strength, noise) - clean) ** 2) for strength in strengths]
    chosen = strengths.index(choose_strength(name, noisy, noise))
    assert abs(chosen - int(np.argmin(errors))) <= 1
    assert errors[chosen] < 0.9 * sd**2


def test_more_noise_takes_a_wider_blur():
    clean = data.camera()[:96, 200:296][None, None] / 255
    rng, chosen = np.random.default_rng(0), []
    for sd in (0.02, 0.1, 0.4):
        noisy = (clean + rng.normal(0, sd, clean.shape)).astype(np.float32)
        chosen.append(choose_strength("gaussian", noisy, NoiseVariance(np.zeros(1), np.full(1, sd**2))))
    assert chosen == sorted(set(chosen))


def test_a_filter_that_takes_the_noise_as_it_is_needs_no_choice():
    images, noise = np.zeros((1, 1, 1, 1), np.float32), NoiseVariance(np.zeros(1), np.ones(1))
    assert (choose_strength("bm3d", images, noise), choose_strength("wavelet", images, noise)) == (1.0, 1.0)


def test_images_too_small_to_choose_by_are_refused():
    with pytest.raises(ValueError, match="4x4 px, got 3x9"):
        choose_strength("median", np.zeros((1, 1, 3, 9), np.float32), NoiseVariance(np.zeros(1), np.ones(1)))


def test_a_part_of_many_images_and_the_middle_of_a_large_one_are_used(monkeypatch: pytest.MonkeyPatch):
    images = np.arange(5 * 6 * 8, dtype=np.float32).reshape(5, 1, 6, 8)
    assert np.array_equal(choosing_part(images), images)
    monkeypatch.setattr(single_filters, "CHOOSING_PX", 3 * 48)
    assert np.array_equal(choosing_part(images), images[[0, 2, 4]])
    monkeypatch.setattr(single_filters, "CHOOSING_PX", 16)
    assert np.array_equal(choosing_part(images), images[:1, :, 1:5, 2:6])
