"""Training losses: pure functions of an estimate and a target."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[..., Tensor]


def l2(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean squared error; its minimum under noisy targets is the target's mean. (N, C, H, W) twice -> scalar."""
    return F.mse_loss(estimate, target)


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error; its minimum under noisy targets is the target's median. (N, C, H, W) twice -> scalar."""
    return F.l1_loss(estimate, target)


def neighbor2neighbor(estimate: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """``l2`` for ``data=single``, with the regulariser's weight rising from 0 to ``gamma`` over training.

    The regulariser needs the net and the whole image (``neighbors.regularised_loss``), so ``DenoiserModule`` adds it.
    """
    return l2(estimate, target)


LOSSES: dict[str, Loss] = {"l2": l2, "l1": l1, "neighbor2neighbor": neighbor2neighbor}


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
