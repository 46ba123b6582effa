"""Every model of conf/model: sizes, gradients, the published architecture, its own optimizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_runs import FIVE_MODELS, MODELS, compose_settings, small
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning.models.module import OPTIMIZERS, DenoiserModule
from n2n_lightning.nets.padding import crop_to, pad_to_multiple, reflect
from n2n_lightning.nets.sequential import Sequential
from n2n_lightning.nets.unet import UNet, UpConcat
from n2n_lightning.training.build import build_module

MULTIPLES = {
    "unet": 32,
    "sequential": 4,
    "nafnet": 2,
    "dncnn": 1,
    "drunet": 2,
    "red30": 1,
    "n2v2": 4,
    "zs_n2n": 1,
}  # px; what the strides of these families need, of NAFNet for one level
# Lehtinen et al. 2018, table 2: (maps out, maps in) of each 3x3 convolution, for n = m = 3 channels
PAPER = {
    "enc_conv0": (48, 3),
    **{f"enc_conv{i}": (48, 48) for i in range(1, 7)},
    **{"dec_conv5a": (96, 96), "dec_conv5b": (96, 96)},
    **{f"dec_conv{i}{part}": (96, maps) for i in (4, 3, 2) for part, maps in (("a", 144), ("b", 96))},
    **{"dec_conv1a": (64, 99), "dec_conv1b": (32, 64), "dec_conv1c": (3, 32)},
}


def module_of(model: str, channels: int = 3, *overrides: str) -> DenoiserModule:
    torch.manual_seed(1)
    return build_module(compose_settings(*small(model), *overrides), channels)


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5))


def test_the_five_models_of_the_study_are_there():
    assert set(FIVE_MODELS) <= set(MODELS)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("model", MODELS)
def test_any_size_and_channels_keep_the_shape(model: str, channels: int):
    net = module_of(model, channels)
    for height, width in ((1, 1), (1, 7), (3, 2), (31, 33), (40, 24)):
        images = random_images(2, channels, height, width)
        before = images.clone()
        estimate = net(images)
        assert estimate.shape == images.shape
        assert estimate.isfinite().all()
        assert torch.equal(images, before), "the net wrote into its input"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 20)])
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_gets_a_finite_gradient(model: str, height: int, width: int):
    net = module_of(model)
    net(random_images(3, 3, height, width)).square().sum().backward()
    without = [name for name, p in net.net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_matters(model: str):
    """Over a few starts, since an output ReLU may be shut, and a few steps, since NAFNet's blocks start shut too."""
    moved: set[str] = set()
    names: set[str] = set()
    for seed in range(4):
        torch.manual_seed(seed)
        net = build_module(compose_settings(*small(model)), 3)
        optimizer = torch.optim.SGD(net.net.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            net(random_images(3, 3, 33, 20)).square().mean().backward()
            moved |= {name for name, p in net.net.named_parameters() if p.grad is not None and p.grad.any()}
            optimizer.step()
        names = {name for name, _ in net.net.named_parameters()}
    assert moved == names


@pytest.mark.parametrize("model", MODELS)
def test_an_image_is_denoised_alike_alone_and_in_a_batch(model: str):
    net = module_of(model).eval()
    images = random_images(3, 3, 24, 24)
    together = net(images)
    for image, estimate in zip(images, together, strict=True):
        torch.testing.assert_close(net(image[None])[0], estimate, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("unet", 991_203),
        ("nn_relu", 61_971),
        ("nn_sigmoid", 61_971),
        ("convtrans_relu", 38_211),
        ("convtrans_sigmoid", 38_211),
    ],
)
def test_parameter_counts_of_the_study(model: str, parameters: int):
    assert sum(p.numel() for p in module_of(model).net.parameters()) == parameters


def test_the_unet_has_the_papers_layers_in_its_order():
    layers = {name: layer for name, layer in UNet().named_modules() if isinstance(layer, nn.Conv2d)}
    assert {name: tuple(layer.weight.shape) for name, layer in layers.items()} == {
        name: (*maps, 3, 3) for name, maps in PAPER.items()
    }
    assert list(layers) == list(PAPER)
    assert set(UNet().state_dict()) == {f"{name}.{kind}" for name in PAPER for kind in ("weight", "bias")}


def test_the_unet_starts_he_normal():
    torch.manual_seed(0)
    for name, layer in UNet().named_children():
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        gain = 1.0 if name == "dec_conv1c" else np.sqrt(2)
        expected = gain / np.sqrt(PAPER[name][1] * 9)
        tolerance = 5 / np.sqrt(2 * layer.weight.numel())  # five standard errors of a standard deviation
        assert layer.weight.std().item() == pytest.approx(expected, rel=tolerance)
        assert not layer.bias.any()


