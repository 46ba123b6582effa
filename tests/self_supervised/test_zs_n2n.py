"""Zero-Shot Noise2Noise against the paper's equations, and its net against the paper's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.nets.zs_n2n import ZsN2nNet
from n2n_lightning.self_supervised.zs_n2n import zs_n2n

Floats = npt.NDArray[np.float64]


def downsample(images: Floats, kernel: Floats) -> Floats:
    """Convolve (H, W) by a kernel of 2x2 with a stride of 2, by loops."""
    height, width = (side // 2 for side in images.shape)
    result = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        result[row, column] = (images[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] * kernel).sum()
    return result


def test_the_loss_is_the_papers():
    """Equations 5 and 7, with D1 and D2 of figure 1, and a denoiser f."""
    y = torch.rand(1, 1, 6, 9, generator=seeded_generator(0))
    d1, d2 = np.array([[0, 0.5], [0.5, 0]]), np.array([[0.5, 0], [0, 0.5]])

    def f(x: Any) -> Any:
        return 0.6 * x + 0.1 * x**2

    image = y[0, 0, :, :8].double().numpy()  # the odd column is left out
    first, second = downsample(image, d1), downsample(image, d2)
    residual = (np.mean((f(first) - second) ** 2) + np.mean((f(second) - first) ** 2)) / 2
    after = [downsample(f(image), kernel) for kernel in (d1, d2)]
    consistency = (np.mean((f(first) - after[0]) ** 2) + np.mean((f(second) - after[1]) ** 2)) / 2
    assert consistency > 1e-5
    assert zs_n2n(f, y, torch.tensor([0])).item() == pytest.approx(residual + consistency, rel=1e-5)


def test_the_net_has_the_papers_size_and_subtracts_the_noise():
    net = ZsN2nNet(3)
    assert sum(weight.numel() for weight in net.parameters()) == 22275  # "around 22k", section 4
    with torch.no_grad():
        net.noise[-1].weight.zero_()
        net.noise[-1].bias.fill_(0.25)
    images = torch.rand(1, 3, 5, 4, generator=seeded_generator(0))
    torch.testing.assert_close(net(images), images - 0.25)
