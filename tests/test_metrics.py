"""Image quality against scikit-image and sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics import MeanMetric

from n2n_lightning.metrics import RestorationQuality, WeightedMean, judge_net, psnr_db, squared_error, ssim


@pytest.fixture
def triple() -> tuple[Tensor, Tensor, Tensor]:
    """(noisy, estimate, clean), each (7, 3, 24, 17) float32; the first two leave [0, 1]."""
    rng = torch.Generator().manual_seed(3)
    clean = torch.rand(7, 3, 6, 5, generator=rng).repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :17]
    sigma = torch.linspace(0.01, 0.4, 7).reshape(7, 1, 1, 1)
    noisy = clean + 1.5 * sigma * torch.randn(clean.shape, generator=rng)
    estimate = clean + sigma * torch.randn(clean.shape, generator=rng)
    assert estimate.min() < 0 and estimate.max() > 1
    return noisy, estimate, clean


def scored(noisy: Tensor, estimate: Tensor, clean: Tensor, *, batch: int) -> RestorationQuality:
    quality = RestorationQuality()
    for parts in zip(noisy.split(batch), estimate.split(batch), clean.split(batch), strict=True):
        quality.update(*parts)
    return quality


def clipped_pairs(estimate: Tensor, clean: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(e.clip(0, 1), c) for e, c in zip(estimate.double().numpy(), clean.double().numpy(), strict=True)]


def test_psnr_agrees_with_scikit_image(triple: tuple[Tensor, Tensor, Tensor]):
    noisy, estimate, clean = triple
    scores = scored(*triple, batch=3).per_image()
    for name, images in (("psnr", estimate), ("noisy_psnr", noisy)):
        expected = [peak_signal_noise_ratio(c, e, data_range=1) for e, c in clipped_pairs(images, clean)]
        np.testing.assert_allclose(scores[name], expected, atol=1e-4)


def test_ssim_agrees_with_scikit_image(triple: tuple[Tensor, Tensor, Tensor]):
    _, estimate, clean = triple
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = [structural_similarity(e, c, channel_axis=0, **options) for e, c in clipped_pairs(estimate, clean)]
    np.testing.assert_allclose(scored(*triple, batch=4).per_image()["ssim"], expected, atol=1e-4)


def test_scores_within_other_limits_agree_with_scikit_image(triple: tuple[Tensor, Tensor, Tensor]):
    """Values below 0: the estimate is clipped to the data's own span, and the PSNR is for a range of 1."""
    noisy, estimate, clean = (images * 1.25 - 0.5 for images in triple)
    low, high = limits = (-0.5, 0.75)
    quality = RestorationQuality()
    quality.update(noisy, estimate, clean, limits)
    found = quality.per_image()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": high - low}
    for number, (one, truth) in enumerate(zip(estimate.double().numpy(), clean.double().numpy(), strict=True)):
        clipped = one.clip(low, high)
        expected = peak_signal_noise_ratio(truth, clipped, data_range=1)
        assert found["psnr"][number].item() == pytest.approx(expected, abs=1e-4)
        similarity = structural_similarity(clipped, truth, channel_axis=0, **options)
        assert found["ssim"][number].item() == pytest.approx(similarity, abs=1e-4)
    assert quality.compute()["constant_channels"] == []


def test_ssim_of_a_single_channel(triple: tuple[Tensor, Tensor, Tensor]):
    _, estimate, clean = (images[:2, :1] for images in triple)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = [structural_similarity(e[0], c[0], **options) for e, c in clipped_pairs(estimate, clean)]
    values = ssim(estimate, clean)
    assert values is not None
    np.testing.assert_allclose(values, expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "defined"), [(11, 11, True), (10, 40, False), (40, 10, False)])
def test_ssim_needs_eleven_pixels(height: int, width: int, defined: bool):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    assert (ssim(images, images) is not None) is defined
    assert ("ssim" in scored(images, images, images, batch=2).compute()) is defined


