"""Training losses: pure functions of an estimate and a target; those for one noisy image: ``self_supervised``.

With noisy targets, a loss has its minimum at one statistic of the target's distribution (``MINIMUM_AT``). A net trained
with it restores the clean image if the noise preserves that statistic (``Noise.preserves``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[..., Tensor]
Statistic = Literal["mean", "median", "mode"]


def l2(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error. (N, C, H, W) twice -> scalar."""
    return F.mse_loss(estimate, target)


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error. (N, C, H, W) twice -> scalar."""
    return F.l1_loss(estimate, target)


def charbonnier(estimate: Tensor, target: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(difference^2 + eps^2), a smooth ``l1``. (N, C, H, W) twice -> scalar."""
    return ((estimate - target).square() + eps**2).sqrt().mean()


def l0(estimate: Tensor, target: Tensor, *, progress: float) -> Tensor:
    """Return the mean of (abs(difference) + 1e-8)^g, where g = 2 (1 - progress). (N, C, H, W) twice -> scalar.

    ``progress`` is the finished fraction of the training, 0 to 1. So the minimum is at the mean first, at the median
    half way, and at the mode in the end (Lehtinen et al. 2018, section 3.1).
    """
    return ((estimate - target).abs() + 1e-8).pow(2 * (1 - progress)).mean()


def l2_by_noise(estimate: Tensor, target: Tensor, *, source: Tensor, eps: float = 1e-4) -> Tensor:
    """Return ``l2`` with each image's squared error divided by the noise that the net removes from its source.

    The mean of PSNR over images depends on relative errors, but ``l2`` depends mostly on the noisiest images. The
    divisor, ``mean((estimate - source)^2) + eps``, has no gradient and does not depend on the target's noise, so the
    minimum stays at the mean. (N, C, H, W) three times -> scalar.
    """
    noise = (estimate.detach() - source).square().mean((1, 2, 3), keepdim=True)
    return ((estimate - target).square() / (noise + eps)).mean()


def hdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean of difference^2 / (estimate + 0.01)^2, for values without an upper bound.

    The denominator has no gradient, because the minimum would move away from the mean otherwise. It takes estimates
    below 0 as 0. (N, C, H, W) twice -> scalar (Lehtinen et al. 2018, section 3).
    """
    return ((estimate - target) / (estimate.detach().clamp_min(0) + 0.01)).square().mean()


LOSSES: dict[str, Loss] = {loss.__name__: loss for loss in (l2, l2_by_noise, l1, charbonnier, l0, hdr)}
MINIMUM_AT: dict[str, Statistic] = {  # which statistic of noisy targets a trained net estimates
    "l2": "mean",
    "l2_by_noise": "mean",
    "l1": "median",
    "charbonnier": "median",
    "l0": "mode",
    "hdr": "mean",
}
GIVEN_ARGUMENTS = ("progress", "source")  # what a loss can ask for beside estimate and target


def extra_arguments(name: str) -> tuple[str, ...]:
    """Return which of ``GIVEN_ARGUMENTS`` a loss takes; none of them if there is no such loss."""
    taken = inspect.signature(LOSSES[name]).parameters if name in LOSSES else {}
    return tuple(argument for argument in GIVEN_ARGUMENTS if argument in taken)


def noise_floor(name: str, noisy: Tensor, target: Tensor, third: Tensor | None) -> Tensor | None:
    """Estimate the loss that a perfect estimate would have, from two or more noisy images of the same scene.

    For ``l2`` this is the variance of the target's noise, whatever the noises are. For ``l1`` it is right if both
    images have Gaussian noise of the same strength. Other losses give None. (N, C, H, W) each -> scalar.
    """
    if name == "l2":
        # E (y2 - c)(y2 - y1) = Var n2 for every c that is independent of the noises; the mean of y2 nearly is
        independent = target.mean((2, 3), keepdim=True) if third is None else third
        return ((target - independent) * (target - noisy)).mean()
    return l1(noisy, target) / 2**0.5 if name == "l1" else None
