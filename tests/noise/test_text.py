"""Text as a corruption: how much of an image it covers, whose colours it has, and that the median stays clean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.noise.kinds import Text
from n2n_lightning.noise.text import LAYERS, PAGE_PX, TABLE_SIZE, typeset

NONE = -1.0  # a clean value that no colour has


def lettered(coverage: float | list[float], *shape: int, seed: int = 0) -> Tensor:
    return Text(coverage).corrupt(torch.full(shape, NONE), seeded_generator(seed))


def covered(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W) bool."""
    return (images != NONE).any(1)


def test_the_pages_have_text_everywhere_and_enough_numbers_for_its_strings():
    pages = typeset()
    assert pages.shape == (LAYERS, PAGE_PX, PAGE_PX) and pages.min() == 0
    assert len(pages.unique()) - 1 <= TABLE_SIZE, "else strings far apart had one colour"
    blocks = (pages > 0).float().reshape(LAYERS, 8, PAGE_PX // 8, 8, PAGE_PX // 8).mean((2, 4))
    assert blocks.min() > 0.1 and blocks.max() < 0.5
    for page, other in zip(pages, pages.roll(1, 0), strict=True):
        assert not set(page[page > 0].tolist()) & set(other[other > 0].tolist()), "a string of two layers"


@pytest.mark.parametrize(("coverage", "off"), [(0.0, 0), (0.1, 0.1), (0.25, 0.1), (0.5, 0.1)])
def test_so_much_is_covered_in_every_image_give_or_take_a_string(coverage: float, off: float):
    """In 96x96 px, no string has more than a fifth of the pixels: of 40 px height, half of them ink."""
    parts = covered(lettered(coverage, 150, 1, 96, 96)).double().mean((1, 2))
    assert abs(parts.mean() - coverage) <= 5 * parts.std() / 150**0.5 + 0.003
    assert (parts - coverage).abs().max() <= off


def test_a_range_of_coverage_is_drawn_from_image_by_image():
    parts = covered(lettered([0, 0.5], 200, 1, 64, 64)).double().mean((1, 2))
    assert abs(parts.mean() - 0.25) < 5 * 0.5 / 12**0.5 / 200**0.5 + 0.003
    counts = np.histogram(parts, bins=5, range=(0, 0.5))[0]
    assert counts.min() > 15, "40 each on average"


def test_every_pixel_is_covered_equally_often_and_two_draws_are_independent():
    first, second = (covered(lettered(0.25, 2000, 1, 24, 24, seed=seed)).double() for seed in (0, 1))
    often = first.mean(0)
    assert abs(often.mean() - 0.25) < 0.02
    assert (often - 0.25).abs().max() < 6 * (0.25 * 0.75 / 2000) ** 0.5 + 0.02, "at the edges as in the middle"
    middle, other = first[:, 12, 12], second[:, 12, 12]
    assert abs(np.corrcoef(middle, other)[0, 1]) < 5 / 2000**0.5
    assert abs(np.corrcoef(middle[1:], middle[:-1])[0, 1]) < 5 / 2000**0.5, "nor two images of one draw"
    assert np.corrcoef(middle, first[:, 12, 13])[0, 1] > 0.3, "letters are wider than a pixel"


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_string_has_one_colour_of_its_own(channels: int):
    images = lettered(0.3, 20, channels, 96, 96)
    assert torch.equal(covered(images), (images != NONE).all(1)), "all channels of a pixel"
    drawn = []
    for image in images:
        colours = image.flatten(1).T.unique(dim=0)
        colours = colours[colours[:, 0] != NONE]
        assert len(colours) > 2 and all(len(channel.unique()) == len(colours) for channel in colours.T)
        drawn.append(colours)
    together = torch.cat(drawn).double()
    assert together.min() >= 0 and together.max() <= 1
    assert (together.mean(0) - 0.5).abs().max() < 5 / 12**0.5 / len(together) ** 0.5


def test_a_letter_has_one_colour():
    """Pieces of ink that hang together; where so little is covered, few strings lie over others."""
    image = lettered(0.06, 1, 1, 512, 512)[0, 0].numpy()
    pieces, count = ndimage.label(image != NONE, np.ones((3, 3)))
    colours = [len(np.unique(image[pieces == piece])) for piece in range(1, count + 1)]
    assert count > 50 and np.mean(np.array(colours) == 1) > 0.85
    assert len(np.unique(image)) > 10


def test_the_median_of_many_draws_is_the_clean_image_and_the_mean_is_not():
    clean = torch.rand(1, 3, 24, 24, generator=seeded_generator(8))
    draws = Text(0.25).corrupt(clean.expand(301, -1, -1, -1), seeded_generator(0))
    assert torch.equal(draws.median(0).values, clean[0])
    expected = 0.75 * clean[0] + 0.25 * 0.5
    assert (draws.mean(0) - expected).abs().mean() < 0.02
    assert (draws.mean(0) - clean[0]).abs().mean() > 0.04


def test_what_is_not_covered_stays_as_it_is():
    clean = torch.rand(4, 3, 40, 50, generator=seeded_generator(8))
    drawn = Text(0.25).corrupt(clean, seeded_generator(0))
    changed = (drawn != clean).any(1)
    assert torch.equal(changed, covered(lettered(0.25, 4, 3, 40, 50))), "the same text, whatever the image"


@pytest.mark.parametrize(("height", "width"), [(1100, 40), (30, 2100)])
def test_images_may_be_larger_than_a_page(height: int, width: int):
    parts = covered(lettered(0.25, 1, 1, height, width))
    assert abs(parts.double().mean() - 0.25) < 0.05
    assert parts[:, PAGE_PX:].any() if height > PAGE_PX else parts[:, :, PAGE_PX:].any()
