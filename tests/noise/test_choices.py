"""Corruptions one after the other, strengths drawn from a range, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from small_runs import compose_config
from torch import Tensor
from torch.nn import functional as F

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.noise.choices import NOISES, Chain, make_noise
from n2n_lightning.noise.kinds import (
    ALL,
    Bernoulli,
    Brown,
    Clip,
    Gaussian,
    Impulse,
    Noise,
    Pixelate,
    Poisson,
    PoissonGaussian,
    Text,
)
from n2n_lightning.system.hydra_app import group_choices


def chain(*steps: Any) -> Chain:
    """Of names, or of names with their arguments."""
    return Chain([step if isinstance(step, dict) else {"name": step} for step in steps])


def images_of(*shape: int) -> Tensor:
    return torch.rand(shape, generator=seeded_generator(7))


# Chains


@pytest.mark.slow
def test_a_chain_is_its_steps_in_their_order():
    images = images_of(3, 3, 16, 16)
    steps = [{"name": "poisson", "lam": 9}, {"name": "gaussian", "sigma": 12}, {"name": "text", "coverage": 0.2}]
    rng = seeded_generator(1)
    expected = Text(0.2).corrupt(Gaussian(12).corrupt(Poisson(9).corrupt(images, rng), rng), rng)
    assert torch.equal(Chain(steps).corrupt(images, seeded_generator(1)), expected)
    assert not torch.equal(Chain([steps[0], *steps[:0:-1]]).corrupt(images, seeded_generator(1)), expected)


def test_the_last_step_has_the_last_word():
    images = images_of(2, 3, 32, 32)
    clipped_last, clipped_first = chain("gaussian", "clip"), chain("clip", "gaussian")
    inside, outside = (noise.corrupt(images, seeded_generator(0)) for noise in (clipped_last, clipped_first))
    assert inside.min() == 0 and inside.max() == 1
    assert outside.min() < 0 and outside.max() > 1


@pytest.mark.parametrize(
    ("steps", "keeps"),
    [
        (["gaussian", "brown"], {"mean", "median", "mode"}),
        (["poisson", "gaussian"], {"mean"}),
        (["gaussian", "clip"], {"median"}),
        (["gaussian", "text"], {"median", "mode"}),
        (["text", "gaussian"], {"mode"}),
        (["text", "clip"], set()),
        (["bernoulli", "gaussian"], {"mean", "median", "mode"}),
        (["impulse"], {"mode"}),
        ([{"name": "impulse", "p": 0.4}], {"median", "mode"}),
        ([{"name": "impulse", "p": [0, 0.5]}], {"mode"}),
        (["poisson", "text"], set()),
    ],
)
def test_a_chain_keeps_what_all_its_steps_keep(steps: list[Any], keeps: set[str]):
    assert chain(*steps).preserves == keeps


def test_text_and_then_noise_moves_the_median_as_the_chain_says():
    """With 40 % of 0.9, the median of 0.2 and noise of 0.15 lies at 0.5 / 0.6 of the noise's own distribution."""
    covered = torch.rand(1, 1, 400, 400, generator=seeded_generator(0)) < 0.4
    texted = torch.where(covered, 0.9, 0.2)
    moved = Gaussian(0.15 * 255).corrupt(texted, seeded_generator(1)).median()
    assert moved == pytest.approx(0.2 + 0.15 * stats.norm.ppf(0.5 / 0.6), abs=0.01)


def test_masks_are_combined_and_the_target_is_black_where_it_is_left_out():
    noise = chain({"name": "bernoulli", "p": 0.3}, {"name": "bernoulli", "p": 0.5})
    images = 0.5 + 0.5 * images_of(4, 3, 64, 64)
    target, mask = noise.corrupt_target(images, seeded_generator(0))
    assert noise.masks and mask is not None and mask.shape == (4, 1, 64, 64)
    assert torch.equal(target, images * mask)
    left = 0.7 * 0.5
    assert abs(mask.double().mean() - left) < 5 * (left * (1 - left) / mask.numel()) ** 0.5
    assert chain("gaussian", "text").corrupt_target(images, seeded_generator(0))[1] is None


