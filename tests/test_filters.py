"""Filters as references for nets, with the noise found from pairs, and on grey, colour and stabilised images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from skimage import data, filters, restoration, transform

from n2n_lightning.filters import FILTERS, gaussian_blur, median, non_local_means, total_variation
from n2n_lightning.noise_variance import NoiseVariance

Images = np.ndarray


def scene(channels: int = 3) -> Images:
    """Return a photograph, (1, C, 96, 128) in 0..1."""
    photo = transform.resize(data.coffee() / 255.0, (96, 128), anti_aliasing=True).transpose(2, 0, 1)
    return np.resize(photo, (channels, 96, 128))[None]


def poisson_gaussian(clean: Images, count: float, sd: float, seed: int) -> Images:
    """Return noisy images, (N, C, H, W) float32; the variance is level / ``count`` + ``sd`` ** 2."""
    rng = np.random.default_rng(seed)
    return (rng.poisson(clean * count) / count + rng.normal(0, sd, clean.shape)).astype(np.float32)


def mse(images: Images, clean: Images) -> float:
    return float(np.mean((images.clip(0, 1) - clean) ** 2))


def parameters(names: Iterable[str]) -> list[Any]:
    """Return the filters' names; those that need a package which is missing are skipped, and say so."""
    missing = {name: f"needs {FILTERS[name].module}, of an extra" for name in names if not FILTERS[name].installed}
    return [pytest.param(x, marks=pytest.mark.skipif(x in missing, reason=missing.get(x, ""))) for x in names]


def middle_strength(name: str) -> float:
    return FILTERS[name].strengths[len(FILTERS[name].strengths) // 2 - 1]


CONSTANT = NoiseVariance(np.zeros(3), np.full(3, 0.01))


def test_median_and_blur_are_those_of_scikit_image_in_each_channel():
    noisy = poisson_gaussian(scene(), 40, 0.03, seed=0)
    inside = (slice(6, -6), slice(6, -6))  # scikit-image continues images in another way
    for channel, image in enumerate(noisy[0]):
        assert np.array_equal(median(noisy, 5)[0, channel][inside], filters.median(image, np.ones((5, 5)))[inside])
        blurred = filters.gaussian(image, 1.4, truncate=4)[inside]
        assert np.allclose(gaussian_blur(noisy, 1.4)[0, channel][inside], blurred, atol=1e-6)


def test_with_constant_noise_non_local_means_is_that_of_scikit_image():
    noisy = poisson_gaussian(scene(), 1e9, 0.1, seed=0)
    settings = {"patch_size": 5, "patch_distance": 6, "h": 0.08, "sigma": 0.1, "fast_mode": True}
    expected = restoration.denoise_nl_means(noisy[0], channel_axis=0, **settings)
    assert np.allclose(non_local_means(noisy, 0.8, CONSTANT)[0], expected, atol=1e-4)
    grey = restoration.denoise_nl_means(noisy[0, 0], **settings)
    constant = NoiseVariance(CONSTANT.slope[:1], CONSTANT.offset[:1])
    assert np.allclose(non_local_means(noisy[:, :1], 0.8, constant)[0, 0], grey, atol=1e-4)


@pytest.mark.parametrize(("count", "sd"), [(40, 0.03), (10, 0.1), (200, 0.0)])
def test_the_line_of_the_variance_is_found_from_a_pair(count: float, sd: float):
    clean = scene().repeat(4, 0)
    first, second = (poisson_gaussian(clean, count, sd, seed) for seed in (0, 1))
    for noise in (NoiseVariance.fit(first, second), NoiseVariance.fit(first, clean.astype(np.float32), clean=True)):
        assert noise.slope == pytest.approx(np.full(3, 1 / count), rel=0.1)
        assert noise.offset == pytest.approx(np.full(3, sd**2), abs=0.05 / count)


def test_noise_that_does_not_rise_with_the_level_has_one_variance():
    clean = scene()
    first, second = (poisson_gaussian(clean, 1e9, 0.1, seed) for seed in (0, 1))
    noise = NoiseVariance.fit(first, second)
    assert noise.slope.tolist() == [0, 0, 0] and noise.offset == pytest.approx(np.full(3, 0.01), rel=0.05)


def test_stabilised_noise_has_the_variance_1_at_every_level_and_is_restored():
    levels = np.linspace(0.2, 1.0, 5)[:, None, None, None] * np.ones((1, 1, 128, 128))
    noise = NoiseVariance(np.array([1 / 40]), np.array([0.03**2]))
    noisy = poisson_gaussian(levels, 40, 0.03, seed=0)
    assert noise.stabilise(noisy).std((1, 2, 3)) == pytest.approx(np.ones(5), rel=0.04)
    for one in (noise, NoiseVariance(np.zeros(1), np.array([0.01]))):
        means = one.restore(one.stabilise(noisy).mean((2, 3), keepdims=True))
        assert means.ravel() == pytest.approx(levels[:, 0, 0, 0], abs=0.005)


def test_the_fitted_line_makes_non_local_means_better_where_noise_rises_with_the_level():
    clean = scene()
    first, second = (poisson_gaussian(clean, 40, 0.03, seed) for seed in (0, 1))
    constant = NoiseVariance(np.zeros(3), np.square(first - second).mean((0, 2, 3)) / 2)
    best = {
        name: min(mse(non_local_means(first, strength, noise), clean) for strength in (0.4, 0.55, 0.75, 1.0))
        for name, noise in (("line", NoiseVariance.fit(first, second)), ("constant", constant))
    }
    assert best["line"] < 0.9 * best["constant"]


@pytest.mark.parametrize("name", parameters(FILTERS))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 2, 5), (1, 12, 16, 16)])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_any_size_and_number_of_channels_gives_finite_values(name: str, shape: tuple[int, ...], scale: float):
    """Also images without any noise, and with values below 0."""
    rng = np.random.default_rng(0)
    first, second = (np.float32(scale) * rng.normal(-0.1, 0.2, shape).astype(np.float32) for _ in range(2))
    noise = NoiseVariance.fit(first, second)
    for strength in FILTERS[name].strengths:
        filtered = FILTERS[name].apply(first, strength, noise)
        assert filtered.shape == shape and filtered.dtype == np.float32 and np.isfinite(filtered).all()


