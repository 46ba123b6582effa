"""PSNR without clean images: the estimate, its interval, and the floor under the loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.losses import LOSSES, noise_floor
from n2n_lightning.metrics import PairQuality, bootstrap_interval, pair_error, psnr_db, squared_error, triple_error

Corrupt = Callable[[Tensor, float, torch.Generator], Tensor]

# The estimate


def test_the_estimate_of_a_pair_by_hand():
    # g1 = 0.2 and 1.3, clipped to 1; g2 = 0.4 and -0.2, clipped to 0; y1 = 0.1 and 0.9; y2 = 0.5 and 1.2
    g1, g2, y1, y2 = (
        torch.tensor([pixels]).reshape(1, 1, 1, 2) for pixels in ([0.2, 1.3], [0.4, -0.2], [0.1, 0.9], [0.5, 1.2])
    )
    first = 0.5 * ((0.2 - 0.5) ** 2 + (0.4 - 0.1) ** 2 - (0.1 - 0.5) ** 2)
    second = 0.5 * ((1 - 1.2) ** 2 + (0 - 0.9) ** 2 - (0.9 - 1.2) ** 2)
    assert pair_error(g1, g2, y1, y2).tolist() == pytest.approx([(first + second) / 2])


def test_the_estimate_of_three_frames_by_hand():
    g1, y2, y3 = (torch.tensor([pixels]).reshape(1, 1, 1, 2) for pixels in ([0.2, 1.3], [0.5, 1.2], [0.1, 0.4]))
    expected = ((0.2 - 0.5) * (0.2 - 0.1) + (1 - 1.2) * (1 - 0.4)) / 2
    assert triple_error(g1, y2, y3).tolist() == pytest.approx([expected])


def gaussian(clean: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=rng)


def skewed(clean: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Exponential, and stronger where it is bright."""
    return clean - 2 * clean * sigma * (torch.rand(clean.shape, generator=rng).log() + 1)


