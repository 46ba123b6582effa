"""RED30: convolutions, transposed convolutions, and skips between the two (Mao et al. 2016, arXiv 1606.08921)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F


class Red30(nn.Module):
    """Equally many convolutions and transposed convolutions, all at full size; the noisy image is added at the end.

    The output of every second convolution is added to the output of the transposed convolution that mirrors it.

    Args:
        channels: channels of the input and output images.
        layers: number of layers of both kinds together, even; 30 as in the paper.
        width: number of feature maps; 128 as in the paper, which gives 4.1 million parameters.
    """

    stride = 1  # px: the net pads height and width to a multiple of this; tiles must align to it

    def __init__(self, channels: int = 3, *, layers: int = 30, width: int = 128) -> None:
        super().__init__()
        if channels < 1 or width < 1 or layers < 2 or layers % 2:
            raise ValueError(
                f"channels and width must be 1 or more and layers even, got {channels}, {width} and {layers}; "
                "set model.layers=30 model.width=128"
            )
        half = layers // 2
        maps = [channels, *[width] * half]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(maps))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 3, padding=1) for a, b in itertools.pairwise(maps))[::-1]

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float images, H and W from 1 px -> same shape, unclipped."""
        x, skips = noisy, [noisy]
        for number, layer in enumerate(self.down, 1):
            x = F.relu(layer(x))
            if number % 2 == 0 and number < len(self.down):
                skips.append(x)
        for number, layer in enumerate(self.up, 1):
            x = layer(x)
            remaining = len(self.up) - number  # number of the convolution whose output may be added here
            if remaining % 2 == 0:
                x = x + skips.pop()
            x = F.relu(x) if remaining else x
        return x
