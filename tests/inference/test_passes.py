"""Passes through a net: sub-images, flips and rotations, and that tiles give the result of the whole image."""

from __future__ import annotations

import pytest
import torch
from test_denoiser import identity, module_of
from torch import Tensor, nn

from n2n_lightning import Denoiser
from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.inference.passes import Passes, estimate_at_spacing, estimate_over_turns, turn, turn_back
from n2n_lightning.inference.tiling import Plan, Reach


def blur(images: Tensor) -> Tensor:
    """Average over 3x3 px, which depends on the neighbours."""
    return nn.functional.avg_pool2d(nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spacing", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(12, 18), (13, 17), (1, 5), (2, 2)])
def test_each_sub_image_is_denoised_as_if_it_were_alone(spacing: int, height: int, width: int):
    images = noise(2, 3, height, width)
    found = estimate_at_spacing(blur, spacing, images)
    assert found.shape == images.shape
    if height % spacing == 0 and width % spacing == 0:
        for top in range(spacing):
            for left in range(spacing):
                part = (..., slice(top, None, spacing), slice(left, None, spacing))
                torch.testing.assert_close(found[part], blur(images[part]))
    assert torch.equal(estimate_at_spacing(lambda parts: parts, spacing, images), images)


def test_spacing_1_is_the_net_itself():
    images = noise(1, 3, 20, 24)
    plain, passes = Denoiser(module_of(Mix())), Denoiser(module_of(Mix()), passes=Passes((1,)))
    assert torch.equal(plain.estimate(images), passes.estimate(images))


@pytest.mark.parametrize("number", range(8))
def test_every_turn_is_undone(number: int):
    images = noise(1, 2, 4, 6)
    assert torch.equal(turn_back(turn(images, number), number), images)
    others = [turn(images, other) for other in range(8) if other != number]
    assert not any(other.shape == images.shape and torch.equal(other, turn(images, number)) for other in others)


def test_turns_average_what_a_net_does_in_each_direction():
    images = noise(1, 1, 5, 6)
    right = estimate_over_turns(lambda x: x.roll(1, -1), 1, images, 8)
    around = sum(images.roll(step, axis) for step in (-1, 1) for axis in (-1, -2)) / 4
    torch.testing.assert_close(right, around)


class Mix(nn.Module):
    """Depends on a pixel's place in steps of 2 px, as a net with that stride does."""

    stride = 2

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(1))
        self.kernel = nn.Parameter((kernel / kernel.sum()).expand(3, 1, 5, 5).clone())

    def forward(self, images: Tensor) -> Tensor:
        mixed = nn.functional.conv2d(images, self.kernel, padding=2, groups=3)
        rows = (torch.arange(images.shape[-2]) % 2)[:, None]
        return mixed * (1 + 0.1 * rows)


@pytest.mark.parametrize(
    "passes", [Passes((2,)), Passes(turns=8), Passes((1, 2), again=True), Passes((3, 4), again=True, turns=2)], ids=str
)
@pytest.mark.parametrize(("height", "width"), [(150, 170), (133, 141)])
def test_tiles_give_the_result_of_the_whole_image(passes: Passes, height: int, width: int):
    denoiser = Denoiser(module_of(Mix()), passes=passes)
    images = noise(1, height, width, 3).numpy()
    stride = denoiser.reach.stride
    assert denoiser.reach.is_local and denoiser.net_reach.halo < 8
    scale = Scale(1.0)
    whole, tiles = (
        [rows for _, rows in denoiser.bands(lambda top, bottom: images[:, top:bottom], images.shape, scale, plan=plan)]
        for plan in (Plan(height, width), Plan(stride * (48 // stride + 1), stride * (48 // stride + 1)))
    )
    assert len(tiles) > len(whole) == 1
    torch.testing.assert_close(
        torch.cat([torch.from_numpy(rows) for rows in tiles], 1), torch.from_numpy(whole[0]), rtol=0, atol=1e-6
    )


def test_passes_are_counted():
    assert [Passes().count, Passes((1, 2), again=True).count, Passes(turns=8).count] == [1, 3, 8]
    assert Passes((3, 4), again=True).reach(Reach(2, 6, is_local=True)) == Reach(24, 48, is_local=True)


def test_grey_images_go_through_a_net_for_colours():
    denoiser = identity(3)
    denoiser.has_learnt_grey = True
    images = noise(2, 1, 9, 7)
    torch.testing.assert_close(denoiser.estimate(images), images)
