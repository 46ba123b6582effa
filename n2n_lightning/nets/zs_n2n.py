"""The small net of Zero-Shot Noise2Noise (Mansour and Heckel, CVPR 2023), for training on one image alone."""

from __future__ import annotations

from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2


class ZsN2nNet(nn.Module):
    """Two 3x3 convolutions and one of 1x1, whose output is subtracted from the noisy image.

    Args:
        channels: channels of the input and output images; 22,275 parameters for 3.
        width: number of feature maps.
    """

    stride = 1  # px: the net takes any size

    def __init__(self, channels: int = 3, *, width: int = 48) -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise ValueError(f"channels and width must be 1 or more, got {channels} and {width}; set model.width=48")
        self.noise = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float of any size -> same shape."""
        estimate: Tensor = noisy - self.noise(noisy)
        return estimate
