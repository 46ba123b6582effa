"""NAFNet: a U-shaped net of blocks without activation functions (Chen et al. 2022, arXiv 2204.04676)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning.nets.levels import ResidualLevels


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: (N, C, H, W) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        return F.layer_norm(features.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6).permute(
            0, 3, 1, 2
        )


def gate(features: Tensor) -> Tensor:
    """Multiply one half of the channels by the other, the paper's SimpleGate: (N, 2C, H, W) -> (N, C, H, W)."""
    first, second = features.chunk(2, dim=1)
    return first * second


class NafBlock(nn.Module):
    """Depthwise convolution with channel attention, then a pointwise net, each added to its input.

    (N, C, H, W) float -> same shape.

    Args:
        channels: number of feature maps C.
        attention: scale channels by their mean over the whole image (the paper's SCA).
    """

    def __init__(self, channels: int, *, attention: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.attention = nn.Conv2d(channels, channels, 1) if attention else None
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        for parameter in (*self.conv3.parameters(), *self.conv5.parameters()):
            nn.init.zeros_(parameter)  # the block starts as the identity; the paper uses learnt factors for that

    def forward(self, features: Tensor) -> Tensor:
        x = gate(self.conv2(self.conv1(self.norm1(features))))
        if self.attention is not None:
            x = x * self.attention(x.mean((2, 3), keepdim=True))
        features = features + self.conv3(x)
        refined: Tensor = features + self.conv5(gate(self.conv4(self.norm2(features))))
        return refined


class NafNet(ResidualLevels):
    """Blocks at full size, half size, quarter size and so on; their output is added to the noisy image.

    Args:
        channels: channels of the input and output images.
        width: number of feature maps at full size; each level down has twice as many.
        encoder: number of blocks of each level on the way down.
        middle: number of blocks at the smallest size.
        decoder: number of blocks of each level on the way up, the smallest size first.
        attention: whether blocks use the mean over the whole image (see ``NafBlock``); tiles are exact only without.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 24,
        encoder: Sequence[int] = (1, 1, 1),
        middle: int = 1,
        decoder: Sequence[int] = (1, 1, 1),
        attention: bool = True,
    ) -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise ValueError(f"channels and width must be 1 or more, got {channels} and {width}; set model.width=24")
        if len(encoder) != len(decoder) or min([*encoder, *decoder, middle]) < 0:
            raise ValueError(
                "encoder and decoder must have the same number of levels, and every level 0 or more blocks, got "
                f"{list(encoder)}, {middle} and {list(decoder)}; set model.encoder=[1,1,1] model.decoder=[1,1,1]"
            )
        self.stride = 2 ** len(
            encoder
        )  # px: the net pads height and width to a multiple of this; tiles must align to it

        def level(maps: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(NafBlock(maps, attention=attention) for _ in range(blocks)))

        maps = [width * 2**depth for depth in range(len(encoder) + 1)]
        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(level(m, blocks) for m, blocks in zip(maps, encoder, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(m, 2 * m, 2, stride=2) for m in maps[:-1])
        self.middle = level(maps[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * m, 4 * m, 1, bias=False), nn.PixelShuffle(2)) for m in maps[-2::-1]
        )
        self.decoders = nn.ModuleList(level(m, blocks) for m, blocks in zip(maps[-2::-1], decoder, strict=True))
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
