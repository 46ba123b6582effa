"""A net, a loss and a data source: ``model=my_net``, ``loss=my_loss``, ``data=my_source``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from n2n_lightning import plugins
from n2n_lightning.data.pairs import Stage, TensorPairs
from n2n_lightning.nets.padding import crop_to, pad_to_multiple


@plugins.net("my_net", optimizer="adamw")
class MyNet(nn.Module):
    """One convolution down, blocks of convolutions, one up; the result is added to the noisy image.

    Args:
        channels: channels of the input and output images.
        width: number of feature maps.
        blocks: number of 3x3 convolutions between down and up.
    """

    stride = 2  # px: the net pads height and width to a multiple of this

    def __init__(self, channels: int = 3, *, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        if width < 1 or blocks < 0:
            raise ValueError(
                f"width must be 1 or more and blocks 0 or more, got {width} and {blocks}; set model.width=16"
            )
        inner = [layer for _ in range(blocks) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
        self.down = nn.Conv2d(channels, width, 2, stride=2)
        self.inner = nn.Sequential(nn.ReLU(), *inner)
        self.up = nn.ConvTranspose2d(width, channels, 2, stride=2)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float32 images, H and W from 1 px -> same shape."""
        padded = pad_to_multiple(noisy, self.stride)
        estimate = padded + self.up(self.inner(self.down(padded)))
        return crop_to(estimate, noisy)


@plugins.loss("my_loss", minimum_at="mean")
def my_loss(estimate: Tensor, target: Tensor, *, gradients: float = 0.1) -> Tensor:
    """Return the MSE, plus ``gradients`` times the MSE of horizontal differences. (N, C, H, W) twice -> scalar."""
    error = estimate - target
    return error.square().mean() + gradients * error.diff(dim=-1).square().mean()


@plugins.data("my_source")
class MySource:
    """Pairs of noisy images of random stripes, computed instead of read.

    Args:
        pairs: number of training pairs; validation has a quarter as many.
        size_px: height and width of the images.
        sigma: standard deviation of the noise, of 255.
        seed: decides the stripes and the noise.
    """

    peak, sample_type = 255.0, "uint8"  # the value that becomes 1, and the type of stored values

    def __init__(self, *, pairs: int = 256, size_px: int = 32, sigma: float = 25.0, seed: int = 0) -> None:
        if pairs < 4:
            raise ValueError(f"pairs must be 4 or more, got {pairs}; set data.pairs=256")
        self.pairs, self.size_px, self.sigma, self.seed = pairs, size_px, sigma, seed

    def load(self, stage: Stage) -> TensorPairs:
        """Compute the images of a stage: two noisy versions and the clean one, (N, 3, H, W) float32 in 0..255."""
        rng = torch.Generator().manual_seed(2 * self.seed + (stage == "val"))
        count = self.pairs if stage == "train" else self.pairs // 4
        period, phase = 4 + 12 * torch.rand(2, count, 3, 1, 1, generator=rng)
        columns = torch.arange(self.size_px).expand(count, 3, self.size_px, self.size_px)
        clean = 127.5 + 100 * torch.sin(2 * math.pi * columns / period + phase)
        noisy, second = (clean + self.sigma * torch.randn(clean.shape, generator=rng) for _ in range(2))
        return TensorPairs(noisy, second, clean)

    def fingerprint(self) -> str:
        """Return what tells this data from other data: a resumed run must find the same."""
        return f"stripes-{self.pairs}-{self.size_px}-{self.sigma}-{self.seed}"
