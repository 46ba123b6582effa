"""Zero-Shot Noise2Noise (Mansour and Heckel, CVPR 2023, arXiv 2303.11253): two half-size images by diagonals."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from n2n_lightning.losses import l2
from n2n_lightning.self_supervised.neighbor2neighbor import even_part


def diagonal_means(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means over the two diagonals of each 2x2 cell: (N, C, H, W), even sides -> 2 x (N, C, H/2, W/2)."""
    top_left, top_right = images[..., ::2, ::2], images[..., ::2, 1::2]
    bottom_left, bottom_right = images[..., 1::2, ::2], images[..., 1::2, 1::2]
    return (top_right + bottom_left) / 2, (top_left + bottom_right) / 2


def zs_n2n(net: Callable[[Tensor], Tensor], noisy: Tensor, seeds: Tensor) -> Tensor:
    """Return the sum of the paper's residual loss (its equation 5) and consistency loss (equation 7).

    Each half-size image is the other's target, and denoising comes to the same before and after the image is halved.

    Args:
        net, noisy: see the package. An odd last row or column is left out.
        seeds: not used, because nothing is drawn.
    """
    noisy = even_part(noisy)
    first, second = diagonal_means(noisy)
    clean_first, clean_second = net(first), net(second)
    residual = (l2(clean_first, second) + l2(clean_second, first)) / 2
    halved_first, halved_second = diagonal_means(net(noisy))
    return residual + (l2(clean_first, halved_first) + l2(clean_second, halved_second)) / 2
