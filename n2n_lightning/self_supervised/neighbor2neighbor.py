"""Neighbor2Neighbor (Huang et al., CVPR 2021, arXiv 2101.02824): a pair out of one noisy image.

In each cell of 2x2 pixels two neighbours are drawn, one for each of two half-size images. If the noise is white, the
noises of the two images are independent. Their scenes differ by a shift of one pixel, which the regulariser corrects.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from n2n_lightning.losses import l2
from n2n_lightning.self_supervised.draws import draw

# the eight ordered pairs of neighbours in a cell whose pixels are numbered 0 1 / 2 3
FIRST, SECOND = torch.tensor([0, 1, 0, 2, 1, 3, 2, 3]), torch.tensor([1, 0, 2, 0, 3, 1, 3, 2])


def draw_choice(count: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Draw which neighbours each cell gives: (count, height / 2, width / 2) uint8 in 0..7."""
    size = (count, height // 2, width // 2)
    return torch.randint(len(FIRST), size, generator=rng, device=rng.device, dtype=torch.uint8)


def even_part(images: Tensor) -> Tensor:
    """Return a view without the last row or column of an odd number: (N, C, H, W) -> (N, C, H', W'), even sides."""
    height, width = images.shape[-2:]
    if min(height, width) < 2:
        raise ValueError(f"images must be 2x2 px or more to be halved, got {width}x{height}; set data.crop_px=64")
    return images[..., : height // 2 * 2, : width // 2 * 2]


def subsample(images: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two half-size images: (N, C, H, W) with even sides, and the choice -> 2 x (N, C, H / 2, W / 2)."""
    n, channels, height, width = images.shape
    cells = images.reshape(n, channels, height // 2, 2, width // 2, 2).permute(0, 1, 2, 4, 3, 5).flatten(4)

    def take(pixel: Tensor) -> Tensor:
        index = pixel.to(choice.device)[choice.long()][:, None, :, :, None].expand(-1, channels, -1, -1, -1)
        return cells.gather(4, index).squeeze(4).contiguous(memory_format=torch.channels_last)

    return take(FIRST), take(SECOND)


def regularised_loss(
    net: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    noisy: Tensor,
    choice: Tensor,
    weight: float,
) -> Tensor:
    """Return the loss between the two halves, plus ``weight`` times the paper's regulariser (its equation 7).

    (N, C, H, W) float32, (N, H / 2, W / 2) uint8 -> scalar. With weight 0 the net runs once, on a quarter of the
    pixels.
    """
    source, target = subsample(noisy, choice)
    estimate = net(source)
    fit = loss(estimate, target)
    if not weight:
        return fit
    with torch.no_grad():
        first, second = subsample(net(noisy), choice)
    return fit + weight * ((estimate - target) - (first - second)).square().mean()


def halves_loss(
    net: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    noisy: Tensor,
    seeds: Tensor,
    weight: float = 0.0,
) -> Tensor:
    """Draw the halves, and return their ``regularised_loss``. An odd last row or column is left out.

    (N, C, H, W) float32, (N,) or (1,) int64 -> scalar.
    """
    noisy = even_part(noisy)
    height, width = noisy.shape[-2:]
    (choice,) = draw(seeds, noisy, lambda count, rng: (draw_choice(count, height, width, rng),))
    return regularised_loss(net, loss, noisy, choice, weight)


def neighbor2neighbor(
    net: Callable[[Tensor], Tensor], noisy: Tensor, seeds: Tensor, *, progress: float, gamma: float = 2.0
) -> Tensor:
    """Return the loss of the paper: ``l2`` between the halves and a regulariser.

    Args:
        net, noisy, seeds: see the package.
        progress: the finished fraction of the training, 0 to 1; the regulariser's weight is ``gamma`` times it.
        gamma: its weight at the end.
    """
    return halves_loss(net, l2, noisy, seeds, gamma * progress)