def test_pixelation_comes_first_and_the_rest_follows_at_its_size():
    noise = chain({"name": "pixelate", "cell_px": 4}, {"name": "gaussian", "sigma": 51})
    images = images_of(30, 3, 32, 24)
    assert noise.cell_px == 4
    torch.testing.assert_close(noise.clean(images), F.avg_pool2d(images, 4))
    drawn = noise.corrupt(images, seeded_generator(0))
    assert drawn.shape == (30, 3, 8, 6)
    off = (drawn - noise.clean(images)).double()
    assert off.var().item() == pytest.approx(0.2**2 + 1 / 12 * 15 / 16, rel=0.05), "both noises' variances"


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_clipping_moves_the_mean_and_not_the_median(level: float):
    drawn = chain({"name": "gaussian", "sigma": 51}, "clip").corrupt(
        torch.full((1, 1, 400, 400), level), seeded_generator(2)
    )
    quantiles = level + 0.2 * stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    error = 5 * 0.2 / 400
    assert abs(drawn.mean().item() - quantiles.clip(0, 1).mean()) < error
    assert abs(drawn.median().item() - level) < 1.3 * error
    assert level == 0.5 or abs(drawn.mean().item() - level) > 10 * error
    assert Clip().preserves == {"median"}


# Strengths from a range


def changed(images: Tensor) -> Tensor:
    return (images != 0.5).any(1, keepdim=True).double().mean((1, 2, 3))


def spread(images: Tensor) -> Tensor:
    return images.double().std((1, 2, 3)) * 255


STRENGTHS: list[tuple[Noise, Callable[[Tensor], Tensor], tuple[float, float]]] = [
    (Gaussian([10, 60]), spread, (10, 60)),
    (Brown([10, 60], 0.6), spread, (10, 60)),
    (Poisson([5, 45]), lambda images: 0.5 / images.double().var((1, 2, 3)), (5, 45)),
    (Bernoulli([0.1, 0.9]), changed, (0.1, 0.9)),
    (Impulse([0.1, 0.9]), changed, (0.1, 0.9)),
    (Text([0.1, 0.5]), changed, (0.1, 0.5)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "measure", "limits"), STRENGTHS)
def test_each_image_has_one_strength_anywhere_in_the_range(
    noise: Noise, measure: Callable[[Tensor], Tensor], limits: tuple[float, float]
):
    low, high = limits
    drawn = noise.corrupt(torch.full((200, 2, 96, 192), 0.5), seeded_generator(3))
    found = measure(drawn)
    slack = 0.15 * (high - low)  # of an estimate from one image; text comes in whole strings
    assert low - slack < found.min() < low + slack and high - slack < found.max() < high + slack
    assert found.mean().item() == pytest.approx((low + high) / 2, abs=5 * (high - low) / (12 * 200) ** 0.5)
    assert found.std().item() == pytest.approx((high - low) / 12**0.5, rel=0.2)
    left, right = (measure(half) for half in drawn.chunk(2, 3))
    assert np.corrcoef(left, right)[0, 1] > 0.5, "one for the whole image"
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 5 / 200**0.5, "and one of its own"


def test_a_range_of_one_value_is_that_value():
    drawn = Gaussian([25, 25]).corrupt(torch.zeros(50, 1, 40, 40), seeded_generator(0))
    assert spread(drawn).mean().item() == pytest.approx(25, rel=0.02)


def test_a_step_of_a_chain_may_have_a_range():
    noise = chain({"name": "gaussian", "sigma": [5, 60]}, "clip")
    drawn = noise.corrupt(torch.full((80, 1, 32, 32), 0.5), seeded_generator(0))
    assert spread(drawn).min() < 15 and spread(drawn).max() > 45


