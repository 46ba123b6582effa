"""Training losses: pure functions of an estimate and a target."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def l2(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean squared error; its minimum under noisy targets is the target's mean. (N, C, H, W) twice -> scalar."""
    return F.mse_loss(estimate, target)


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error; its minimum under noisy targets is the target's median. (N, C, H, W) twice -> scalar."""
    return F.l1_loss(estimate, target)


LOSSES: dict[str, Loss] = {"l2": l2, "l1": l1}
