import itertools
import math

import numpy as np
import pytest
import torch
from small_runs import MODELS, compose_settings, small
from torch import Tensor, nn

from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.tiling import Plan, Reach, bytes_per_px, measure_reach, plan_tiles
from n2n_lightning.training.build import build_module


def denoiser_of(model: str, channels: int = 3) -> Denoiser:
    torch.manual_seed(0)
    module = build_module(compose_settings(*small(model)), channels).eval()
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)  # some start at zero, which hides what is inside
    return Denoiser(module)


def denoise(denoiser: Denoiser, images: np.ndarray, plan: Plan | None = None) -> np.ndarray:
    bands = denoiser.bands(lambda top, bottom: images[:, top:bottom], images.shape, Scale(1.0), plan=plan)
    return np.concatenate([rows for _, rows in bands], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in MODELS if model != "nafnet"])
@pytest.mark.parametrize("size", [(33, 70), (170, 97), (40, 321)])
def test_tiles_give_the_result_of_the_whole_image(model: str, size: tuple[int, int]):
    denoiser = denoiser_of(model)
    assert denoiser.reach.is_local
    images = np.random.default_rng(0).uniform(size=(1, *size, 3)).astype(np.float32)
    with torch.inference_mode():
        whole = denoiser.module(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    unit = denoiser.reach.stride * math.ceil(20 / denoiser.reach.stride)
    for tile in (unit, 2 * unit, 5 * unit):
        tiled = denoise(denoiser, images, Plan(tile, tile))
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * max(np.abs(whole).max(), 1))


@pytest.mark.parametrize(
    ("model", "stride", "halo"),
    # By hand: the U-Net's 3x3 convolutions reach 2 px at full size, then 1 px of 2, 4, 8 and 16 px on the way down, and
    # 1 of 32, 2 of 16, 8, 4 and 2, 3 of 1 px on the way up, 127 in all. Two 3x3 convolutions of 1 and 2 px after
    # nearest neighbours reach 3 px. Strided 2x2 convolutions see their own cell alone. Rounded up to the stride.
    # Of 3x3 convolutions at full size, each reaches 1 px: 5 and 6 of them. NAFNet's of one level, at full size two on
    # the way down and two on the way up, at half size one in the middle, reach 6 px.
    [
        *(("unet", 32, 128), ("nn_relu", 4, 4), ("convtrans_relu", 4, 4)),
        *(("dncnn", 1, 5), ("red30", 1, 6), ("nafnet32", 2, 6)),
    ],
)
def test_reach_is_what_the_layers_add_up_to(model: str, stride: int, halo: int):
    assert denoiser_of(model).reach == Reach(stride, halo, is_local=True)


def test_attention_looks_at_the_whole_image():
    assert not denoiser_of("nafnet").reach.is_local


class Net(nn.Module):
    """Any layers as a net."""

    def __init__(self, *layers: nn.Module, stride: int = 1) -> None:
        super().__init__()
        self.layers, self.stride = nn.Sequential(*layers), stride

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Pooled(nn.Module):
    """Scales each channel by its mean over the image, as channel attention does."""

    def forward(self, images: Tensor) -> Tensor:
        return images * images.mean((2, 3), keepdim=True)


def test_reach_of_plain_convolutions():
    for kernel, dilation in [(1, 1), (3, 1), (5, 1), (3, 7), (3, 300)]:
        net = Net(nn.Conv2d(2, 2, kernel, padding="same", dilation=dilation))
        assert measure_reach(net, net.stride, 2) == Reach(1, max(kernel // 2 * dilation, 1), is_local=True)
    lopsided = Net(nn.ZeroPad2d((0, 6, 0, 0)), nn.Conv2d(2, 2, (1, 7)))
    assert measure_reach(lopsided, 1, 2).halo == 6


def test_global_pooling_is_noticed():
    reach = measure_reach(Net(nn.Conv2d(1, 1, 3, padding=1), Pooled()), 8, 1)
    assert not reach.is_local and reach.halo > 0 and reach.halo % 8 == 0


def test_peak_memory_counts_what_is_alive_at_one_time():
    # three convolutions in a row, of which two outputs of 16 floats a pixel live at a time, beside the input of 4
    net = Net(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1))
    assert bytes_per_px(net, 4) == pytest.approx((16 + 16 + 4) * 4, rel=0.01)


def computed(plan: Plan, height: int, width: int, halo: int) -> list[tuple[int, int]]:
    """Return rows and columns of each tile with its halo."""
    sides = [
        [min(at + step + halo, whole) - max(at - halo, 0) for at in range(0, whole, step)]
        for step, whole in zip(plan, (height, width), strict=True)
    ]
    return list(itertools.product(*sides))


@pytest.mark.parametrize("size", [(1, 1), (100, 100), (257, 511), (1024, 1536), (40, 20000), (5000, 7000)])
@pytest.mark.parametrize("reach", [Reach(32, 128, True), Reach(4, 4, True), Reach(1, 20, True)])
def test_planned_tiles_fit_and_are_multiples_of_the_stride(size: tuple[int, int], reach: Reach):
    for most_px in (300**2, 700**2, 10**8):
        plan = plan_tiles(*size, reach, lambda rows, columns, most_px=most_px: rows * columns <= most_px)
        assert plan is not None
        assert plan.rows % reach.stride == 0 or plan.rows >= size[0]
        assert plan.columns % reach.stride == 0 or plan.columns >= size[1]
        tiles = computed(plan, *size, reach.halo)
        assert max(rows * columns for rows, columns in tiles) <= most_px
        if math.prod(size) <= most_px:
            assert len(tiles) == 1


def test_planned_tiles_compute_little_more_than_needed():
    reach, size = Reach(32, 128, True), (5000, 7000)
    plan = plan_tiles(*size, reach, lambda rows, columns: rows * columns <= 1248**2)
    assert plan is not None
    squares = Plan(992, 992)  # the biggest square tiles that fit
    ours, theirs = (sum(map(math.prod, computed(p, *size, reach.halo))) for p in (plan, squares))
    assert ours <= theirs


def test_no_plan_where_not_even_the_smallest_tile_fits():
    assert plan_tiles(1000, 1000, Reach(32, 128, True), lambda rows, columns: rows * columns < 288**2) is None


def test_too_little_memory_says_how_much_is_needed():
    denoiser = denoiser_of("unet")
    denoiser.working_bytes = 1e7
    with pytest.raises(ValueError, match=r"needs 0\.\d GB") as error:
        denoiser.plan((1, 1000, 1000, 3), 1)
    denoiser.working_bytes = float(str(error.value).split()[1]) * 1e9
    assert denoiser.plan((1, 1000, 1000, 3), 1).rows < 1000
