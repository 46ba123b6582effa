"""DRUNet: a U-Net of residual blocks (Zhang et al. 2021, arXiv 2008.13751)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from n2n_lightning.nets.levels import ResidualLevels


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


class DruNet(ResidualLevels):
    """Residual blocks at full size, half size, quarter size and so on; their output is added to the noisy image.

    The paper's net has a width of 64, three levels of 4 blocks, 4 in the middle, and no biases. Its input has a map of
    the noise as one more channel, and its output is the image itself.

    Args:
        channels: channels of the input and output images; 42,083 parameters for 3.
        width: number of feature maps at full size; each level down has twice as many.
        blocks: number of blocks of each level, full size first; as many on the way down as on the way up.
        middle: number of blocks at the smallest size.
    """

    def __init__(self, channels: int = 3, *, width: int = 16, blocks: Sequence[int] = (2,), middle: int = 1) -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise ValueError(f"channels and width must be 1 or more, got {channels} and {width}; set model.width=16")
        if min([*blocks, middle], default=0) < 0 or len(blocks) > 6:
            raise ValueError(
                f"blocks must be at most 6 numbers from 0, and middle 0 or more, got {list(blocks)} and {middle}; "
                "set model.blocks=[2] model.middle=1"
            )
        self.stride = 2 ** len(blocks)  # px: the net pads height and width to this; tiles must align to it
        maps = [width * 2**level for level in range(len(blocks) + 1)]

        def level(width: int, number: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width) for _ in range(number)))

        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(level(m, number) for m, number in zip(maps, blocks, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(m, 2 * m, 2, stride=2) for m in maps[:-1])
        self.middle = level(maps[-1], middle)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * m, m, 2, stride=2) for m in maps[-2::-1])
        self.decoders = nn.ModuleList(level(m, number) for m, number in zip(maps[-2::-1], blocks[::-1], strict=True))
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
