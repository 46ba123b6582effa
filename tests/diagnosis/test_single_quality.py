"""The noise and the quality that are read from one noisy image, against what was added to a clean one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data
from torch import Tensor

from n2n_lightning.diagnosis.single_quality import SingleNoise, mean_derivative, sure_db
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.trained import GENERAL, find_trained
from n2n_lightning.noise_variance import NoiseVariance


def photograph() -> Tensor:
    """Return a photograph of a cat (in scikit-image) at half its size: (1, 3, 150, 225) float32 in [0, 1]."""
    pixels = data.chelsea()[:300, :450].astype(np.float32) / 255
    return torch.from_numpy(pixels.reshape(150, 2, 225, 2, 3).mean((1, 3))).permute(2, 0, 1)[None]


def blur(images: Tensor) -> Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(images.numpy(), (0, 0, 1.0, 1.0)))


def add_noise(clean: Tensor, gain: float, sigma: float) -> Tensor:
    rng = torch.Generator().manual_seed(3)
    photons = torch.poisson(clean / gain, generator=rng) * gain if gain else clean
    return photons + torch.randn(clean.shape, generator=rng) * sigma


def psnr(estimate: Tensor, clean: Tensor) -> float:
    return -10 * math.log10(float((estimate - clean).square().mean()))


@pytest.fixture(scope="module")
def general():
    path = find_trained().get(GENERAL)
    if path is None:
        pytest.skip("weights/general is not here")
    module = load_denoiser(path)

    @torch.no_grad()
    def denoise(images: Tensor) -> Tensor:
        return module(images)

    return denoise


def test_the_derivative_of_a_linear_filter_is_its_middle_weight():
    weight = ndimage.gaussian_filter(np.eye(41)[20], 1.0)[20] ** 2  # of a separable blur in two directions
    noisy = torch.randn((1, 1, 300, 300), generator=torch.Generator().manual_seed(0))
    assert float(mean_derivative(blur, noisy, blur(noisy), 0.1).mean()) == pytest.approx(weight, rel=0.02)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_sure_knows_that_poisson_noise_is_skewed(sigma: float):
    """An estimate that curves: with skewed noise its covariance with the noise is more than variance x derivative."""

    def curve(images: Tensor) -> Tensor:
        square = (images - blur(images)).square()
        return blur(images) + 2 * (square - square.mean())

    clean, gain = photograph(), 0.02
    noisy = add_noise(clean, gain, sigma)
    known = NoiseVariance(np.full(3, gain), np.full(3, sigma**2))
    truth = psnr(curve(noisy), clean)
    assert sure_db(curve, noisy, known) == pytest.approx(truth, abs=0.3)
    without_skew = sure_db(curve, noisy, NoiseVariance(np.zeros(3), known.at(clean.numpy()).mean((0, 2, 3))))
    assert without_skew > truth + 1


def test_sure_is_the_error_of_a_blur_when_the_noise_is_known():
    clean = photograph()
    noisy = add_noise(clean, 0.0, 0.1)
    known = NoiseVariance(np.zeros(3), np.full(3, 0.01))
    assert sure_db(blur, noisy, known) == pytest.approx(psnr(blur(noisy), clean), abs=0.2)


def test_sure_of_an_impossible_noise_is_infinite():
    noisy = add_noise(photograph(), 0.0, 0.1)
    assert sure_db(blur, noisy, NoiseVariance(np.zeros(3), np.full(3, 1.0))) == math.inf


@pytest.mark.parametrize(("gain", "sigma"), [(0.0, 0.1), (0.02, 0.0), (0.01, 0.05)])
def test_the_noise_and_the_quality_of_a_photograph_are_found(general, gain, sigma):
    clean = photograph()
    noisy = add_noise(clean, gain, sigma)
    found = SingleNoise.measure(general, noisy)
    true = float((noisy - clean).square().mean())
    assert found.doubt is None
    assert float(found.variance.at(clean.numpy()).mean()) == pytest.approx(true, rel=0.03)
    assert found.psnr_db == pytest.approx(psnr(general(noisy), clean), abs=0.8)
    assert sure_db(general, noisy, found.variance) == pytest.approx(found.psnr_db, abs=0.02 if gain == 0 else 0.1)


def test_other_noise_gives_doubt(general):
    clean = photograph()
    white = add_noise(clean, 0.0, 0.1)
    assert SingleNoise.measure(general, clean + 2 * (blur(white - clean))).doubt == "correlated"
    assert SingleNoise.measure(general, clean).doubt == "clean"
    assert SingleNoise.measure(general, torch.full((1, 3, 32, 32), 0.5)).doubt == "constant"
    # a third of the pixels has three times the noise
    spots = torch.rand((1, 1, 150, 225), generator=torch.Generator().manual_seed(1)) < 0.3
    assert SingleNoise.measure(general, torch.where(spots, clean + 3 * (white - clean), white)).doubt == "unlike"
