"""The quality of denoised images, estimated from each noisy image alone.

The noise must be independent from pixel to pixel, and its variance a line over the level (Gaussian, Poisson, or both).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.diagnosis.single_image import find_noise, whole_patches
from n2n_lightning.metrics import noise_skew, probed_derivative, sure_error
from n2n_lightning.noise_variance import NoiseVariance

PROBES = 2  # random directions in which a denoiser is differentiated
PROBE_STEP = 0.1  # of a probe, in standard deviations of what the denoiser removes
EXCESS = 1.05  # of the error of ``weights/general`` over that of the best denoiser; found on crops of Kodak24
MOST_APART_DB = 1.0  # of the two estimates of a PSNR, where they are trusted
Denoise = Callable[[Tensor], Tensor]
Doubt = Literal["small", "constant", "clean", "correlated", "unlike"]


class SingleNoise(NamedTuple):
    """The noise of images that have no second one, in units of the range, and what it says of a denoiser.

    ``psnr_db`` and ``check_db`` are two estimates of the PSNR of the denoiser by which the noise was found: by the
    posterior variance, and by SURE with the noise of the calm places alone.
    """

    variance: NoiseVariance
    psnr_db: float
    check_db: float
    doubt: Doubt | None  # why neither holds; "unlike": another kind of noise, such as clipped noise

    @classmethod
    def measure(cls, denoise: Denoise, noisy: Tensor) -> Self:
        """Find the noise by a good denoiser of unknown noise, such as ``weights/general``.

        With the residual r, the noise's variance v, and the derivative d of a pixel's estimate by its own noisy
        value, the best of all denoisers has mean(r^2) = mean(v (1 - d)), and its mean squared error is mean(v d): the
        posterior variance (second-order Tweedie formula, Manor and Michaeli 2024). A net comes close: its error is
        ``EXCESS`` times as large. The shape of v is taken from calm places, its scale from all pixels, so that SURE
        gives this error. Where the two estimates contradict each other, there is doubt.

        Args:
            denoise: (N, C, H, W) float32 -> same shape.
            noisy: (N, C, H, W) float32 in units of the range.
        """
        denoised = denoise(noisy)
        square = (noisy - denoised).square()
        slope = mean_derivative(denoise, noisy, denoised, PROBE_STEP * math.sqrt(float(square.mean())))
        calm = NoiseVariance.fit_residual(*(images.numpy() for images in (noisy, denoised, slope)))
        variance = torch.from_numpy(calm.at(denoised.numpy()))
        kept = mean(variance * slope)
        scale = mean(square) / max(mean(variance) - (2 - EXCESS) * kept, 1e-3 * mean(variance))
        whole = NoiseVariance(calm.slope * scale, calm.offset * scale)
        quality, check = as_db(EXCESS * scale * kept), as_db(mean(square) - mean(variance) + 2 * kept)
        unlike: Doubt | None = None if abs(check - quality) <= MOST_APART_DB else "unlike"
        return cls(whole, quality, check, find_doubt(noisy) or unlike)


def find_doubt(noisy: Tensor) -> Doubt | None:
    """Return why the noise of images, (N, C, H, W), cannot be measured within each of them, or None."""
    height, width = map(whole_patches, noisy.shape[2:])
    beside_each_other = torch.cat(list(noisy[..., :height, :width]), -1)  # so that no patch has parts of two
    kind = find_noise(beside_each_other.numpy()).kind
    return None if kind == "independent" else kind


def sure_db(denoise: Denoise, noisy: Tensor, noise: NoiseVariance) -> float:
    """Estimate the PSNR of any denoiser by Stein's unbiased risk estimate (SURE), dB; infinite if it is below 0.

    SURE is mean(r^2) - mean(v) + 2 mean(v d), see ``SingleNoise.measure`` (Stein 1981; Ramani et al. 2008).

    Args:
        denoise: (N, C, H, W) float32 -> same shape.
        noisy: (N, C, H, W) float32 in units of the range.
        noise: its variance.
    """
    denoised = denoise(noisy)
    variance = torch.from_numpy(noise.at(denoised.numpy()))
    line = (torch.from_numpy(values.astype(np.float32))[:, None, None] for values in (noise.slope, noise.offset))
    step = PROBE_STEP * math.sqrt(mean(variance))
    derivative = mean_derivative(denoise, noisy, denoised, step, noise_skew(variance, *line))
    return as_db(mean(sure_error(denoised, noisy, variance, derivative)))


def mean_derivative(
    denoise: Denoise, noisy: Tensor, denoised: Tensor, step: float, skew: Tensor | None = None
) -> Tensor:
    """Estimate the derivative of each pixel's estimate by its own noisy value, as the mean over some probes.

    Args:
        denoise: (N, C, H, W) float32 -> same shape.
        noisy: in units of the range.
        denoised: what ``denoise`` gives for it.
        step: of a probe, in the same units.
        skew: of the noise, see ``metrics.probed_derivative``; None is 0.

    Returns:
        (N, C, H, W).
    """
    found, rng = torch.zeros_like(noisy), torch.Generator().manual_seed(0)
    skew = torch.zeros(()) if skew is None else skew
    for _ in range(PROBES if step else 0):
        normal = torch.randn(noisy.shape, generator=rng)
        found += probed_derivative(denoise, noisy, denoised, normal, torch.tensor(step), skew) / PROBES
    return found


def mean(values: Tensor) -> float:
    return float(values.mean(dtype=torch.float64))


def as_db(mse: float) -> float:
    """Return the PSNR in dB of a mean squared error in units of the range; infinite if that is not above 0."""
    return float(-10 * np.log10(mse)) if mse > 0 else math.inf
