"""DRUNet: a U-Net of residual blocks (Zhang et al. 2021, arXiv 2008.13751)."""

from __future__ import annotations

from torch import Tensor, nn

from n2n_lightning.nets.padding import crop_to, pad_to_multiple


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between, added to their input: (N, C, H, W) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)  # the block starts as the identity

    def forward(self, features: Tensor) -> Tensor:
        refined: Tensor = features + self.conv2(self.relu(self.conv1(features)))
        return refined


class DruNet(nn.Module):
    """Residual blocks at full size, half size, quarter size and so on; their output is added to the noisy image.

    The paper's net has a width of 64, a depth of 3 and 4 blocks, no biases, a map of the noise as one more input
    channel, and gives the image itself.

    Args:
        channels: channels of the input and output images; 141,635 parameters for 3.
        width: number of feature maps at full size; each level down has twice as many.
        depth: number of times that the image is halved.
        blocks: number of residual blocks of each level, on the way down and on the way up.
    """

    def __init__(self, channels: int = 3, *, width: int = 16, depth: int = 2, blocks: int = 1) -> None:
        super().__init__()
        if channels < 1 or width < 1 or blocks < 1 or not 1 <= depth <= 6:
            raise ValueError(
                "channels, width and blocks must be 1 or more and depth 1..6, got "
                f"{channels}, {width}, {blocks} and {depth}; set model.width=16 model.depth=2 model.blocks=1"
            )
        self.stride = 2**depth  # px: the net pads height and width to a multiple of this; tiles must align to it
        maps = [width * 2**level for level in range(depth + 1)]

        def level(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))

        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(level(m) for m in maps[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(m, 2 * m, 2, stride=2) for m in maps[:-1])
        self.middle = level(maps[-1])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * m, m, 2, stride=2) for m in maps[-2::-1])
        self.decoders = nn.ModuleList(level(m) for m in maps[-2::-1])
        self.ending = nn.Conv2d(width, channels, 3, padding=1)

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