def test_steps_of_a_chain_share_their_strength_in_a_pair_where_they_do_alone():
    noise = chain({"name": "impulse", "p": [0.1, 0.9]}, {"name": "gaussian", "sigma": [0, 25]})
    images = torch.full((100, 1, 40, 40), -9.0)
    source, target, mask = noise.corrupt_pair(images, seeded_generator(0))
    replaced, other = ((drawn > -5).double().mean((1, 2, 3)) for drawn in (source, target))
    assert mask is None and replaced.min() < 0.2 and replaced.max() > 0.8
    assert (replaced - other).abs().max() < 5 * (2 * 0.25 / 1600) ** 0.5
    sigmas = [[image[image < -5].std() for image in drawn] for drawn in (source, target)]
    assert abs(np.corrcoef(sigmas)[0, 1]) < 5 / 100**0.5, "while Gaussian strengths are drawn for each"
    assert noise.steps[0] == Impulse([0.1, 0.9]), "the chain itself is unchanged"


# What is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian(-1), r"sigma must be 0 or more, or \[low, high\].* got -1; set noise.sigma=25"),
        (lambda: Gaussian([5, 1]), r"got \[5, 1\]; set noise.sigma=25"),
        (lambda: Gaussian([5]), r"got \[5\]"),
        (lambda: Gaussian([1, 2, 3]), r"got \[1, 2, 3\]"),
        (lambda: Gaussian([-1, 2]), r"got \[-1, 2\]"),
        (lambda: Gaussian(float("nan")), "got nan"),
        (lambda: Brown(-3), "sigma must be 0 or more.*got -3; set noise.sigma=25"),
        (lambda: Brown(25, 0), "blur_px must be above 0, at most 100, got 0; set noise.blur_px=2"),
        (lambda: Brown(25, 101), "got 101"),
        (lambda: Poisson(0), "lam must be above 0.*got 0; set noise.lam=30"),
        (lambda: Poisson([0, 5]), r"got \[0, 5\]"),
        (lambda: Bernoulli(1.1), "p must be 0 or more, at most 1.*got 1.1; set noise.p=0.5"),
        (lambda: Impulse([0.5, 2]), r"p must be 0 or more, at most 1.*got \[0.5, 2\]; set noise.p=0.5"),
        (lambda: Text(0.6), "coverage must be 0 or more, at most 0.5.*got 0.6; set noise.coverage=0.25"),
        (lambda: Pixelate(1), "cell_px must be 2 or more, got 1; set noise.cell_px=8"),
        (lambda: Chain([]), r"steps .* got none; set noise\.steps="),
        (lambda: chain("gaussian", "pixelate"), "pixelate can only be the first of noise.steps; put it there"),
        (lambda: chain("gaussian", "poisson"), "after noise that goes below 0; put poisson before"),
        (lambda: chain("poisson_gaussian", "poisson"), "after noise that goes below 0; put poisson before"),
        (lambda: PoissonGaussian(-1), "gain must be 0 or more.*got -1"),
        (lambda: PoissonGaussian(0.1, [5, 2]), r"sigma must be 0 or more.*got \[5, 2\]"),
        (lambda: chain({"name": "gaussian", "sigma": -1}), "sigma must be 0 or more"),
    ],
)
def test_a_bad_value_is_refused_with_what_to_set(make: Callable[[], Noise], words: str):
    with pytest.raises(ValueError, match=words):
        make()


# Configurations


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_has_a_configuration_with_its_defaults(name: str):
    settings = compose_config(f"noise={name}", "data=clean", "data.root=there")["noise"]
    if name == "chain":  # which has none
        assert make_noise(settings).steps == [Poisson(30), Gaussian(5)]
    else:
        assert make_noise(settings) == NOISES[name]() and settings.pop("name") == name


def test_every_configuration_is_of_a_noise():
    assert set(group_choices("noise")) - {"none"} == set(NOISES)


def test_only_what_keeps_everything_is_said_to():
    assert {name for name in NOISES if name != "chain" and NOISES[name]().preserves == ALL} == {
        *("gaussian", "brown", "bernoulli")
    }
