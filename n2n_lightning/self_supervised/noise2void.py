"""Noise2Void (Krull et al. 2019), N2V2 (Höck et al. 2022) and structN2V (Broaddus et al. 2020): hidden pixels.

The net guesses some pixels from their surroundings alone. If their noise is independent of that of the surroundings,
the best guess is the clean value. If neighbours share noise, a mask hides these neighbours too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from n2n_lightning.self_supervised.draws import draw

Mask = Literal["none", "rows", "columns", "cross", "block", "auto"]
Replacement = Literal["median", "neighbour"]


class HiddenPixels(NamedTuple):
    """Which pixels a mask hides around each centre, and where their substitutes come from.

    The offsets, px down and to the right of the centre, are int64.
    """

    hidden: Tensor  # (F, 2); the centre is the first
    shifts: Tensor  # (S, 2): the nearest places whose pixels can stand in for the hidden ones


def noise2void(
    net: Callable[[Tensor], Tensor],
    noisy: Tensor,
    seeds: Tensor,
    *,
    masked: float = 0.01,
    window_px: int = 5,
    replace: Replacement | None = None,
    mask: Mask = "none",
    mask_px: int | None = None,
) -> Tensor:
    """Return the mean squared error of the net at pixels that were replaced in its input.

    Args:
        net, noisy, seeds: see the package.
        masked: part of the pixels that the net guesses.
        window_px: side of the window around a hidden pixel that its substitute comes from.
        replace: "median" puts the window's median there (N2V2); "neighbour" puts one of its pixels there, drawn at
            random, and with a mask a copy of a neighbouring piece. None is the median, and with a mask the neighbour:
            medians of many pixels would be so near the clean values that the net learnt to keep what stands there.
        mask: which pixels beside it are hidden too (structN2V): those in its row, column, both, or a square around it.
            "auto" is for the command ``train``, which measures the correlation of the noise.
        mask_px: how far the mask reaches to each side; None is 4. Noise that is constant along L px needs L - 1.
    """
    if not 0 < masked <= 0.5:
        raise ValueError(f"masked must be above 0, at most 0.5, got {masked}; set loss.masked=0.01")
    around = hidden_pixels(mask, 4 if mask_px is None else mask_px, window_px)
    height, width = noisy.shape[-2:]
    most = max(round(masked * height * width), 1)

    def draw_places(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        chance = torch.rand((count, height * width), generator=rng, device=rng.device)
        picks = torch.randint(len(around.shifts), (count, most), generator=rng, device=rng.device)
        return chance.topk(most, 1).indices, picks

    centres, picks = draw(seeds, noisy, draw_places)
    takes_median = replace == "median" or (replace is None and mask == "none")
    shown = hide(noisy, centres, None if takes_median else picks, around)
    guess = at_pixels(net(shown), centres)
    return (guess - at_pixels(noisy, centres)).square().mean()


@functools.cache
def hidden_pixels(mask: Mask, mask_px: int, window_px: int) -> HiddenPixels:
    """Return the offsets for a mask of this name and reach, px.

    The shifts are the window_px^2 - 1 smallest ones that leave no pixel of the mask on another one: without a mask,
    those of the window.
    """
    if window_px < 3 or window_px % 2 == 0:
        raise ValueError(f"window_px must be odd and 3 or more, got {window_px}; set loss.window_px=5")
    if mask_px < 1:
        raise ValueError(f"mask_px must be 1 or more, got {mask_px}; set loss.mask_px=4")
    reach = range(-mask_px, mask_px + 1)
    row, column = [(0, x) for x in reach], [(y, 0) for y in reach]
    shapes: dict[str, list[tuple[int, int]]] = {
        "none": [(0, 0)],
        "rows": row,
        "columns": column,
        "cross": row + column,
        "block": [(y, x) for y in reach for x in reach],
    }
    if mask not in shapes:
        raise ValueError(f"mask must be one of {', '.join(shapes)}, got {mask!r}; set loss.mask=none")
    hidden = sorted(set(shapes[mask]), key=lambda place: place != (0, 0))
    wide = range(-2 * mask_px - window_px, 2 * mask_px + window_px + 1)
    overlaps = {(y - other_y, x - other_x) for y, x in hidden for other_y, other_x in hidden}
    apart = [(y, x) for y in wide for x in wide if (y, x) not in overlaps]
    nearest = sorted(apart, key=lambda shift: (max(map(abs, shift)), shift[0] ** 2 + shift[1] ** 2))
    return HiddenPixels(torch.tensor(hidden), torch.tensor(nearest[: window_px**2 - 1]))


def hide(noisy: Tensor, centres: Tensor, picks: Tensor | None, around: HiddenPixels) -> Tensor:
    """Return the images with the pixels around the centres replaced. (N, C, H, W) float32 -> same shape.

    Args:
        noisy: the images.
        centres: (N, K) int64, numbers of pixels, counted row by row.
        picks: (N, K) int64, the shift to the pixels that replace those of each centre; None takes the median over all.
        around: the offsets.
    """
    channels, (height, width) = noisy.shape[1], noisy.shape[-2:]
    size = torch.tensor([height, width], device=noisy.device)
    centre = torch.stack([centres // width, centres % width], -1)[:, :, None]  # (N, K, 1, 2)
    hidden, shifts = (offsets.to(noisy.device) for offsets in around)
    places = (centre + hidden).clamp_min(0).minimum(size - 1)
    chosen = shifts if picks is None else shifts[picks][:, :, None, None]  # (S, 2) or (N, K, 1, 1, 2)
    at, sources = centre[:, :, :, None], hidden[:, None] + chosen  # sources: (F, S, 2) or (N, K, F, 1, 2)
    beside = at + sources  # one outside the image is mirrored at the centre, as masks are symmetric
    beside = torch.where((beside < 0) | (beside >= size), at - sources, beside).clamp_min(0).minimum(size - 1)
    values = at_pixels(noisy, (beside[..., 0] * width + beside[..., 1]).flatten(1))
    values = values.unflatten(2, beside.shape[1:4]).median(-1).values.flatten(2)
    targets = (places[..., 0] * width + places[..., 1]).flatten(1)[:, None].expand(-1, channels, -1)
    shown: Tensor = noisy.flatten(2).scatter(2, targets, values).unflatten(2, (height, width))
    return shown.contiguous(memory_format=torch.channels_last)


def at_pixels(images: Tensor, numbers: Tensor) -> Tensor:
    """Return the values at pixels, counted row by row: (N, C, H, W) and (N, K) int64 -> (N, C, K)."""
    return images.flatten(2).gather(2, numbers[:, None].expand(-1, images.shape[1], -1))
