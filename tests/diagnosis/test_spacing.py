"""The spacing at which noise is independent: white noise, correlated noise, and texture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from skimage import data

from n2n_lightning import Denoiser
from n2n_lightning.diagnosis.spacing import find_spacing
from n2n_lightning.inference.passes import Passes
from n2n_lightning.models.trained import GENERAL, find_trained

Images = npt.NDArray[np.float32]
needs_general = pytest.mark.skipif(GENERAL not in find_trained(), reason="weights/general is not installed")


def photograph(sigma_255: float, blur_px: float = 0.0) -> Images:
    """Return a photograph with noise of this strength, correlated by a Gaussian blur: (1, 3, 192, 256)."""
    clean = data.coffee()[100:292, 100:356] / 255
    white = np.random.default_rng(0).normal(0, 1, clean.shape)
    noise = ndimage.gaussian_filter(white, (blur_px, blur_px, 0))
    noisy = clean + sigma_255 / 255 * noise / noise.std()
    return np.moveaxis(noisy, -1, 0)[None].astype(np.float32)


def denoise_at(images: Images, spacing: int) -> Images:
    denoiser = Denoiser.load(GENERAL)
    denoiser.passes = Passes((spacing,))
    return denoiser.estimate(torch.from_numpy(images)).numpy()


@needs_general
@pytest.mark.parametrize(
    ("sigma_255", "blur_px", "spacing"), [(10, 0, 1), (25, 0, 1), (50, 0, 1), (15, 0.6, 2), (15, 1.3, 2)]
)
def test_the_spacing_follows_the_correlation(sigma_255: float, blur_px: float, spacing: int):
    found = find_spacing(photograph(sigma_255, blur_px), denoise_at)
    assert found.spacing == spacing, found
    assert (found.correlation[0] > 0.3) == (spacing > 1)
    assert found.sd == pytest.approx(sigma_255 / 255, rel=0.15)


def test_an_image_without_noise_counts_as_independent():
    flat = np.full((1, 1, 64, 64), 0.5, np.float32)
    assert find_spacing(flat, lambda images, _: images).spacing == 1
