"""DnCNN: plain convolutions that estimate the noise (Zhang et al. 2017, arXiv 1608.03981)."""

from __future__ import annotations

from torch import Tensor, nn


class DnCnn(nn.Module):
    """Convolutions with batch normalisation and ReLU; their output is subtracted from the noisy image.

    Args:
        channels: channels of the input and output images; 669,379 parameters for 3.
        layers: number of 3x3 convolutions; the paper has 17 for grey images of known noise, 20 for others.
        width: number of feature maps.
    """

    stride = 1  # px: the net pads height and width to a multiple of this; tiles must align to it

    def __init__(self, channels: int = 3, *, layers: int = 20, width: int = 64) -> None:
        super().__init__()
        if channels < 1 or width < 1 or layers < 2:
            raise ValueError(
                f"channels and width must be 1 or more and layers 2 or more, got {channels}, {width} and {layers}; "
                "set model.layers=20 model.width=64"
            )
        inner: list[nn.Module] = []
        for _ in range(layers - 2):
            convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)  # the normalisation has a bias
            inner += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            *inner,
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float images, H and W from 1 px -> same shape, unclipped."""
        noise: Tensor = self.net(noisy)
        return noisy - noise