def test_the_estimate_is_clipped_before_it_is_scored():
    clean = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    too_far = torch.tensor([-0.7, 1.9]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert squared_error(too_far, clean).tolist() == [0, 0]


def test_psnr_by_hand_and_its_ceiling():
    # 10 log10(1 / 0.01) = 20 dB; a perfect image counts as an MSE of 1e-8, 80 dB, and so does anything better than that
    mse = torch.tensor([1.0, 0.01, 1e-8, 1e-9, 0.0], dtype=torch.float64)
    np.testing.assert_allclose(psnr_db(mse), [0, 20, 80, 80, 80], atol=1e-9)


@pytest.mark.parametrize("batch", [1, 5])
def test_scores_do_not_depend_on_the_batch_size(triple: tuple[Tensor, Tensor, Tensor], batch: int):
    in_batches, at_once = (scored(*triple, batch=size).compute() for size in (batch, 7))
    assert in_batches.keys() == at_once.keys()
    for name, value in at_once.items():
        # SSIM's convolutions may add up in another order for another batch
        assert in_batches[name] == (pytest.approx(value, abs=1e-6) if name == "ssim" else value)


def test_mean_and_pooled_psnr_by_hand():
    # two images off by 0.1 and 0.01 everywhere: MSE 1e-2 and 1e-4, 20 and 40 dB; the mean is 30 dB, while the pooled
    # MSE (1e-2 + 1e-4) / 2 = 5.05e-3 makes 22.967 dB; the noisy ones are off by 0.2: 0.04, 13.979 dB
    clean = torch.full((2, 3, 4, 4), 0.5)
    off = torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)
    scores = scored(clean - 0.2, clean + off, clean, batch=1).compute()
    assert scores["psnr"] == pytest.approx(30, abs=1e-3)
    assert scores["psnr_pooled"] == pytest.approx(22.967, abs=1e-3)
    assert scores["noisy_psnr"] == pytest.approx(13.979, abs=1e-3)


def test_a_constant_output_channel_is_found_over_all_batches():
    clean = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    estimate = clean.clone()
    estimate[:, 1] = 0.4
    assert scored(clean, estimate, clean, batch=2).compute()["constant_channels"] == [1]
    # constant within each batch, but not over both: an image of one colour is no sign of death
    estimate[2:, 1] = 0.6
    assert scored(clean, estimate, clean, batch=2).compute()["constant_channels"] == []


def test_a_channel_that_is_constant_in_the_clean_images_too_is_not_held_against_the_net():
    clean = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    clean[:, 2] = 0.25
    assert scored(clean, clean, clean, batch=4).compute()["constant_channels"] == []


def test_constant_means_constant_in_eight_bits():
    clean = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    wobble = torch.linspace(-1, 1, 64).reshape(8, 8)
    estimate = torch.stack([0.5 + wobble * 0.2 / 255, 0.5 + wobble * 0.3 / 255])[None]  # spans of 0.4 and 0.6 levels
    assert scored(clean, estimate, clean, batch=1).compute()["constant_channels"] == [0]


@pytest.mark.parametrize(
    ("psnr", "improving", "status", "words"),
    [
        (25.0, False, "done", None),
        (19.9, False, "done", "below the noisy input"),
        (17.1, False, "done", "below the noisy input"),
        (16.9, False, "dead", "more than 3 dB below"),
        (16.9, True, "done", "still improving"),  # as after one epoch
    ],
)
def test_only_a_net_that_stays_far_below_the_noisy_input_is_dead(
    psnr: float, improving: bool, status: str, words: str | None
):
    found, reason = judge_net("val/psnr", [], psnr, 20.0, improving=improving)
    assert found == status
    assert reason is None if words is None else reason is not None and words in reason and "20.00" in reason


def test_a_constant_channel_is_dead_whatever_the_score():
    status, reason = judge_net("val/psnr", [0, 2], 30.0, 20.0, improving=True)
    assert status == "dead"
    assert reason is not None and "0, 2" in reason


def test_a_weighted_mean_is_that_of_torchmetrics_and_keeps_nan():
    ours, theirs = WeightedMean(), MeanMetric()
    for value, weight in ((0.5, 3), (2.0, 1), (0.25, 8)):
        ours.update(torch.tensor(value), weight)
        theirs.update(value, weight)
    torch.testing.assert_close(ours.compute(), theirs.compute())
    assert ours.weight == 12
    ours.reset()
    ours.update(torch.tensor(3.0), 2)
    assert ours.compute() == 3
    ours.update(torch.tensor(torch.nan), 2)
    assert ours.compute().isnan()
