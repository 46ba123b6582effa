"""DnCNN, RED30 and NAFNet against their papers: parameters, layers, skips, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning.nets.dncnn import DnCnn
from n2n_lightning.nets.nafnet import NafBlock, NafNet
from n2n_lightning.nets.red30 import Red30


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5)).double()


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def conv(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    return F.conv2d(maps, layer.weight, layer.bias, padding=1)


# DnCNN


def convolution(maps_in: int, maps_out: int, *, bias: bool = True) -> int:
    """Parameters of a 3x3 convolution."""
    return maps_out * (9 * maps_in + bias)


def test_dncnn_has_the_papers_layers():
    """20 convolutions of 64 maps; the inner 18 have a normalisation of two parameters a map instead of a bias."""
    inner = 18 * (convolution(64, 64, bias=False) + 2 * 64)
    assert parameters(DnCnn(3)) == convolution(3, 64) + inner + convolution(64, 3) == 669_379
    kinds = [type(layer).__name__ for layer in DnCnn(1, layers=4, width=2).net]
    assert kinds == ["Conv2d", "ReLU", *["Conv2d", "BatchNorm2d", "ReLU"] * 2, "Conv2d"]


def test_dncnn_takes_what_its_layers_give_off_the_noisy_image():
    torch.manual_seed(0)
    net = DnCnn(2, layers=3, width=4).double()
    images = random_images(3, 2, 6, 7)
    first, _, second, _, _, third = net.net
    maps = F.conv2d(F.relu(conv(first, images)), second.weight, padding=1)
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
    expected = images - conv(third, F.relu((maps - mean) / (variance + 1e-5).sqrt()))
    torch.testing.assert_close(net(images), expected)


# RED30


def test_red30_has_the_papers_size():
    """15 convolutions and 15 transposed ones of 128 maps: 14 of each from maps to maps."""
    net = Red30(3)
    assert parameters(net) == convolution(3, 128) + 28 * convolution(128, 128) + convolution(128, 3)
    assert parameters(net) == pytest.approx(4.1e6, rel=0.02)
    assert len(net.down) == len(net.up) == 15


@pytest.mark.parametrize("layers", [6, 8])
def test_red30_skips_from_every_second_convolution_to_its_mirror(layers: int):
    """By hand: of 6 layers, the output of convolution 2 goes to transposed convolution 1; of 8, to number 2."""
    torch.manual_seed(0)
    net = Red30(2, layers=layers, width=3).double()
    images = random_images(1, 2, 6, 5)

    def up(number: int, maps: Tensor) -> Tensor:
        layer = net.up[number - 1]
        return F.conv2d(maps, layer.weight.flip(2, 3).transpose(0, 1), layer.bias, padding=1)

    two = F.relu(conv(net.down[1], F.relu(conv(net.down[0], images))))
    maps = F.relu(conv(net.down[2], two))
    if layers == 6:
        maps = F.relu(up(1, maps) + two)
        maps = F.relu(up(2, maps))
        expected = up(3, maps) + images
    else:
        maps = F.relu(up(1, F.relu(conv(net.down[3], maps))))
        maps = F.relu(up(2, maps) + two)
        expected = up(4, F.relu(up(3, maps))) + images
    torch.testing.assert_close(net(images), expected)


# NAFNet


@pytest.mark.parametrize(
    ("encoder", "middle", "decoder", "millions"),
    [((1, 1, 1, 28), 1, (1, 1, 1, 1), 17.11), ((2, 2, 4, 8), 12, (2, 2, 2, 2), 29.16)],  # for GoPro and SIDD
)
def test_nafnet_of_32_maps_has_the_papers_size(
    encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...], millions: float
):
    """The paper has two factors a map and block besides, which are learnt from zero."""
    with torch.device("meta"):
        net = NafNet(3, width=32, encoder=encoder, middle=middle, decoder=decoder)
    blocks = [module for module in net.modules() if isinstance(module, NafBlock)]
    factors = sum(2 * block.conv3.out_channels for block in blocks)
    assert len(blocks) == sum(encoder) + middle + sum(decoder)
    assert round((parameters(net) + factors) / 1e6, 2) == millions


@pytest.mark.parametrize("attention", [True, False])
def test_a_nafnet_block_starts_as_identity(attention: bool):
    maps = random_images(2, 6, 5, 4).float()
    assert torch.equal(NafBlock(6, attention=attention)(maps), maps)


@pytest.mark.parametrize("attention", [True, False])
def test_a_nafnet_block_computes_what_the_paper_says(attention: bool):
    torch.manual_seed(0)
    block = NafBlock(4, attention=attention).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    weights = {name: value.numpy() for name, value in block.state_dict().items()}
    maps = random_images(2, 4, 5, 6).numpy()

    def bias(name: str) -> np.ndarray:
        return weights[f"{name}.bias"][:, None, None]

    def norm(maps: np.ndarray, name: str) -> np.ndarray:
        mean, variance = maps.mean(1, keepdims=True), maps.var(1, keepdims=True)
        return (maps - mean) / np.sqrt(variance + 1e-6) * weights[f"{name}.weight"][:, None, None] + bias(name)

    def pointwise(maps: np.ndarray, name: str) -> np.ndarray:
        return np.einsum("nchw,oc->nohw", maps, weights[f"{name}.weight"][:, :, 0, 0]) + bias(name)

    def depthwise(maps: np.ndarray, name: str) -> np.ndarray:
        padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
        kernels = weights[f"{name}.weight"][:, 0, :, :, None, None]
        return sum(kernels[:, i, j] * padded[:, :, i : i + 5, j : j + 6] for i in range(3) for j in range(3)) + bias(
            name
        )

    def gate(maps: np.ndarray) -> np.ndarray:
        return maps[:, : maps.shape[1] // 2] * maps[:, maps.shape[1] // 2 :]

    inner = gate(depthwise(pointwise(norm(maps, "norm1"), "conv1"), "conv2"))
    if attention:
        inner = inner * pointwise(inner.mean((2, 3), keepdims=True), "attention")
    middle = maps + pointwise(inner, "conv3")
    expected = middle + pointwise(gate(pointwise(norm(middle, "norm2"), "conv4")), "conv5")
    np.testing.assert_allclose(block(torch.from_numpy(maps)).detach(), expected, atol=1e-10)


def test_nafnet_takes_any_size_in_steps_of_its_smallest_level():
    net = NafNet(3, width=4).eval()
    assert net.stride == 8
    images = random_images(1, 3, 13, 18).float()
    padded = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (0, 3), (0, 6)), mode="reflect"))
    assert torch.equal(net(images), net(padded)[..., :13, :18])


def test_nafnets_levels_are_joined_as_in_the_paper():
    """Two levels: halved by strided convolutions, doubled by pixel shuffle, skips and the noisy image added."""
    torch.manual_seed(0)
    net = NafNet(2, width=3, encoder=(1, 2), middle=1, decoder=(1, 0)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    images = random_images(1, 2, 8, 12)

    def down(level: int, maps: Tensor) -> Tensor:
        n, channels, height, width = maps.shape
        blocks = maps.reshape(n, channels, height // 2, 2, width // 2, 2)
        layer = net.downs[level]
        return torch.einsum("nchiwj,ocij->nohw", blocks, layer.weight) + layer.bias[:, None, None]

    def up(step: int, maps: Tensor) -> Tensor:
        more = torch.einsum("nchw,oc->nohw", maps, net.ups[step][0].weight[:, :, 0, 0])
        n, channels, height, width = more.shape
        cells = more.reshape(n, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return cells.reshape(n, channels // 4, 2 * height, 2 * width)

    first = net.encoders[0](conv(net.intro, images))
    second = net.encoders[1](down(0, first))
    maps = net.decoders[0](up(0, net.middle(down(1, second))) + second)
    expected = conv(net.ending, up(1, maps) + first) + images
    torch.testing.assert_close(net(images), expected)


# What is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DnCnn(0), "channels and width must be 1 or more"),
        (lambda: DnCnn(width=0), "got 3, 0 and 20; set model.layers=20 model.width=64"),
        (lambda: DnCnn(layers=1), "layers 2 or more, got 3, 64 and 1"),
        (lambda: Red30(layers=5), "layers even, got 3, 128 and 5; set model.layers=30 model.width=128"),
        (lambda: Red30(layers=0), "layers even, got 3, 128 and 0"),
        (lambda: NafNet(width=0), "channels and width must be 1 or more, got 3 and 0; set model.width=24"),
        (lambda: NafNet(encoder=(1, 1)), r"encoder and decoder .* got \[1, 1\], 1 and \[1, 1, 1\]; set model.encoder="),
        (lambda: NafNet(middle=-1), "0 or more blocks, got .* -1 and"),
    ],
)
def test_sizes_that_make_no_net_are_refused_with_what_to_set(make, words: str):
    with pytest.raises(ValueError, match=words):
        make()