def test_the_unet_computes_what_the_paper_says():
    """The appendix, level by level, for a size that needs no padding."""
    torch.manual_seed(2)
    net = UNet().double()
    for layer in net.children():
        nn.init.normal_(layer.bias, std=0.05)
    images = random_images(1, 3, 64, 32).double()

    def conv(name: str, maps: Tensor) -> Tensor:
        layer = net.get_submodule(name)
        return F.conv2d(maps, layer.weight, layer.bias, padding=1)

    def leaky(maps: Tensor) -> Tensor:
        return torch.maximum(maps, 0.1 * maps)

    skips, maps = [images], leaky(conv("enc_conv0", images))
    for level in range(1, 6):
        maps = leaky(conv(f"enc_conv{level}", maps))
        maps = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
        skips.append(maps)
    maps = leaky(conv("enc_conv6", skips.pop()))
    for level in range(5, 0, -1):
        maps = torch.cat([maps.repeat_interleave(2, 2).repeat_interleave(2, 3), skips.pop()], 1)
        maps = leaky(conv(f"dec_conv{level}b", leaky(conv(f"dec_conv{level}a", maps))))
    torch.testing.assert_close(net(images), conv("dec_conv1c", maps))


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_the_sequential_net_computes_what_the_report_says(activation: str):
    """Table 1 with transposed convolutions: with 2x2 kernels and stride 2, every layer is one product a block."""
    torch.manual_seed(3)
    net = Sequential(3, upsampling="convtrans", activation=activation).double()
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    images = random_images(2, 3, 8, 12).double().numpy()

    def down(maps: np.ndarray, name: str) -> np.ndarray:
        n, c, h, w = maps.shape
        blocks = maps.reshape(n, c, h // 2, 2, w // 2, 2)
        added = np.einsum("nchiwj,ocij->nohw", blocks, weights[f"{name}.weight"])
        return np.maximum(added + weights[f"{name}.bias"][:, None, None], 0)

    def up(maps: np.ndarray, name: str) -> np.ndarray:
        blocks = np.einsum("nchw,coij->nohiwj", maps, weights[f"{name}.weight"])
        n, o, h, _, w, _ = blocks.shape
        return blocks.reshape(n, o, 2 * h, 2 * w) + weights[f"{name}.bias"][:, None, None]

    maps = np.maximum(up(down(down(images, "conv1"), "conv2"), "upsampling3"), 0)
    maps = up(maps, "upsampling4")
    expected = np.maximum(maps, 0) if activation == "relu" else 1 / (1 + np.exp(-maps))
    np.testing.assert_allclose(net(torch.from_numpy(images)).detach(), expected, atol=1e-12)


def test_the_sequential_net_with_nearest_neighbours_computes_what_the_report_says():
    """Table 1 again; a 3x3 convolution is a sum over nine shifts of the zero-padded maps."""
    torch.manual_seed(3)
    net = Sequential(3, upsampling="nearest", activation="sigmoid").double()
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    images = random_images(2, 3, 8, 12).double()
    maps = net.conv2(net.conv1(images).clamp(min=0)).clamp(min=0).detach().numpy()  # checked above
    for name in ("upsampling3.1", "upsampling4.1"):
        maps = np.maximum(maps, 0).repeat(2, 2).repeat(2, 3)
        height, width = maps.shape[2:]
        padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
        shifts = [(i, j, padded[:, :, i : i + height, j : j + width]) for i in range(3) for j in range(3)]
        products = [np.einsum("nchw,oc->nohw", part, weights[f"{name}.weight"][:, :, i, j]) for i, j, part in shifts]
        maps = np.sum(products, axis=0) + weights[f"{name}.bias"][:, None, None]
    np.testing.assert_allclose(net(images).detach(), 1 / (1 + np.exp(-maps)), atol=1e-12)


def folded(index: int, side: int) -> int:
    """Return the pixel that a mirror at both ends shows at ``index``: period 2 * (side - 1)."""
    if side == 1:
        return 0
    index %= 2 * (side - 1)
    return min(index, 2 * (side - 1) - index)


@pytest.mark.parametrize("multiple", [4, 32])
@pytest.mark.parametrize(("height", "width"), [(17, 31), (30, 18), (32, 33), (20, 64)])
def test_padding_is_numpys_reflection(height: int, width: int, multiple: int):
    images = random_images(2, 3, height, width)
    missing = [(0, -side % multiple) for side in (height, width)]
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), *missing), mode="reflect")
    np.testing.assert_array_equal(pad_to_multiple(images, multiple), expected)
    np.testing.assert_array_equal(reflect(images, *expected.shape[2:]), expected)  # as an exported net does


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 7), (7, 1), (2, 3), (3, 2), (2, 32), (32, 1), (5, 40), (1, 64), (16, 16)]
)
def test_small_sides_are_reflected_again_and_one_pixel_is_repeated(height: int, width: int):
    images = random_images(1, 2, height, width)
    padded = pad_to_multiple(images, 32)
    assert padded.shape == (1, 2, 32, 32 if width <= 32 else 64)
    rows = [folded(y, height) for y in range(padded.shape[2])]
    columns = [folded(x, width) for x in range(padded.shape[3])]
    assert torch.equal(padded, images[:, :, rows][:, :, :, columns])
    assert torch.equal(crop_to(padded, images), images)


