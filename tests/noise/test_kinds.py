"""Each corruption's distribution: moments as its formula says, what depends on what, which statistics are kept."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.noise.kinds import (
    Bernoulli,
    Brown,
    Gaussian,
    Impulse,
    Noise,
    Pixelate,
    Poisson,
    PoissonGaussian,
    Text,
)

DRAWS = 20_000
LEVELS = torch.tensor([0.0, 0.03, 0.2, 0.4, 0.6, 0.75, 0.9, 1.0])  # of a row of pixels; the outer ones are at edges
MODELS = [
    Gaussian(30),
    Brown(30, 1.5),
    Poisson(20),
    PoissonGaussian(0.05, 20),
    Bernoulli(0.3),
    Impulse(0.4),
]  # whose pixels can be looked at one by one
ALL = [*MODELS, Text(0.25), Pixelate(4)]


def moments(noise: Noise, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a pixel that is ``x`` in the clean image."""
    match noise:
        case Gaussian() | Brown():
            return x, torch.full_like(x, (noise.sigma / 255) ** 2)
        case Poisson():
            return x, x / noise.lam
        case PoissonGaussian():
            return x, noise.gain * x + (noise.sigma / 255) ** 2
        case Bernoulli():
            return (1 - noise.p) * x, noise.p * (1 - noise.p) * x**2
        case Impulse():  # a uniform value has the mean 1/2 and the mean square 1/3
            mean = (1 - noise.p) * x + noise.p / 2
            return mean, (1 - noise.p) * x**2 + noise.p / 3 - mean**2
    raise AssertionError(noise)


def rows(noise: Noise, levels: Tensor, seed: int = 1, channels: int = 2) -> Tensor:
    """So many draws of one row of pixels: (DRAWS, channels, pixels) float64."""
    images = levels.expand(DRAWS, channels, 1, len(levels))
    return noise.corrupt(images, seeded_generator(seed))[:, :, 0].double()


def correlation(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.double().flatten(), other.double().flatten())[0, 1])


BOUND = 5 / DRAWS**0.5  # of a correlation that is none


@pytest.mark.parametrize(
    "noise",
    [
        *MODELS,
        PoissonGaussian(0, 30),
        PoissonGaussian(0.1, 0),
        Poisson(2.5),
        Brown(50, 0.3),
        Bernoulli(0.0),
        Bernoulli(1.0),
        Impulse(0.7),
        Gaussian(0),
    ],
)
def test_mean_and_variance_of_every_pixel_are_as_the_formula_says(noise: Noise):
    drawn = rows(noise, LEVELS)
    mean, variance = moments(noise, LEVELS.double())
    fourth = ((drawn - drawn.mean(0)) ** 4).mean(0)
    assert ((drawn.mean(0) - mean).abs() <= 5 * (variance / DRAWS).sqrt() + 1e-6).all()
    assert ((drawn.var(0) - variance).abs() <= 5 * (fourth / DRAWS).sqrt() + 1e-6).all()


@pytest.mark.parametrize("noise", [Gaussian(25), Brown(25), Poisson(30)])
def test_nothing_is_clipped(noise: Noise):
    drawn = rows(noise, LEVELS)
    assert drawn[..., -1].max() > 1.1 and (drawn[..., 0].min() < -0.1 or isinstance(noise, Poisson))


