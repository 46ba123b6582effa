"""RED30: convolutions, transposed convolutions, and skips between the two (Mao et al. 2016, arXiv 1606.08921)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F


class Red30(nn.Module):
    """As many transposed convolutions as convolutions, all at full size; the noisy image is added at the end.

    After every second convolution its output is kept, and added after the transposed convolution that mirrors it.

    Args:
        channels: image channels, in and out alike.
        layers: of both kinds together, even; 30 as in the paper.
        width: feature maps; 128 as in the paper, which gives 4.1 million parameters.
    """

    stride = 1  # px: the output shifts with the input in steps of so many

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
        """(N, C, H, W) float, any H and W from 1 px -> same shape, unclipped."""
        x, kept = noisy, [noisy]
        for number, layer in enumerate(self.down, 1):
            x = F.relu(layer(x))
            if number % 2 == 0 and number < len(self.down):
                kept.append(x)
        for number, layer in enumerate(self.up, 1):
            x = layer(x)
            left = len(self.up) - number  # transposed convolutions to come, as many as there were convolutions so far
            if left % 2 == 0 and left // 2 < len(kept):
                x = x + kept[left // 2]
            x = F.relu(x) if left else x
        return x
