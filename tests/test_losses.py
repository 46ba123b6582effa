"""The losses: values and gradients by hand, what they find in noisy targets, masks, and the advice to choose by."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import compose_config, compose_settings, train_in
from torch import Tensor

from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.losses import LOSSES, MINIMUM_AT, charbonnier, hdr, l0, l1, l2, l2_by_noise
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.noise.kinds import Bernoulli
from n2n_lightning.self_supervised.choices import ALL_LOSSES, SINGLE_LOSSES
from n2n_lightning.system.hydra_app import group_choices
from n2n_lightning.training.build import build_module
from n2n_lightning.training.check import loss_advice

ESTIMATE = torch.tensor([0.5, -0.2, 0.3, 1.0])
TARGET = torch.tensor([0.1, 0.1, 0.3, 1.5])
OFF = np.array([0.4, 0.3, 0.0, 0.5])  # by hand
CLEAN = ("data=clean", "data.root=there")


def module_of(*overrides: str) -> DenoiserModule:
    return build_module(compose_settings("model=convtrans_relu", *overrides), 3)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (l2(ESTIMATE, TARGET), np.mean(OFF**2)),
        (l1(ESTIMATE, TARGET), np.mean(OFF)),
        (charbonnier(ESTIMATE, TARGET), np.mean(np.hypot(OFF, 1e-3))),
        (charbonnier(ESTIMATE, TARGET, eps=0.3), np.mean(np.hypot(OFF, 0.3))),
        (l0(ESTIMATE, TARGET, progress=0), np.mean(OFF**2)),
        (l0(ESTIMATE, TARGET, progress=0.5), np.mean(OFF)),
        (l0(ESTIMATE, TARGET, progress=0.75), np.mean(np.sqrt(OFF + 1e-8))),
        (l0(ESTIMATE, TARGET, progress=1), 1.0),
        (hdr(ESTIMATE, TARGET), np.mean((OFF / np.array([0.51, 0.01, 0.31, 1.01])) ** 2)),  # below 0 counts as 0
    ],
)
def test_values_are_as_by_hand(loss: Tensor, expected: float):
    assert loss.ndim == 0 and loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_hdr_does_not_go_through_its_denominator():
    estimate = ESTIMATE.clone().requires_grad_()
    hdr(estimate, TARGET).backward()
    signed = np.array([0.4, -0.3, 0.0, -0.5])
    np.testing.assert_allclose(estimate.grad, 2 * signed / np.array([0.51, 0.01, 0.31, 1.01]) ** 2 / 4, rtol=1e-5)


def test_l2_by_noise_weighs_each_image_by_what_is_taken_off_it_without_a_gradient():
    estimate, target, source = torch.rand(3, 2, 3, 4, 5, generator=seeded_generator(0)).double()
    estimate.requires_grad_()
    loss = l2_by_noise(estimate, target, source=source, eps=0.01)
    loss.backward()
    off, taken = ((estimate.detach() - other).numpy() for other in (target, source))
    units = [np.mean(image**2) + 0.01 for image in taken]
    assert loss.item() == pytest.approx(np.mean([np.mean(o**2) / u for o, u in zip(off, units, strict=True)]))
    np.testing.assert_allclose(estimate.grad, [2 * o / u / 120 for o, u in zip(off, units, strict=True)])


def test_gradients_stay_finite_where_nothing_is_off():
    for loss in (charbonnier, hdr, l1, lambda *pair: l0(*pair, progress=0.99)):
        estimate = TARGET.clone().requires_grad_()
        loss(estimate, TARGET).backward()
        assert estimate.grad is not None and estimate.grad.isfinite().all()


# 35 % of the targets are 0.2, the others spread above it, as exp does
SKEWED = torch.from_numpy(np.r_[np.full(350, 0.2), 0.2 - 0.3 * np.log(1 - (np.arange(650) + 0.5) / 650)])
STATISTICS = {"mode": 0.2, "median": 0.2 - 0.3 * np.log(1 - (0.5 - 0.35) / 0.65), "mean": 0.2 + 0.65 * 0.3}


@pytest.mark.parametrize("name", LOSSES)
def test_a_constant_estimate_of_skewed_targets_is_best_at_the_statistic_that_the_loss_finds(name: str):
    """The least loss; or where its gradient changes its sign, if that leaves out a part of the loss."""
    targets = SKEWED.reshape(1, 1, 1, 1000)
    arguments = {"l0": {"progress": 0.98}, "l2_by_noise": {"source": torch.zeros_like(targets)}}.get(name, {})
    expected, step = STATISTICS[MINIMUM_AT[name]], 0.002
    grid = torch.arange(0.1, 1.0, step, dtype=torch.float64)
    losses, slopes = [], []
    for value in grid:
        estimate = value.clone().requires_grad_()
        loss = LOSSES[name](estimate.expand(1, 1, 1, 1000), targets, **arguments)
        loss.backward()
        losses.append(loss.item())
        slopes.append(estimate.grad.item())
    if name in ("hdr", "l2_by_noise"):  # not a descent of the loss itself
        rising = next(number for number, slope in enumerate(slopes) if slope > 0)
        assert all(slope > 0 for slope in slopes[rising:])
        found = grid[rising]
    else:
        found = grid[int(np.argmin(losses))]
    assert found.item() == pytest.approx(expected, abs=2 * step)


@pytest.mark.parametrize(("progress", "statistic"), [(0.0, "mean"), (0.5, "median"), (0.98, "mode")])
def test_l0_looks_for_one_statistic_after_the_other(progress: float, statistic: str):
    grid = torch.arange(0.1, 1.0, 0.002, dtype=torch.float64)
    losses = [l0(value.expand(1000), SKEWED, progress=progress).item() for value in grid]
    assert grid[int(np.argmin(losses))].item() == pytest.approx(STATISTICS[statistic], abs=0.004)


def test_every_loss_has_a_configuration_with_its_defaults_and_is_known_to_find_something():
    assert set(LOSSES) == set(MINIMUM_AT) and set(ALL_LOSSES) == set(group_choices("loss"))
    for name, loss in ALL_LOSSES.items():
        settings = compose_config(f"loss={name}", *(("data=single", "data.root=a") if name in SINGLE_LOSSES else ()))
        parameters = inspect.signature(loss).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        assert settings["loss"] == {"name": name} | defaults


def test_validation_has_one_loss_however_far_training_is():
    estimate, target, source = torch.rand(3, 2, 3, 4, 5, generator=seeded_generator(0))
    module, pair = module_of("loss=l0"), NoisyPair(source, target)
    for progress in (0.0, 0.9):
        module.progress = progress
        expected = l0(estimate, target, progress=progress)
        assert module.train().pair_loss(estimate, target, pair) == expected
        torch.testing.assert_close(module.eval().pair_loss(estimate, target, pair), l1(estimate, target))


# Masks


@pytest.mark.parametrize("name", LOSSES)
def test_what_the_mask_leaves_out_counts_for_nothing(name: str):
    module = module_of(f"loss={name}")
    module.progress = 0.4
    estimate, target, other = torch.rand(3, 2, 3, 6, 5, generator=seeded_generator(0))
    mask = torch.rand(2, 1, 6, 5, generator=seeded_generator(1)) < 0.5
    source = torch.rand(2, 3, 6, 5, generator=seeded_generator(2))
    masked, plain, ones = (NoisyPair(source, None, mask=m) for m in (mask, None, torch.ones_like(mask)))
    estimate.requires_grad_()
    loss = module.pair_loss(estimate, target, masked)
    loss.backward()
    assert module.pair_loss(estimate, torch.where(mask, target, other), masked) == loss
    assert module.pair_loss(estimate, target, masked._replace(source=torch.where(mask, source, other))) == loss
    assert module.pair_loss(estimate, torch.where(mask, other, target), masked) != loss
    assert estimate.grad is not None
    assert not estimate.grad[~mask.expand(2, 3, 6, 5)].any() and estimate.grad[mask.expand(2, 3, 6, 5)].all()
    torch.testing.assert_close(module.pair_loss(estimate, target, plain), module.pair_loss(estimate, target, ones))


def test_the_masked_loss_is_that_of_clean_targets_on_average():
    clean, estimate = torch.rand(2, 1, 3, 8, 8, generator=seeded_generator(0))
    target, mask = Bernoulli(0.3).corrupt_target(clean.expand(4000, -1, -1, -1), seeded_generator(1))
    pair = NoisyPair(target, target, mask=mask)
    loss = module_of().pair_loss(estimate.expand(4000, -1, -1, -1), target, pair)
    assert loss.item() == pytest.approx(0.7 * l2(estimate, clean).item(), rel=0.01)
    unmasked = module_of().pair_loss(estimate.expand(4000, -1, -1, -1), target, pair._replace(mask=None))
    assert abs(unmasked.item() / l2(estimate, clean).item() - 1) > 0.1, "which the mask is for"


# Advice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*CLEAN, "noise=text", "loss=l2"], ["text noise keeps", "loss=l2 looks for the mean", "loss=l1 or loss=l0"]),
        ([*CLEAN, "noise=text", "loss=hdr"], ["loss=hdr looks for the mean", "try loss=l1 or loss=l0"]),
        ([*CLEAN, "noise=poisson", "loss=l1"], ["keeps the mean of", "loss=l1 looks for the median: try loss=l2"]),
        ([*CLEAN, "noise=poisson", "loss=charbonnier"], ["loss=charbonnier looks for the median: try loss=l2"]),
        ([*CLEAN, "noise=impulse", "loss=l1"], ["keeps the mode of", "looks for the median: try loss=l0"]),
        ([*CLEAN, "noise=pixelate", "loss=l0"], ["pixelate noise", "looks for the mode: try loss=l2"]),
        ([*CLEAN, "noise=clip", "loss=l2"], ["looks for the mean: try loss=l1"]),
        ([*CLEAN, "noise=chain", "loss=l1"], ["chain noise keeps the mean", "try loss=l2"]),
        ([*CLEAN, "noise=chain", "noise.steps=[{name:gaussian},{name:clip}]"], ["keeps the median of", "try loss=l1"]),
        (["loss=l1"], ["pixelate noise keeps the mean", "try loss=l2"]),
        (["data=ee559", "data.root=there", "loss=l0"], ["try loss=l2"]),
    ],
)
def test_a_loss_that_looks_for_what_the_noise_moves_is_advised_against(overrides: list[str], words: list[str]):
    said = loss_advice(compose_settings(*overrides))
    assert said is not None
    for word in words:
        assert word in said


def test_noise_that_moves_everything_has_no_loss_to_try():
    said = loss_advice(compose_settings(*CLEAN, "noise=chain", "noise.steps=[{name:poisson},{name:text}]"))
    assert said == "chain noise keeps neither mean, median nor mode: set data.targets=clean"


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [*CLEAN, "loss=l2"],
        [*CLEAN, "loss=l1"],
        [*CLEAN, "noise=brown", "loss=l0"],
        [*CLEAN, "noise=bernoulli", "loss=charbonnier"],
        [*CLEAN, "noise=poisson", "loss=hdr"],
        [*CLEAN, "noise=text", "loss=l1"],
        [*CLEAN, "noise=impulse", "loss=l0"],
        [*CLEAN, "noise=impulse", "noise.p=0.4", "loss=l1"],
        [*CLEAN, "noise=text", "loss=l2", "data.targets=clean"],
        [*CLEAN, "noise=poisson", "loss=l1", "data.targets=clean"],
        ["loss=l1", "data.targets=clean"],
        ["data=single", "data.root=there"],
        ["data=burst", "data.root=there", "loss=l1"],
    ],
)
def test_a_loss_that_suits_or_whose_noise_is_unknown_is_not_advised_against(overrides: list[str]):
    assert loss_advice(compose_settings(*overrides)) is None


def test_the_advice_is_given_where_training_starts(
    course_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["model=convtrans_relu", "debug=fast"]
    train_in(tmp_path / "one", course_data, *options)
    assert "warning" not in capsys.readouterr().err
    train_in(tmp_path / "other", course_data, *options, "loss=l1")
    assert "warning: pixelate noise keeps the mean" in capsys.readouterr().err
