"""Neighbor2Neighbor: the sub-images and the loss against the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.losses import l1, l2
from n2n_lightning.self_supervised.neighbor2neighbor import (
    draw_choice,
    halves_loss,
    neighbor2neighbor,
    regularised_loss,
    subsample,
)

Floats = npt.NDArray[np.float64]
NEIGHBOURS = {(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)}  # in a cell of 0 1 / 2 3

# The sub-images


def test_the_eight_choices_are_the_eight_ordered_pairs_of_neighbours():
    cell = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 1, 2, 2).expand(8, -1, -1, -1)
    first, second = subsample(cell, torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1))
    pairs = list(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))
    assert len(pairs) == 8 and set(pairs) == NEIGHBOURS


def by_loops(images: Floats, choice: Tensor) -> tuple[Floats, Floats]:
    """Return the sub-images of (N, C, H, W), cell by cell."""
    pixels = [(0, 0), (0, 1), (1, 0), (1, 1)]
    one_cell = torch.arange(4.0).reshape(1, 1, 2, 2)
    order = [
        tuple(int(half.item()) for half in subsample(one_cell, torch.tensor([[[k]]]))) for k in range(8)
    ]  # which choice is which pair is nobody's business
    n, channels, height, width = images.shape
    halves = np.zeros((2, n, channels, height // 2, width // 2))
    for image, row, column in np.ndindex(n, height // 2, width // 2):
        for half, pixel in enumerate(order[int(choice[image, row, column])]):
            down, across = pixels[pixel]
            halves[half, image, :, row, column] = images[image, :, 2 * row + down, 2 * column + across]
    return halves[0], halves[1]


def random_images(*shape: int) -> tuple[Tensor, Tensor]:
    """Images and a choice for them."""
    rng = seeded_generator(4)
    images = torch.rand(shape, generator=rng)
    return images, draw_choice(shape[0], *shape[2:], rng)


def test_each_cell_has_its_own_choice_which_all_channels_share():
    images, choice = random_images(3, 2, 6, 8)
    first, second = subsample(images, choice)
    expected = by_loops(images.double().numpy(), choice)
    np.testing.assert_allclose(first, expected[0], rtol=1e-6)
    np.testing.assert_allclose(second, expected[1], rtol=1e-6)


def test_all_choices_are_drawn_equally_often():
    choice = draw_choice(10, 40, 40, seeded_generator(0))
    assert choice.shape == (10, 20, 20)
    counts = np.bincount(choice.flatten(), minlength=8)
    # 500 each; chi-squared with 7 degrees of freedom: above 37 once in 200,000 tries, and the seed is fixed
    assert len(counts) == 8 and ((counts - 500) ** 2 / 500).sum() < 37


# The loss


def test_the_loss_is_the_papers():
    """Equations 6 and 7: |f(g1 y) - g2 y|^2 + gamma |f(g1 y) - g2 y - (g1 f(y) - g2 f(y))|^2, as means."""
    images, choice = random_images(2, 3, 8, 6)
    y = images.double().numpy()

    def f(x: Any) -> Any:
        shifted = x.roll(1, -1) if isinstance(x, Tensor) else np.roll(x, 1, -1)
        return 0.7 * x + 0.1 * shifted + 0.05

    g1, g2 = by_loops(y, choice)
    g1f, g2f = by_loops(f(y), choice)
    fit = np.mean((f(g1) - g2) ** 2)
    regulariser = np.mean((f(g1) - g2 - (g1f - g2f)) ** 2)
    for weight in (0.0, 0.5, 2.0):
        found = regularised_loss(f, l2, images, choice, weight).item()
        assert found == pytest.approx(fit + weight * regulariser, rel=1e-5)
    assert regulariser > 0.01
    assert regularised_loss(f, l1, images, choice, 0).item() == pytest.approx(np.mean(np.abs(f(g1) - g2)), rel=1e-5)


def test_no_gradient_flows_through_the_whole_image():
    """With f(y) = a y, and b for a where it is not trained: of (a g1 - g2)^2 + w (a g1 - g2 - b (g1 - g2))^2."""
    images, choice = random_images(2, 1, 8, 8)
    a = torch.tensor(0.6, requires_grad=True)
    regularised_loss(lambda x: a * x, l2, images, choice, 3.0).backward()
    g1, g2 = by_loops(images.double().numpy(), choice)
    expected = np.mean(2 * (0.6 * g1 - g2) * g1) + 3 * np.mean(2 * (0.6 * g1 - g2 - 0.6 * (g1 - g2)) * g1)
    assert a.grad is not None and a.grad.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("weight", "sizes"), [(0.0, [4]), (1.0, [4, 8])])
def test_without_a_weight_the_net_runs_once(weight: float, sizes: list[int]):
    images, choice = random_images(2, 1, 8, 8)
    seen = []

    def net(x: Tensor) -> Tensor:
        seen.append(x.shape[-1])
        return x

    regularised_loss(net, l2, images, choice, weight)
    assert seen == sizes


def test_the_regularisers_weight_rises_to_gamma():
    images, _ = random_images(2, 3, 8, 6)
    seeds = torch.tensor([5])

    def net(x: Tensor) -> Tensor:
        return 0.7 * x + 0.1 * x.roll(1, -1)

    start, middle, end = (neighbor2neighbor(net, images, seeds, progress=p, gamma=4) for p in (0, 0.5, 1))
    assert start.item() == halves_loss(net, l2, images, seeds).item()
    assert (end - start).item() == pytest.approx(2 * (middle - start).item(), rel=1e-4)
    assert end.item() == pytest.approx(halves_loss(net, l2, images, seeds, 4).item(), rel=1e-6)
    assert end > 1.1 * start


def test_an_odd_last_row_and_column_are_left_out_and_a_single_row_is_refused():
    images, _ = random_images(2, 1, 9, 7)
    seeds = torch.tensor([5, 6])
    whole, part = (halves_loss(lambda x: 0.5 * x, l2, x, seeds) for x in (images, images[..., :8, :6]))
    assert whole == part
    with pytest.raises(ValueError, match=r"2x2 px or more to be halved, got 7x1; set data\.crop_px"):
        halves_loss(lambda x: x, l2, images[..., :1, :], seeds)