def blotched(clean: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """Add noise that is the same in all four pixels of a cell and in all channels."""
    n, _, height, width = clean.shape
    noise = sigma * torch.randn(n, 1, height // 2, width // 2, generator=rng)
    return clean + F.interpolate(noise, scale_factor=2)


def denoise(noisy: Tensor) -> Tensor:
    """Denoise poorly: blur, darken, and leave [0, 1] often enough for the clipping to matter."""
    return 2.2 * (F.avg_pool2d(F.pad(noisy, (1, 1, 1, 1), mode="replicate"), 3, 1) - 0.45) + 0.4


def drawn(corrupt: Corrupt, sigmas: tuple[float, ...]) -> tuple[Tensor, list[Tensor]]:
    """3,000 scenes (N, 2, 8, 8) and their noisy versions."""
    rng = seeded_generator(8)
    clean = torch.rand(3000, 2, 8, 8, generator=rng)
    return clean, [corrupt(clean, sigma, rng) for sigma in sigmas]


def standard_errors_off(estimated: Tensor, true: Tensor) -> float:
    """How far the means are apart; both (N,)."""
    off = (estimated - true).double()
    error = off.std() / len(off) ** 0.5
    assert error < 0.02 * true.mean(), "too few draws to tell"
    return float(off.mean() / error)


@pytest.mark.parametrize("sigmas", [(0.1, 0.1), (0.03, 0.3), (0.3, 0.03)])
@pytest.mark.parametrize("corrupt", [gaussian, skewed, blotched])
def test_it_is_unbiased_whatever_the_noise_and_the_two_variances(corrupt: Corrupt, sigmas: tuple[float, float]):
    clean, (y1, y2) = drawn(corrupt, sigmas)
    g1, g2 = denoise(y1), denoise(y2)
    assert ((g1 < 0) | (g1 > 1)).float().mean() > 0.01
    true = 0.5 * (squared_error(g1, clean) + squared_error(g2, clean))
    assert abs(standard_errors_off(pair_error(g1, g2, y1, y2), true)) < 4


@pytest.mark.parametrize("sigmas", [(0.1, 0.1, 0.1), (0.03, 0.2, 0.3), (0.3, 0.05, 0.1)])
@pytest.mark.parametrize("corrupt", [gaussian, skewed, blotched])
def test_three_frames_are_unbiased_too(corrupt: Corrupt, sigmas: tuple[float, float, float]):
    clean, (y1, y2, y3) = drawn(corrupt, sigmas)
    estimate = denoise(y1)
    assert abs(standard_errors_off(triple_error(estimate, y2, y3), squared_error(estimate, clean))) < 4


def test_shared_noise_and_clipped_noise_are_what_breaks_it():
    """The test above must be able to fail."""
    clean, (y1, y2, shared) = drawn(gaussian, (0.1, 0.1, 0.1))
    for one, other in ((y1 + shared - clean, y2 + shared - clean), (y1.clamp(0, 0.6), y2.clamp(0, 0.6))):
        g1, g2 = denoise(one), denoise(other)
        true = 0.5 * (squared_error(g1, clean) + squared_error(g2, clean))
        assert abs(standard_errors_off(pair_error(g1, g2, one, other), true)) > 10


# The floor under the loss


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize(
    ("name", "sigmas"), [("l2", (0.2, 0.2)), ("l2", (0.05, 0.2)), ("l2", (0.2, 0.05)), ("l1", (0.2, 0.2))]
)
def test_the_floor_is_the_loss_of_a_perfect_estimate(name: str, sigmas: tuple[float, float], frames: int):
    clean, (y1, y2) = drawn(gaussian, sigmas)
    third = gaussian(clean, 0.1, seeded_generator(77)) if frames == 3 else None
    floor = noise_floor(name, y1, y2, third)
    beside = clean.std().item() if frames == 2 else 0.1  # what the noise is multiplied with, which has no mean
    chance = 4 * beside * math.hypot(*sigmas) / clean.numel() ** 0.5
    assert floor is not None and floor.item() == pytest.approx(LOSSES[name](clean, y2).item(), rel=0.03, abs=chance)


def test_for_l2_the_loss_is_the_floor_and_the_mean_squared_error():
    clean, (y1, y2) = drawn(gaussian, (0.2, 0.1))
    estimate = denoise(y1)
    floor = noise_floor("l2", y1, y2, None)
    assert floor is not None
    above = (LOSSES["l2"](estimate, y2) - floor).item()
    assert above == pytest.approx(LOSSES["l2"](estimate, clean).item(), rel=0.05)


def test_the_regularised_loss_has_no_floor():
    images = torch.zeros(1, 1, 2, 2)
    assert noise_floor("neighbor2neighbor", images, images, None) is None


# Over a validation set


def scored(errors: Tensor, groups: Tensor | None = None, *, batch: int = 100) -> dict[str, float]:
    quality = PairQuality()
    for start in range(0, len(errors), batch):
        part = slice(start, start + batch)
        quality.update(errors[part], 4 * errors[part], None if groups is None else groups[part])
    return quality.compute()


def spread_errors(count: int = 60) -> Tensor:
    return 0.01 + 0.004 * torch.randn(count, generator=seeded_generator(6))


def test_the_mean_error_is_pooled_before_the_logarithm():
    scores = scored(torch.tensor([0.01, 0.03, 0.002]))
    assert scores["psnr_pairs"] == pytest.approx(-10 * np.log10(0.014), abs=1e-6)
    assert scores["noisy_psnr_pairs"] == pytest.approx(-10 * np.log10(4 * 0.014), abs=1e-6)
    assert scores["psnr_pairs_low"] < scores["psnr_pairs"] < scores["psnr_pairs_high"]


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("grouped", [True, False])
def test_nothing_depends_on_the_batch_size(batch: int, grouped: bool):
    groups = torch.arange(60) // 5 if grouped else None
    assert scored(spread_errors(), groups, batch=batch) == scored(spread_errors(), groups)


def test_without_groups_each_image_is_one_of_its_own():
    assert scored(spread_errors(), batch=7) == scored(spread_errors(), torch.arange(60))


def test_an_estimate_that_is_not_above_zero_is_given_as_the_intervals_lower_bound():
    errors = torch.tensor([-0.02, 0.004, 0.008, -0.001, 0.006, 0.002])
    assert errors.mean() < 0
    scores = scored(errors)
    _, high = bootstrap_interval(errors.double(), torch.arange(6)) or (0, 0)
    assert high > 0 and scores["psnr_pairs"] == scores["psnr_pairs_low"] == pytest.approx(-10 * np.log10(high))
    assert scores["psnr_pairs_high"] == 80, "the ceiling"


def test_an_estimate_that_is_not_above_zero_and_has_no_interval_is_worth_no_more_than_the_noisy_image():
    quality = PairQuality()
    quality.update(torch.tensor([-0.02, 0.004]), torch.tensor([0.03, 0.05]), torch.tensor([5, 5]))
    assert quality.compute() == pytest.approx(
        {"psnr_pairs": -10 * np.log10(0.04), "noisy_psnr_pairs": -10 * np.log10(0.04)}
    )


# The interval


@pytest.mark.parametrize(
    ("values", "groups"),
    [([0.5], [0]), ([0.1, 0.2, 0.3], [7, 7, 7]), ([0.2, 0.2, 0.2], [0, 1, 2]), ([0.1, 0.3, 0.3, 0.1], [0, 0, 1, 1])],
)
def test_one_group_or_groups_that_are_all_alike_have_no_interval(values: list[float], groups: list[int]):
    assert bootstrap_interval(torch.tensor(values, dtype=torch.float64), torch.tensor(groups)) is None
    assert not {"psnr_pairs_low", "psnr_pairs_high"} & scored(torch.tensor(values), torch.tensor(groups)).keys()


def test_the_interval_of_normal_values_is_the_textbooks():
    values = torch.randn(400, generator=seeded_generator(3), dtype=torch.float64)
    low, high = bootstrap_interval(values, torch.arange(400)) or (0, 0)
    error = values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean().item() + 1.96 * error, abs=0.15 * error)


def test_whole_groups_are_resampled():
    """Images of one scene in common have one error: 20 scenes are 20 values, however many crops they give."""
    scenes = torch.randn(20, generator=seeded_generator(3), dtype=torch.float64)
    alone = bootstrap_interval(scenes, torch.arange(20))
    repeated, groups = scenes.repeat(10), torch.arange(20).repeat(10)
    assert alone is not None and bootstrap_interval(repeated, groups) == pytest.approx(alone)
    as_if_independent = bootstrap_interval(repeated, torch.arange(200))
    assert as_if_independent is not None
    wider = (alone[1] - alone[0]) / (as_if_independent[1] - as_if_independent[0])
    assert wider == pytest.approx(10**0.5, rel=0.1)


def test_groups_weigh_as_many_images_as_they_have():
    """Forty images of 0.1 and forty groups of nine of 0.2: the mean is 0.19, and not 0.15 as of the groups' means."""
    values = torch.tensor([0.1] * 40 + [0.2] * 360, dtype=torch.float64)
    groups = torch.cat([torch.arange(40), 40 + torch.arange(360) // 9])
    low, high = bootstrap_interval(values, groups) or (0, 0)
    assert 0.18 < low < 0.19 < high < 0.2
    assert scored(values.float(), groups)["psnr_pairs"] == pytest.approx(psnr_db(torch.tensor(0.19)).item(), abs=1e-4)


def test_the_interval_is_always_the_same():
    values, groups = spread_errors().double(), torch.arange(60) // 2
    first = bootstrap_interval(values, groups)
    np.random.seed(1)
    torch.manual_seed(1)
    assert bootstrap_interval(values, groups) == first
    order = torch.randperm(60, generator=seeded_generator(0))
    assert bootstrap_interval(values[order], groups[order]) == pytest.approx(first)
    assert bootstrap_interval(values, groups + 1000) == first


def test_the_interval_covers_the_truth_19_times_in_20():
    """Of skewed values, 80 in 40 groups. 95 % of 200 is 190 with a standard deviation of 3."""
    rng = seeded_generator(11)
    covered = 0
    for _ in range(200):
        scenes = 0.5 * (0.5 * torch.randn(40, generator=rng, dtype=torch.float64)).exp()
        values = (scenes[:, None] * (1 + 0.2 * torch.randn(40, 2, generator=rng, dtype=torch.float64))).flatten()
        low, high = bootstrap_interval(values, torch.arange(80) // 2, resamples=500) or (0, 0)
        covered += low <= 0.5 * np.exp(0.125) <= high
    assert 175 <= covered <= 199, covered
