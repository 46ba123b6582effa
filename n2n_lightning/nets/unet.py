"""The U-Net of Noise2Noise (Lehtinen et al. 2018, appendix, table 2)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning.nets.padding import crop_to, pad_to_multiple

NEGATIVE_SLOPE = 0.1


class UpConcat(torch.autograd.Function):
    """Nearest-neighbour upsampling by 2, then concatenation: (N, C, H, W) and (N, D, 2H, 2W) -> (N, C + D, 2H, 2W).

    It has its own ``backward`` because autograd would copy the first C channels of the gradient before summing them.
    That copy takes 4 % of a training step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, skip: Tensor) -> Tensor:
        ctx.channels = features.shape[1]
        return torch.cat([F.interpolate(features, scale_factor=2.0, mode="nearest"), skip], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        upper = gradient[:, : ctx.channels]
        wide = torch.promote_types(gradient.dtype, torch.float32)  # 16-bit values are rounded only once
        summed = upper[:, :, ::2, ::2].to(wide) + upper[:, :, 1::2, ::2]
        summed += upper[:, :, ::2, 1::2]
        summed += upper[:, :, 1::2, 1::2]
        return summed.to(gradient.dtype), gradient[:, ctx.channels :]


class UNet(nn.Module):
    """Five-level U-Net without normalisation layers and with a linear output.

    Layers carry the paper's names, so that published weights load by name. Weights start He-normal for the leaky
    ReLU (gain sqrt(2); 1 for the linear last layer), biases at zero, as in the paper's code.

    Args:
        channels: channels of the input and output images; 991,203 parameters for 3.
    """

    stride = 32  # px: the net pads height and width to a multiple of this; tiles must align to it

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be 1 or more, got {channels}; use the number of channels of the images")
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        self.enc_conv0 = conv(channels, 48)
        self.enc_conv1 = conv(48, 48)
        self.enc_conv2 = conv(48, 48)
        self.enc_conv3 = conv(48, 48)
        self.enc_conv4 = conv(48, 48)
        self.enc_conv5 = conv(48, 48)
        self.enc_conv6 = conv(48, 48)
        self.dec_conv5a = conv(96, 96)
        self.dec_conv5b = conv(96, 96)
        self.dec_conv4a = conv(144, 96)
        self.dec_conv4b = conv(96, 96)
        self.dec_conv3a = conv(144, 96)
        self.dec_conv3b = conv(96, 96)
        self.dec_conv2a = conv(144, 96)
        self.dec_conv2b = conv(96, 96)
        self.dec_conv1a = conv(96 + channels, 64)
        self.dec_conv1b = conv(64, 32)
        self.dec_conv1c = conv(32, channels)
        for layer in self.children():
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            gain = 1.0 if layer is self.dec_conv1c else 2.0**0.5
            nn.init.normal_(layer.weight, std=gain / (layer.in_channels * 9) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float images, H and W from 1 px -> same shape, unclipped."""
        act = partial(F.leaky_relu_, negative_slope=NEGATIVE_SLOPE)

        def up(features: Tensor, skip: Tensor) -> Tensor:
            same = skip.to(features.dtype)  # a float32 image would turn a bf16 layer's whole input into float32
            joined: Tensor = UpConcat.apply(features, same)  # type: ignore[no-untyped-call]  # torch gives no types for apply
            return joined

        padded = pad_to_multiple(noisy, self.stride)
        x = act(self.enc_conv0(padded))
        pool1 = F.max_pool2d(act(self.enc_conv1(x)), 2)
        pool2 = F.max_pool2d(act(self.enc_conv2(pool1)), 2)
        pool3 = F.max_pool2d(act(self.enc_conv3(pool2)), 2)
        pool4 = F.max_pool2d(act(self.enc_conv4(pool3)), 2)
        pool5 = F.max_pool2d(act(self.enc_conv5(pool4)), 2)
        x = act(self.enc_conv6(pool5))
        x = act(self.dec_conv5b(act(self.dec_conv5a(up(x, pool4)))))
        x = act(self.dec_conv4b(act(self.dec_conv4a(up(x, pool3)))))
        x = act(self.dec_conv3b(act(self.dec_conv3a(up(x, pool2)))))
        x = act(self.dec_conv2b(act(self.dec_conv2a(up(x, pool1)))))
        x = act(self.dec_conv1b(act(self.dec_conv1a(up(x, padded)))))
        return crop_to(self.dec_conv1c(x), noisy)
