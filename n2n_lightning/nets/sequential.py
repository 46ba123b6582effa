"""The simple sequential nets of the study: two strided convolutions down, two upsampling layers up."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from n2n_lightning.nets.padding import crop_to, pad_to_multiple


class Sequential(nn.Module):
    """Encoder (2x2 convolutions, stride 2: 48, 96 maps) and decoder (48 maps, then the image), ReLU in between.

    Args:
        channels: channels of the input and output images.
        upsampling: "nearest", nearest-neighbour by 2 and a 3x3 convolution (61,971 parameters for 3 channels), or
            "convtrans", a transposed 2x2 convolution of stride 2 (38,211 parameters).
        activation: activation of the output, "relu" (values from 0) or "sigmoid" (values in 0..1).
    """

    stride = 4  # px: the net pads height and width to a multiple of this; tiles must align to it

    def __init__(
        self,
        channels: int = 3,
        *,
        upsampling: Literal["nearest", "convtrans"] = "convtrans",
        activation: Literal["relu", "sigmoid"] = "relu",
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be 1 or more, got {channels}; use the number of channels of the images")

        def up(inputs: int, outputs: int) -> nn.Module:
            if upsampling == "convtrans":
                return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
            return nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(inputs, outputs, 3, padding=1))

        self.conv1 = nn.Conv2d(channels, 48, 2, stride=2)
        self.conv2 = nn.Conv2d(48, 96, 2, stride=2)
        self.upsampling3 = up(96, 48)
        self.upsampling4 = up(48, channels)
        self.relu = nn.ReLU(inplace=True)
        self.activation = nn.ReLU() if activation == "relu" else nn.Sigmoid()

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float images, H and W from 1 px -> same shape, from 0 (ReLU) or in 0..1 (sigmoid)."""
        features = self.relu(self.conv1(pad_to_multiple(noisy, self.stride)))
        features = self.relu(self.conv2(features))
        features = self.relu(self.upsampling3(features))
        estimate: Tensor = self.activation(self.upsampling4(features))
        return crop_to(estimate, noisy)
