"""How often, and in which forms, an image goes through the net: flipped and rotated, and as sub-images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from n2n_lightning.inference.tiling import Reach
from n2n_lightning.nets.padding import crop_to, pad_to_multiple

Estimate = Callable[[Tensor], Tensor]  # (N, C, H, W) float32 -> same shape


@dataclass(frozen=True)
class Passes:
    """The passes of an image through the net.

    Args:
        spacings: the result is the mean over these spacings, px, see ``estimate_at_spacing``.
        again: put this mean through the net once more.
        turns: in each pass, take the mean over so many flips and rotations, 1 to 8.
    """

    spacings: tuple[int, ...] = (1,)
    again: bool = False
    turns: int = 1

    @property
    def count(self) -> int:
        """Number of times that a pixel goes through the net."""
        return (len(self.spacings) + self.again) * self.turns

    def reach(self, net: Reach) -> Reach:
        """Return how the result depends on the image, where the net's output does so on its input."""
        stride = net.stride * math.lcm(*self.spacings)
        halo = net.halo * (max(self.spacings) + self.again)
        return Reach(stride, math.ceil(halo / stride) * stride, net.is_local)

    def estimate(self, net: Estimate, stride: int, images: Tensor) -> Tensor:
        """Return the mean of the passes. (N, C, H, W) float32 -> same shape.

        Args:
            net: the net.
            stride: of the net, px.
            images: noisy images.
        """

        def turned(images: Tensor) -> Tensor:
            return estimate_over_turns(net, stride, images, self.turns)

        total = estimate_at_spacing(turned, self.spacings[0], images)
        for spacing in self.spacings[1:]:
            total = total + estimate_at_spacing(turned, spacing, images)
        mean = total / len(self.spacings) if len(self.spacings) > 1 else total
        return turned(mean) if self.again else mean


def estimate_at_spacing(estimate: Estimate, spacing: int, images: Tensor) -> Tensor:
    """Denoise the sub-images of every ``spacing``-th pixel, each by itself. (N, C, H, W) float32 -> same shape.

    The noise of neighbours in a sub-image is less correlated than in the image: pixel-shuffle downsampling (Zhou et
    al. 2020, "When AWGN-based denoiser meets real noises").
    """
    if spacing == 1:
        return estimate(images)
    padded = pad_to_multiple(images, spacing)
    count, channels, height, width = padded.shape
    rows, columns = height // spacing, width // spacing
    cells = padded.reshape(count, channels, rows, spacing, columns, spacing)
    parts = cells.permute(3, 5, 0, 1, 2, 4)  # (s, s, N, C, rows, columns)
    found = estimate(parts.reshape(-1, channels, rows, columns)).reshape(parts.shape)
    return crop_to(found.permute(2, 3, 4, 0, 5, 1).reshape(padded.shape), images)


def estimate_over_turns(net: Estimate, stride: int, images: Tensor, count: int) -> Tensor:
    """Return the mean over the first ``count`` of the 8 flips and rotations. (N, C, H, W) float32 -> same shape.

    Images are padded to a multiple of the net's stride first, so that a pixel's place in it is the same in tiles.
    """
    if count == 1:
        return net(images)
    padded = pad_to_multiple(images, stride)
    total = torch.zeros_like(padded)
    for number in range(count):
        total += turn_back(net(turn(padded, number)), number)
    return crop_to(total / count, images)


def turn(images: Tensor, number: int) -> Tensor:
    """Return one of the 8 flips and rotations, 0 for none; the first 4 leave height and width as they are."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
    flipped = images.flip(axes) if axes else images
    return flipped.transpose(-1, -2) if number & 4 else flipped


def turn_back(images: Tensor, number: int) -> Tensor:
    """Undo ``turn``."""
    images = images.transpose(-1, -2) if number & 4 else images
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
    return images.flip(axes) if axes else images
