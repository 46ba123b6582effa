"""The U-Net of N2V2 (Höck et al., ECCV workshops 2022, arXiv 2211.08512), for ``loss=noise2void``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning.nets.padding import crop_to, pad_to_multiple


def max_blur_pool(features: Tensor) -> Tensor:
    """Take maxima over 2x2 pixels, blur with 1 2 1, keep every second pixel (Zhang 2019): (N, C, H, W) -> half sides.

    Without the blur, maxima repeat the noise of hidden pixels' neighbours as a checkerboard.
    """
    maxima = F.max_pool2d(F.pad(features, (1, 1, 1, 1), mode="replicate"), 2, stride=1)
    return F.avg_pool2d(F.avg_pool2d(maxima, 2, stride=1), 2)  # two means over 2x2 pixels are the blur


class TwoConvolutions(nn.Sequential):
    """Two 3x3 convolutions, each with a ReLU: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        super().__init__(first, nn.ReLU(), nn.Conv2d(channels_out, channels_out, 3, padding=1), nn.ReLU())


class N2V2Net(nn.Module):
    """U-Net with blurred maxima, without the skip connection at full size and without adding the noisy image.

    What is left out would carry single noisy pixels to the output. There is no normalisation, unlike in the paper, so
    weights start He-normal and biases at zero.

    Args:
        channels: channels of the input and output images; 462,403 parameters for 3.
        width: number of feature maps at full size; each level down has twice as many.
        depth: number of times that the image is halved.
    """

    def __init__(self, channels: int = 3, *, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        if channels < 1 or width < 1 or not 1 <= depth <= 6:
            got = f"{channels}, {width} and {depth}"
            raise ValueError(
                f"channels and width must be 1 or more and depth 1..6, got {got}; set model.width=32 model.depth=2"
            )
        self.stride = 2**depth  # px: the net pads height and width to a multiple of this
        maps = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            TwoConvolutions(before, after) for before, after in zip([channels, *maps], maps, strict=False)
        )
        self.up = nn.ModuleList(
            TwoConvolutions(maps[level + 1] + (maps[level] if level else 0), maps[level])
            for level in reversed(range(depth))
        )
        self.last = nn.Conv2d(width, channels, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is self.last else "relu")
                nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float of any size -> same shape."""
        features, skips = pad_to_multiple(noisy, self.stride), []
        for level, block in enumerate(self.down):
            features = block(max_blur_pool(features) if level else features)
            skips.append(features)
        skips.pop()
        for block in self.up:
            features = F.interpolate(features, scale_factor=2.0, mode="nearest")
            skip = skips.pop()
            features = block(torch.cat([features, skip], 1) if skips else features)
        return crop_to(self.last(features), noisy)