def test_photons_come_in_whole_numbers_and_below_black_there_are_none():
    images = torch.linspace(-0.5, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    counts = Poisson(8).corrupt(images, seeded_generator(0)) * 8
    assert torch.equal(counts, counts.round()) and (counts[images <= 0] == 0).all() and counts.max() > 8


def test_both_images_of_a_pair_share_a_drawn_gain_and_sigma_and_each_pair_has_its_own():
    images = torch.full((400, 1, 16, 16), 0.5)
    source, target, _ = PoissonGaussian([0, 0.1], [0, 40]).corrupt_pair(images, seeded_generator(0))
    spreads = [noisy.flatten(1).std(1) for noisy in (source, target)]
    assert correlation(*spreads) > 0.9 and correlation(source - 0.5, target - 0.5) == pytest.approx(0, abs=0.02)
    least, greatest = spreads[0].min().item(), spreads[0].max().item()
    assert least < 0.05 and greatest > 0.9 * (0.1 * 0.5 + (40 / 255) ** 2) ** 0.5


@pytest.mark.parametrize("noise", MODELS)
def test_two_draws_are_independent_and_so_are_the_images_of_one(noise: Noise):
    rng, images = seeded_generator(2), torch.full((DRAWS, 1, 1, 1), 0.6)
    first, second = noise.corrupt(images, rng), noise.corrupt(images, rng)
    assert first.std() > 0.1
    assert abs(correlation(first, second)) < BOUND
    assert abs(correlation(first[1:], first[:-1])) < BOUND


@pytest.mark.parametrize("noise", [*(n for n in MODELS if not isinstance(n, Brown)), Pixelate(4)])
def test_noise_is_white(noise: Noise):
    images = torch.full((6, 1, 64, 64), 0.6)
    if isinstance(noise, Pixelate):  # which adds none to a flat image
        images = torch.rand(6, 3, 64, 64, generator=seeded_generator(5))
    off = noise.corrupt(images, seeded_generator(2)) - noise.clean(images)
    assert off.std() > 0.05
    bound = 5 / off[:, 0].numel() ** 0.5
    for one, other in ((off[..., 1:], off[..., :-1]), (off[..., 1:, :], off[..., :-1, :])):
        assert abs(correlation(one, other)) < bound


@pytest.mark.parametrize("blur_px", [0.8, 1.5])
def test_brown_noise_is_correlated_as_a_blur_makes_it(blur_px: float):
    """The Gaussian of ``blur_px``, convolved with itself: at a distance d, exp(-d^2 / (4 blur_px^2))."""
    drawn = Brown(40, blur_px).corrupt(torch.full((DRAWS, 1, 4, 6), 0.5), seeded_generator(3))[:, 0]
    for down, across in ((0, 1), (0, 2), (0, 5), (1, 0), (2, 0), (3, 0), (1, 1), (2, 3)):
        expected = np.exp(-(down**2 + across**2) / (4 * blur_px**2))
        assert correlation(drawn[:, 0, 0], drawn[:, down, across]) == pytest.approx(expected, abs=BOUND)


@pytest.mark.parametrize("noise", MODELS)
def test_channels_have_noise_of_their_own_but_share_which_pixels_are_struck(noise: Noise):
    drawn = rows(noise, torch.tensor([0.6]))
    expected = 0.0
    if isinstance(noise, Bernoulli):
        expected = 1.0
    if isinstance(noise, Impulse):  # E ab = (1 - p) x^2 + p / 4, two uniform values' product having the mean 1/4
        mean, variance = moments(noise, torch.tensor(0.6))
        expected = float(((1 - noise.p) * 0.36 + noise.p / 4 - mean**2) / variance)
    assert correlation(drawn[:, 0], drawn[:, 1]) == pytest.approx(expected, abs=BOUND)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
def test_a_pixel_is_left_out_of_the_target_where_it_is_black(p: float):
    images = 0.1 + 0.9 * torch.rand(8, 3, 50, 50, generator=seeded_generator(0))
    target, mask = Bernoulli(p).corrupt_target(images, seeded_generator(1))
    assert mask is not None and mask.shape == (8, 1, 50, 50) and mask.dtype == torch.bool
    assert torch.equal(target, images * mask)
    assert abs((~mask).double().mean() - p) <= 5 * (p * (1 - p) / mask.numel()) ** 0.5


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_impulses_strike_so_many_pixels_and_have_any_colour(p: float):
    drawn = Impulse(p).corrupt(torch.full((1, 3, 150, 150), -1.0), seeded_generator(0))
    struck = (drawn != -1).all(1)
    assert torch.equal(struck, (drawn != -1).any(1)), "all channels of a pixel"
    assert abs(struck.double().mean() - p) < 5 * (p * (1 - p) / struck.numel()) ** 0.5
    for channel in drawn[0]:
        assert stats.kstest(channel[struck[0]].numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(("height", "width"), [(16, 24), (19, 25)])  # the latter leaves 3 rows and a column over
def test_a_pixelated_pixel_is_one_of_its_cell_and_the_clean_one_their_mean(height: int, width: int):
    images = torch.rand(1, 3, height, width, generator=seeded_generator(0))
    noise = Pixelate(8)
    cells = images.numpy()[0, :, :16, :24].reshape(3, 2, 8, 3, 8).transpose(1, 3, 2, 4, 0).reshape(2, 3, 64, 3)
    draws = noise.corrupt(images.expand(4000, -1, -1, -1), seeded_generator(1))
    assert draws.shape == (4000, 3, 2, 3)
    shown = draws[:50].permute(0, 2, 3, 1).numpy()
    assert (cells == shown[:, :, :, None]).all(-1).any(-1).all(), "R, G and B of one place"
    mean = cells.mean(2).transpose(2, 0, 1)
    np.testing.assert_allclose(noise.clean(images)[0], mean, atol=1e-6)
    spread = cells.std(2).transpose(2, 0, 1)
    assert (np.abs(draws.double().mean(0).numpy() - mean) < 5 * spread / np.sqrt(4000)).all()


@pytest.mark.parametrize("noise", ALL)
def test_the_same_generator_draws_the_same_and_leaves_the_images_alone(noise: Noise):
    images = torch.rand(2, 3, 16, 16, generator=seeded_generator(5))
    before = images.clone()
    one, same, other = (noise.corrupt(images, seeded_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.dtype == torch.float32 and torch.equal(images, before)
    target, _ = noise.corrupt_target(images, seeded_generator(1))
    assert torch.equal(target, one), "a target is a version like the source"


@pytest.mark.parametrize("noise", ALL[:7])
def test_any_size_and_any_channels_can_be_corrupted(noise: Noise):
    for shape in ((1, 1, 1, 1), (2, 4, 1, 7), (1, 3, 9, 2)):
        assert noise.corrupt(torch.rand(shape), seeded_generator(0)).shape == shape


# What a loss can learn from


@pytest.mark.parametrize("x", [0.2, 0.85])
@pytest.mark.parametrize("noise", [*MODELS, Impulse(0.7)])
def test_the_statistics_that_are_kept_are_the_clean_value_and_others_are_not(noise: Noise, x: float):
    target, mask = noise.corrupt_target(torch.full((DRAWS, 1, 1, 1), x), seeded_generator(4))
    values = target[slice(None) if mask is None else mask].double().numpy()
    error = 5 * max(values.std(), 1e-5) / len(values) ** 0.5
    found = {"mean": abs(values.mean() - x) < error, "median": abs(np.median(values) - x) < 2 * error}
    counts = np.histogram(values, bins=np.linspace(-0.0125, 1.0125, 42))[0]
    smooth = counts if isinstance(noise, Impulse | Bernoulli) else np.convolve(counts, np.ones(11), "same")
    found["mode"] = abs(0.025 * smooth.argmax() - x) < 0.08
    if isinstance(noise, Poisson | PoissonGaussian):
        del found["mode"], found["median"]  # near it where there are many counts
    if isinstance(noise, Impulse) and noise.p > 0.5:
        del found["median"]  # kept all the same where fewer pixels than half lie on either side of x
    assert found == {name: name in noise.preserves for name in found}


def test_bernoulli_targets_of_neighbouring_pixels_are_left_out_independently():
    _, mask = Bernoulli(0.4).corrupt_target(torch.zeros(DRAWS, 1, 1, 4), seeded_generator(0))
    assert mask is not None
    for one, other in pairwise(mask[:, 0, 0].T):
        assert abs(correlation(one, other)) < BOUND


def test_impulses_strike_both_images_of_a_pair_as_often_but_elsewhere():
    images = torch.full((40, 1, 60, 60), -1.0)
    source, target, mask = Impulse([0.1, 0.9]).corrupt_pair(images, seeded_generator(0))
    assert mask is None
    struck, other = ((drawn != -1).double().flatten(1) for drawn in (source, target))
    p, apart = struck.mean(1), struck.mean(1) - other.mean(1)
    assert p.min() < 0.2 and p.max() > 0.8
    assert apart.abs().max() < 5 * (2 * 0.25 / 3600) ** 0.5
    assert ((struck * other).mean(1) - p**2).abs().max() < 0.04


def test_bernoulli_noise_leaves_out_as_much_of_both_images_of_a_pair_but_elsewhere():
    source, target, mask = Bernoulli([0, 1]).corrupt_pair(torch.ones(200, 1, 30, 30), seeded_generator(0))
    assert torch.equal(mask, target == 1)
    left, other = ((drawn == 1).double().flatten(1) for drawn in (source, target))
    kept = left.mean(1)
    assert kept.min() < 0.1 and kept.max() > 0.9
    assert (kept - other.mean(1)).abs().max() < 5 * (2 * 0.25 / 900) ** 0.5
    assert ((left * other).mean(1) - kept**2).abs().max() < 0.06


def test_gaussian_noise_of_a_pair_has_strengths_of_its_own():
    source, target, _ = Gaussian([0, 50]).corrupt_pair(torch.zeros(200, 1, 20, 20), seeded_generator(0))
    assert abs(correlation(source.flatten(1).std(1), target.flatten(1).std(1))) < 5 / 200**0.5
