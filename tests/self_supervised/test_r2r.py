"""R2R: the two images have the noise that the paper says, and the loss finds the best denoiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.self_supervised.r2r import r2r

SEEDS = torch.tensor([3])
ZERO = ([0.0], [0.0])


def input_and_target(noisy: Tensor, **settings: float) -> tuple[Tensor, Tensor]:
    """Return what the net sees, and what it is compared with: for an estimate x, the loss is mean (x - target)^2."""
    seen: list[Tensor] = []

    def net(x: Tensor) -> Tensor:
        seen.append(x)
        return estimate

    estimate = torch.zeros_like(noisy).requires_grad_()
    r2r(net, noisy, SEEDS, variance=None, **settings).backward()
    assert estimate.grad is not None
    return seen[-1], -estimate.grad * noisy.numel() / 2


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_input_and_target_have_independent_noise_for_the_given_sigma(alpha: float):
    sigma = 0.1
    noisy = 0.5 + sigma * torch.randn(1, 1, 400, 400, generator=seeded_generator(0))
    source, target = (
        (x - 0.5).flatten().double().numpy() for x in input_and_target(noisy, sigma=255 * sigma, alpha=alpha)
    )
    assert np.var(source) == pytest.approx(sigma**2 * (1 + alpha**2), rel=0.02)
    assert np.var(target) == pytest.approx(sigma**2 * (1 + 1 / alpha**2), rel=0.02)
    assert abs(np.corrcoef(source, target)[0, 1]) < 0.01  # 2.5 standard errors
    wrong = input_and_target(noisy, sigma=0.5 * 255 * sigma, alpha=alpha)
    assert np.corrcoef(*(x.flatten() for x in wrong))[0, 1] > 0.2, "a variance that is too small leaves some"


def test_the_variance_is_that_at_the_nets_own_estimate_without_a_gradient():
    noisy = torch.full((1, 2, 200, 200), 0.3)
    level = torch.tensor([0.2, 0.8]).reshape(1, 2, 1, 1)
    seen: list[Tensor] = []

    def net(x: Tensor) -> Tensor:
        seen.append(x)
        return level.expand_as(x).clone().requires_grad_()

    r2r(net, noisy, SEEDS, variance=([0.01, 0.02], [0.0, 0.005]), alpha=1.0).backward()
    assert len(seen) == 2 and torch.equal(seen[0], noisy)
    found = (seen[1] - noisy).double().var((0, 2, 3)).numpy()
    np.testing.assert_allclose(found, [0.01 * 0.2, 0.02 * 0.8 + 0.005], rtol=0.03)


@pytest.mark.parametrize(("line", "calls"), [(([0.0], [0.01]), 1), (([0.0004], [0.01]), 1), (([0.01], [0.0]), 2)])
def test_the_net_runs_once_where_the_variance_does_not_depend_on_the_level(line: tuple[list[float], ...], calls: int):
    seen = []

    def net(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    r2r(net, torch.rand(1, 3, 8, 8, generator=seeded_generator(0)), SEEDS, variance=(line[0], line[1]))
    assert len(seen) == calls


def test_a_negative_level_or_variance_is_none():
    noisy = torch.full((1, 1, 8, 8), -0.5)
    for line in (([0.1], [0.0]), ([0.1], [-0.2])):
        assert r2r(lambda x: x, noisy, SEEDS, variance=line).item() == 0


def test_the_best_linear_denoiser_is_found():
    """Of f(x) = a x on a scene of variance s^2, the loss of R2R is least at a = s^2 / (s^2 + 1.25 sigma^2)."""
    clean = 0.2 * torch.randn(1, 1, 300, 300, generator=seeded_generator(0))
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=seeded_generator(1))
    grid = np.arange(0.3, 1.0, 0.01)
    losses = [r2r(lambda x, a=a: a * x, noisy, SEEDS, variance=ZERO, sigma=25.5).item() for a in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(0.04 / (0.04 + 1.25 * 0.01), abs=0.02)


def test_settings_that_cannot_be_are_refused():
    noisy = torch.zeros(1, 1, 4, 4)
    for settings, words in (
        ({"alpha": 0.0}, r"alpha must be above 0, got 0\.0; set loss\.alpha=0\.5"),
        ({"sigma": -1.0}, r"sigma must be 0 or more, got -1\.0; set loss\.sigma=25"),
        ({}, r"noise must be known for loss=r2r; set loss\.sigma=25"),
    ):
        with pytest.raises(ValueError, match=words):
            r2r(lambda x: x, noisy, SEEDS, variance=None, **settings)
