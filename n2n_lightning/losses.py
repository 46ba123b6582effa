"""Training losses: pure functions of an estimate and a target.

Under noisy targets a loss has its minimum at one statistic of the target's distribution (``FINDS``), and so restores
the clean image where the noise leaves that statistic as it was (``noise.Noise.keeps``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[..., Tensor]
Statistic = Literal["mean", "median", "mode"]


def l2(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean squared error. (N, C, H, W) twice -> scalar."""
    return F.mse_loss(estimate, target)


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error. (N, C, H, W) twice -> scalar."""
    return F.l1_loss(estimate, target)


def charbonnier(estimate: Tensor, target: Tensor, *, eps: float = 1e-3) -> Tensor:
    """``l1`` with a round tip: the mean of sqrt(difference^2 + eps^2). (N, C, H, W) twice -> scalar."""
    return ((estimate - target).square() + eps**2).sqrt().mean()


def l0(estimate: Tensor, target: Tensor, *, progress: float) -> Tensor:
    """Mean of (abs(difference) + 1e-8)^g, g falling from 2 to 0 over training (Lehtinen et al. 2018, section 3.1).

    It looks for the mean at first, for the median half way, and for the mode at the end.

    Args:
        estimate: (N, C, H, W).
        target: same shape.
        progress: part of the training that is over, 0 to 1.
    """
    return ((estimate - target).abs() + 1e-8).pow(2 * (1 - progress)).mean()


def l2_by_noise(estimate: Tensor, target: Tensor, *, source: Tensor, eps: float = 1e-4) -> Tensor:
    """``l2`` with every image's error in units of the noise that the net takes from its source.

    The mean PSNR over images asks for relative errors, ``l2`` alone cares most for the noisiest images. The unit,
    ``mean((estimate - source)^2) + eps``, has no gradient and does not depend on the target's noise, so that the
    minimum stays at the mean. (N, C, H, W) thrice -> scalar.
    """
    noise = (estimate.detach() - source).square().mean((1, 2, 3), keepdim=True)
    return ((estimate - target).square() / (noise + eps)).mean()


def hdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean of difference^2 / (estimate + 0.01)^2, for values without an upper bound (Lehtinen et al. 2018, section 3).

    There is no gradient through the denominator, else the minimum were no longer at the mean; an estimate below 0
    counts as 0 there. (N, C, H, W) twice -> scalar.
    """
    return ((estimate - target) / (estimate.detach().clamp_min(0) + 0.01)).square().mean()


def neighbor2neighbor(estimate: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """``l2`` for ``data=single``, with the regulariser's weight rising from 0 to ``gamma`` over training.

    The regulariser needs the net and the whole image (``neighbors.regularised_loss``), so ``DenoiserModule`` adds it.
    """
    return l2(estimate, target)


LOSSES: dict[str, Loss] = {
    "l2": l2,
    "l2_by_noise": l2_by_noise,
    "l1": l1,
    "charbonnier": charbonnier,
    "l0": l0,
    "hdr": hdr,
    "neighbor2neighbor": neighbor2neighbor,
}
FINDS: dict[str, Statistic] = {
    "l2": "mean",
    "l2_by_noise": "mean",
    "l1": "median",
    "charbonnier": "median",
    "l0": "mode",
    "hdr": "mean",
    "neighbor2neighbor": "mean",
}
EXTRA_ARGUMENTS = {"l0": ("progress",), "l2_by_noise": ("source",)}  # what these take beside estimate and target
ANNEALED = ("l0", "neighbor2neighbor")  # these change over training, so that a finished run cannot be made longer


def noise_floor(name: str, noisy: Tensor, target: Tensor, third: Tensor | None) -> Tensor | None:
    """The loss of a perfect estimate against ``target``, from noisy images of the same scene alone; None if unknown.

    For ``l2`` the variance of the target's noise, whatever the noises; for ``l1`` right where both are Gaussian and of
    one strength. (N, C, H, W) each -> scalar.
    """
    if name == "l2":
        # E (y2 - c)(y2 - y1) = Var n2 for every c that is independent of the noises; the mean of y2 almost is
        other = target.mean((2, 3), keepdim=True) if third is None else third
        return ((target - other) * (target - noisy)).mean()
    return l1(noisy, target) / 2**0.5 if name == "l1" else None