@pytest.mark.parametrize("name", parameters(FILTERS))
def test_values_below_0_are_denoised_and_not_cut_off(name: str):
    clean = scene() - 0.5
    first, second = ((clean + np.random.default_rng(n).normal(0, 0.1, clean.shape)).astype(np.float32) for n in (0, 1))
    noise = NoiseVariance.fit(first, second)
    filtered = FILTERS[name].apply(first, middle_strength(name), noise)
    assert np.mean((filtered - clean) ** 2) < 0.5 * 0.1**2


# Filters that know the noise


@pytest.mark.parametrize("name", parameters(name for name in FILTERS if name not in ("median", "gaussian")))
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_noise_that_rises_with_the_level_is_removed_in_grey_and_colour(name: str, channels: int):
    clean = scene(channels)
    noisy = poisson_gaussian(clean, 40, 0.03, seed=0)
    noise = NoiseVariance(np.full(channels, 1 / 40), np.full(channels, 0.03**2))
    assert mse(FILTERS[name].apply(noisy, middle_strength(name), noise), clean) < 0.5 * mse(noisy, clean)


@pytest.mark.parametrize("name", parameters(name for name in FILTERS if name not in ("median", "gaussian")))
def test_the_unit_of_the_values_does_not_matter(name: str):
    noisy = poisson_gaussian(scene(), 1e9, 0.1, seed=0)
    larger = NoiseVariance(CONSTANT.slope, CONSTANT.offset * 100)
    filtered = FILTERS[name].apply(noisy, middle_strength(name), CONSTANT)
    assert np.allclose(FILTERS[name].apply(10 * noisy, middle_strength(name), larger), 10 * filtered, atol=0.01)


@pytest.mark.parametrize("name", parameters(["wavelet", "bm3d"]))
def test_grey_images_saved_as_colour_are_denoised(name: str):
    clean = scene(1).repeat(3, 1)
    noisy = poisson_gaussian(clean[:, :1], 1e9, 0.1, seed=0).repeat(3, 1)
    filtered = FILTERS[name].apply(noisy, 1.0, CONSTANT)
    assert np.isfinite(filtered).all() and mse(filtered, clean) < 0.6 * mse(noisy, clean)


def test_with_constant_noise_total_variation_is_that_of_scikit_image():
    noisy = poisson_gaussian(scene(), 1e9, 0.1, seed=0)
    expected = restoration.denoise_tv_chambolle(noisy[0], 0.08, eps=1e-9, max_num_iter=300, channel_axis=0)
    assert np.sqrt(np.mean((total_variation(noisy, 0.8, CONSTANT)[0] - expected) ** 2)) < 0.1 * 0.1
