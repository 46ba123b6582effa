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

# loss(y1, y2) of a scene's two noisy images, times this, is the loss of a perfect estimate against a noisy target: for
# l2 the mean of the two variances, whatever the noise; for l1 where the noise is Gaussian and alike in both
NOISE_FLOORS = {"l2": 0.5, "l1": 0.5**0.5}
