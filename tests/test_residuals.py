"""What a denoiser removed, and where it errs: against known noise, known signal and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from small_runs import smooth_images
from torch import Tensor

from n2n_lightning.metrics import pair_error, triple_error
from n2n_lightning.residuals import (
    autocorrelation_picture,
    autocovariance,
    error_picture,
    largest_correlation,
    pair_error_map,
    region_means,
    residual_picture,
    triple_error_map,
)


def white(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (5, 5), (3, 40)])
def test_the_autocovariance_is_scipys(shape: tuple[int, int]):
    images = white(2, 3, *shape) + torch.arange(6).reshape(2, 3, 1, 1)
    reach = min(4, *(side - 1 for side in shape))
    found = autocovariance(images, 4)
    assert found.shape == (2, 2 * reach + 1, 2 * reach + 1)
    for image, covariance in zip(images.double().numpy(), found, strict=True):
        planes = image - image.mean((1, 2), keepdims=True)
        counts = scipy.signal.correlate(np.ones(shape), np.ones(shape))
        expected = np.mean([scipy.signal.correlate(plane, plane) / counts for plane in planes], 0)
        rows, columns = (slice(side - 1 - reach, side + reach) for side in shape)
        assert covariance.numpy() == pytest.approx(expected[rows, columns], abs=1e-5)


def correlation(images: Tensor) -> float:
    return largest_correlation(autocovariance(images, 2).mean(0))


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_white_noise_has_no_correlation_and_smoothed_noise_its_own(sigma: float):
    noise = white(4, 1, 200, 200) * sigma + 5
    assert abs(correlation(noise)) < 0.02
    along = torch.from_numpy(scipy.ndimage.convolve1d(noise.numpy(), [0.3, 1.0], axis=3))  # r = 0.3 / (1 + 0.3^2)
    assert correlation(along) == pytest.approx(0.3 / 1.09, abs=0.02)
    against = torch.from_numpy(scipy.ndimage.convolve1d(noise.numpy(), [-0.3, 1.0], axis=2))
    assert correlation(against) == pytest.approx(-0.3 / 1.09, abs=0.02)


def test_signal_that_was_removed_shows_in_the_residual():
    """A blur removes fine detail with the noise; the truth removes the noise alone."""
    clean = torch.from_numpy(smooth_images(4, 64, seed=1, channels=1)).float() / 255
    noisy = clean + 0.05 * white(4, 1, 64, 64)
    blurred = torch.from_numpy(scipy.ndimage.gaussian_filter(noisy.numpy(), (0, 0, 6, 6)))
    assert abs(correlation(noisy - clean)) < 0.05 < 0.2 < correlation(noisy - blurred)


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 8, 8), torch.full((2, 3, 8, 8), 0.5), torch.ones(1, 1, 1, 1)])
def test_what_does_not_vary_has_no_correlation(images: Tensor):
    assert correlation(images) == 0
    for picture in (residual_picture(images - images.mean()), autocorrelation_picture(images)):
        assert picture.isfinite().all() and picture.shape[-2:] == images.shape[-2:]


@pytest.mark.parametrize("sigma", [1e-4, 0.1, 50.0])
def test_a_residual_of_any_strength_can_be_seen(sigma: float):
    picture = residual_picture(white(2, 3, 32, 32) * sigma)
    assert picture.min() >= 0 and picture.max() <= 1
    assert picture.mean().item() == pytest.approx(0.5, abs=0.02)
    assert picture.std().item() == pytest.approx(1 / 6, abs=0.01), "white is 3 standard deviations"


@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 50), (300, 400), (4, 4), (1, 9)])
def test_the_autocorrelation_is_drawn_as_large_as_the_image(height: int, width: int):
    noise = torch.from_numpy(scipy.ndimage.convolve1d(white(2, 3, height, width).numpy(), [0.6, 1.0], axis=3))
    picture = autocorrelation_picture(noise)
    assert picture.shape == (2, 1, height, width)
    if min(height, width) > 16:
        row, column, cell_height, cell_width = height // 2, width // 2, height // 15, width // 15
        assert (picture[:, 0, row, column] == 1).all(), "lag 0 is white and in the middle"
        assert (picture[:, 0, row, column + cell_width] == 1).all(), "0.44 is white too"
        assert (picture[:, 0, row - cell_height, column] < 0.9).all(), "there is none across"


def test_error_maps_have_the_metrics_means():
    noisy, second, third = (torch.rand(3, 2, 33, 20, generator=torch.Generator().manual_seed(n)) for n in range(3))
    estimate, other = noisy * 0.5 + 0.2, second * 0.5 + 0.2  # inside [0, 1], where the metrics clip nothing
    means = pair_error_map(estimate, other, noisy, second).flatten(1).mean(1)
    assert torch.allclose(means, pair_error(estimate, other, noisy, second), atol=1e-6)
    means = triple_error_map(estimate, second, third).flatten(1).mean(1)
    assert torch.allclose(means, triple_error(estimate, second, third), atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 48), (33, 20), (7, 50), (1, 1), (16, 17)])
def test_blocks_are_means_also_at_the_edges(shape: tuple[int, int]):
    image = white(1, 1, *shape)[0, 0]
    found = region_means(image[None, None])[0, 0]
    assert found.shape == shape
    for top in range(0, shape[0], 16):
        for left in range(0, shape[1], 16):
            block = (slice(top, top + 16), slice(left, left + 16))
            assert torch.allclose(found[block], image[block].mean(), atol=1e-5)


@pytest.mark.parametrize("frames", [2, 3])
def test_the_region_where_the_denoiser_errs_is_bright(frames: int):
    clean = torch.full((1, 1, 64, 64), 0.5)
    noisy, second, third = (clean + 0.1 * white(1, 1, 64, 64, seed) for seed in range(3))
    wrong = torch.zeros_like(clean)
    wrong[..., 16:32, 32:48] = 0.08
    estimate = clean + wrong
    errors = triple_error_map(estimate, second, third)
    if frames == 2:
        errors = pair_error_map(estimate, estimate, noisy, second)
    picture = error_picture(errors, torch.full((1,), 0.01))[0, 0, 8::16, 8::16]
    assert picture[1, 2].item() == pytest.approx(0.8, abs=0.12), "the root of the share of the noise"
    assert picture.flatten().argmax() == 4 + 2 and picture.flatten().kthvalue(15).values < 0.45
