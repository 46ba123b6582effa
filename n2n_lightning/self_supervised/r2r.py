"""Recorrupted-to-Recorrupted (Pang et al., CVPR 2021): a pair out of one noisy image whose noise is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from n2n_lightning.losses import l2
from n2n_lightning.self_supervised.draws import draw

FLAT = 0.05  # of a variance: a change over the range that does not count
Line = tuple[Sequence[float], Sequence[float]]  # slope and offset of a variance over the level, for each channel


def r2r(
    net: Callable[[Tensor], Tensor],
    noisy: Tensor,
    seeds: Tensor,
    *,
    variance: Line | None,
    alpha: float = 0.5,
    gain: float | None = None,
    sigma: float | None = None,
) -> Tensor:
    """Return ``l2`` between ``net(noisy + alpha z)`` and ``noisy - z / alpha``, where z is noise like the image's own.

    For Gaussian noise, which is independent from pixel to pixel, these two have independent noises. So has other noise
    nearly, as the two have the right variances and no covariance. The variance is that at the level of the net's own
    estimate, without a gradient. A variance that is too small teaches the net to keep noise.

    Args:
        net, noisy, seeds: see the package.
        variance: of the noise, as it was measured: slope and offset of each channel, variance = slope x level + offset,
            in units of the range. Used if neither ``gain`` nor ``sigma`` is set.
        alpha: strength of the noise that is added, relative to the image's own. More makes the net's input unlike what
            it is to denoise, less makes the target noisier.
        gain: value of one photon, where the range is 1; None is 0 if sigma is set.
        sigma: standard deviation of the Gaussian part, in 1/255 of the range; None is 0 if gain is set. The variance is
            gain x level + (sigma / 255)^2, as of ``noise=poisson_gaussian``.
    """
    check_strengths(alpha, gain, sigma)
    variance = known_variance(gain, sigma) or variance
    if variance is None:
        raise ValueError("the noise must be known for loss=r2r; set loss.sigma=25, or train by the command")
    (added,) = draw(seeds, noisy, lambda count, rng: (draw_normal(noisy, count, rng),))
    with torch.no_grad():
        level = net(noisy) if depends_on_level(variance) else noisy
        added = added * variance_at(level, variance).sqrt()
    return l2(net(noisy + alpha * added), noisy - added / alpha)


def depends_on_level(variance: Line) -> bool:
    """Return whether the variance at level 1 differs from that at 0 by more than ``FLAT`` of it."""
    return any(abs(slope) > FLAT * offset for slope, offset in zip(*variance, strict=True))


def check_strengths(alpha: float, gain: float | None, sigma: float | None) -> None:
    """Raise ValueError for strengths that cannot be."""
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}; set loss.alpha=0.5")
    for name, value, example in (("gain", gain, "0.03"), ("sigma", sigma, "25")):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be 0 or more, got {value}; set loss.{name}={example}, or null to measure it")
    if known_variance(gain, sigma) is not None and not (gain or sigma):
        raise ValueError(f"gain or sigma must be above 0, got {gain} and {sigma}; set loss.sigma=25")


def known_variance(gain: float | None, sigma: float | None) -> Line | None:
    """Return the variance that the settings of ``r2r`` give; None if neither is set."""
    return None if gain is None and sigma is None else ([gain or 0.0], [((sigma or 0.0) / 255) ** 2])


def draw_normal(images: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Draw standard normal values for ``count`` images of the size of these: (count, C, H, W) float32."""
    return torch.randn((count, *images.shape[1:]), generator=rng, device=rng.device)


def variance_at(level: Tensor, line: Line) -> Tensor:
    """Return the variance of the noise at each pixel. (N, C, H, W) float32 in units of the range -> same shape."""
    slope, offset = (torch.tensor(values, device=level.device).reshape(-1, 1, 1) for values in line)
    return (slope * level.clamp_min(0) + offset).clamp_min(0)
