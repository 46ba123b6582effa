"""What U-shaped nets have in common that add their output to the noisy image."""

from __future__ import annotations

from torch import Tensor, nn

from n2n_lightning.nets.padding import crop_to, pad_to_multiple


class ResidualLevels(nn.Module):
    """Blocks at full size, half size and so on, whose output is added to the noisy image. Derived nets make the layers.

    Attributes:
        stride: px; the net pads height and width to a multiple of this, and tiles must align to it.
        intro, ending: from the image's channels to those of the first level, and back.
        encoders, downs: the blocks of each level on the way down, full size first, and what halves the size after them.
        middle: the blocks at the smallest size.
        ups, decoders: what doubles the size, the smallest first, and the blocks after it.
    """

    stride: int
    intro: nn.Module
    encoders: nn.ModuleList
    downs: nn.ModuleList
    middle: nn.Module
    ups: nn.ModuleList
    decoders: nn.ModuleList
    ending: nn.Module

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float images, H and W from 1 px -> same shape, unclipped."""
        padded = pad_to_multiple(noisy, self.stride)
        x = self.intro(padded)
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, blocks, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = blocks(up(x) + skip)
        estimate: Tensor = self.ending(x) + padded
        return crop_to(estimate, noisy)