@pytest.mark.parametrize(("height", "width"), [(1, 7), (2, 3), (40, 24), (16, 40)])
def test_padding_keeps_the_layout(height: int, width: int):
    images = random_images(2, 3, height, width)
    assert pad_to_multiple(images, 32).is_contiguous()
    images = images.contiguous(memory_format=torch.channels_last)
    assert pad_to_multiple(images, 32).is_contiguous(memory_format=torch.channels_last)


def test_a_multiple_is_not_padded_at_all():
    images = random_images(1, 3, 64, 32)
    assert pad_to_multiple(images, 32) is images


@pytest.mark.parametrize(("height", "width"), [(40, 24), (31, 33), (18, 32)])
@pytest.mark.parametrize("model", MODELS)
def test_an_odd_size_gives_what_the_padded_image_gives(model: str, height: int, width: int):
    net = module_of(model).eval()
    multiple = net.net.stride
    assert multiple == MULTIPLES.get(net.family, multiple)
    images = random_images(1, 3, height, width)
    missing = [(0, -side % multiple) for side in (height, width)]
    padded = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), *missing), mode="reflect"))
    assert torch.equal(net(images), net(padded)[..., :height, :width])


def test_output_ranges():
    images = 4 * random_images(4, 3, 32, 32) - 2
    assert module_of("unet")(images).amin() < 0, "the U-Net's output is linear"
    for model in ("nn_relu", "convtrans_relu"):
        assert module_of(model)(images).amin() >= 0
    for model in ("nn_sigmoid", "convtrans_sigmoid"):
        estimate = module_of(model)(100 * images)
        assert estimate.amin() >= 0 and estimate.amax() <= 1


@pytest.mark.parametrize("family", [UNet, Sequential])
def test_a_net_without_channels_is_refused(family: type[nn.Module]):
    with pytest.raises(ValueError, match=r"channels .* got 0;"):
        family(0)


def optimizer_of(model: str, *overrides: str) -> torch.optim.Optimizer:
    optimizer = module_of(model, 3, *overrides).configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


@pytest.mark.parametrize("model", FIVE_MODELS)
def test_the_studys_models_bring_the_reports_optimizers(model: str):
    optimizer = optimizer_of(model)
    (group,) = optimizer.param_groups
    if model == "unet":
        assert type(optimizer) is torch.optim.Adam
        assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (0.001, (0.9, 0.99), 0)
    else:
        assert type(optimizer) is torch.optim.SGD
        assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.9, 0, False)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_brings_an_optimizer_of_all_its_weights(model: str):
    net = module_of(model)
    optimizer = net.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.net.parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("choice", sorted(OPTIMIZERS))
@pytest.mark.parametrize("model", MODELS)
def test_the_command_lines_optimizer_wins(model: str, choice: str):
    assert type(optimizer_of(model, f"optimizer={choice}")) is OPTIMIZERS[choice]
    changed = optimizer_of(model, f"optimizer={choice}", "optimizer.lr=0.0625")
    assert type(changed) is OPTIMIZERS[choice] and changed.param_groups[0]["lr"] == 0.0625


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_value_wins_over_the_models_own_and_leaves_its_choice(model: str):
    changed = optimizer_of(model, "optimizer.lr=0.0625")
    assert type(changed) is type(optimizer_of(model))
    assert changed.param_groups[0]["lr"] == 0.0625


def test_the_unets_own_gradient_of_upsampling_is_autograds():
    rng = torch.Generator().manual_seed(0)
    features, skip = (torch.randn(2, c, n, m, generator=rng).double() for c, n, m in ((5, 3, 4), (2, 6, 8)))
    features, skip = (x.contiguous(memory_format=torch.channels_last).requires_grad_() for x in (features, skip))
    joined = UpConcat.apply(features, skip)
    plain = torch.cat([F.interpolate(features, scale_factor=2.0, mode="nearest"), skip], 1)
    assert torch.equal(joined, plain)
    gradient = torch.randn(joined.shape, generator=rng).double()
    ours, autograds = (torch.autograd.grad(output, (features, skip), gradient) for output in (joined, plain))
    for mine, other in zip(ours, autograds, strict=True):
        torch.testing.assert_close(mine, other)
