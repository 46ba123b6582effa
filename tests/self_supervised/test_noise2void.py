"""Noise2Void: which pixels are hidden, what stands in their place, and what the net learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.self_supervised.noise2void import Mask, Replacement, hidden_pixels, hide, noise2void

MASKS: tuple[Mask, ...] = ("none", "rows", "columns", "cross", "block")


def numbered(height: int, width: int) -> Tensor:
    """Return an image whose values are the pixels' numbers, twice, the second channel 1000 more."""
    numbers = torch.arange(float(height * width)).reshape(1, 1, height, width)
    return torch.cat([numbers, numbers + 1000], 1)


def is_hidden(mask: Mask, reach: int, down: int, right: int) -> bool:
    """Return whether a mask hides the pixel at an offset from its centre."""
    in_row, in_column = down == 0 and abs(right) <= reach, right == 0 and abs(down) <= reach
    square = max(abs(down), abs(right)) <= reach
    of_mask = {"rows": in_row, "columns": in_column, "cross": in_row or in_column, "block": square}
    return (down, right) == (0, 0) or of_mask.get(mask, False)


@pytest.mark.parametrize("replace", ["median", "neighbour"])
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_hides_its_pixels_alone_and_nothing_hidden_stands_in_their_place(mask: Mask, replace: Replacement):
    size, reach = 15, 3
    for row, column in ((7, 7), (0, 0), (2, 13)):
        images = numbered(size, size)
        secret = torch.tensor([[is_hidden(mask, reach, y - row, x - column) for x in range(size)] for y in range(size)])
        images[..., secret] = torch.nan  # so that any use of a hidden value shows
        around = hidden_pixels(mask, reach, 5)
        picks = torch.randint(24, (1, 1), generator=seeded_generator(1))
        centre = torch.tensor([[row * size + column]])
        shown = hide(images, centre, picks if replace == "neighbour" else None, around)
        assert shown.isfinite().all(), "all that is hidden was replaced, by what is not"
        assert torch.equal(shown[..., ~secret], images[..., ~secret])
        if replace == "neighbour":
            assert torch.equal(shown[0, 1], shown[0, 0] + 1000), "all channels from the same pixel"


def test_the_substitute_is_the_median_of_the_window_without_its_middle():
    images = torch.rand(2, 3, 9, 9, generator=seeded_generator(0))
    centres = torch.tensor([[40, 20], [44, 24]])
    shown = hide(images, centres, None, hidden_pixels("none", 1, 5))
    for number, row, column in ((0, 4, 4), (0, 2, 2), (1, 4, 8), (1, 2, 6)):
        if column > 6:
            continue  # its window leaves the image
        window = images[number, :, row - 2 : row + 3, column - 2 : column + 3].flatten(1).numpy()
        expected = np.sort(np.delete(window, 12, axis=1), axis=1)[:, 11]  # the lower one of the two middle values
        np.testing.assert_array_equal(shown[number, :, row, column], expected)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 3, 1, 7), (2, 2, 3, 2)])
def test_tiny_images_have_a_loss(shape: tuple[int, ...]):
    images, seeds = torch.rand(shape, generator=seeded_generator(0)), torch.tensor([3])
    for mask in MASKS:
        assert noise2void(lambda x: x, images, seeds, mask=mask).isfinite()


def test_the_loss_of_an_image_does_not_depend_on_the_batch():
    images = torch.rand(3, 2, 16, 16, generator=seeded_generator(0))
    seeds = torch.tensor([5, 6, 7])
    together = noise2void(lambda x: x, images, seeds)
    alone = [noise2void(lambda x: x, images[n : n + 1], seeds[n : n + 1]).item() for n in range(3)]
    assert together.item() == pytest.approx(np.mean(alone), rel=1e-5)
    assert len(set(alone)) == 3


def test_the_net_is_scored_at_hidden_pixels_alone_and_cannot_copy_them():
    """For white noise, a net that copies is twice off its variance, and the mean of the scene is off by it once."""
    noisy = 0.5 + 0.1 * torch.randn(4, 1, 64, 64, generator=seeded_generator(0))
    seeds = torch.tensor([1])
    copies = noise2void(lambda x: x, noisy, seeds, masked=0.1, replace="neighbour").item()
    knows = noise2void(lambda x: torch.full_like(x, 0.5), noisy, seeds, masked=0.1).item()
    assert copies == pytest.approx(0.02, rel=0.1) and knows == pytest.approx(0.01, rel=0.1)


def line_noise(length: int) -> Tensor:
    """Return images of noise that is constant along ``length`` px of a row."""
    lines = torch.randn(8, 1, 60, 60 // length, generator=seeded_generator(2))
    return lines.repeat_interleave(length, 3)


@pytest.mark.parametrize(("mask", "mask_px", "leaks"), [("none", 1, True), ("rows", 4, False), ("columns", 4, True)])
def test_only_a_mask_along_the_lines_hides_their_noise(mask: Mask, mask_px: int, leaks: bool):
    """A net that looks at the left and right neighbours guesses the noise unless these are hidden."""
    noisy = line_noise(5)

    def looks_beside(x: Tensor) -> Tensor:
        return (x.roll(1, -1) + x.roll(-1, -1)) / 2

    found = noise2void(looks_beside, noisy, torch.tensor([1]), masked=0.01, mask=mask, mask_px=mask_px).item()
    assert (found < 0.6) if leaks else (found > 1.0)  # the variance is 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"masked": 0.0}, r"masked must be above 0, at most 0\.5, got 0\.0; set loss\.masked"),
        ({"window_px": 4}, r"window_px must be odd and 3 or more, got 4; set loss\.window_px=5"),
        ({"mask": "rows", "mask_px": 0}, r"mask_px must be 1 or more, got 0; set loss\.mask_px=4"),
        ({"mask": "auto"}, r"mask must be one of none, rows, .* got 'auto'; set loss\.mask=none"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], words: str):
    with pytest.raises(ValueError, match=words):
        noise2void(lambda x: x, torch.zeros(1, 1, 8, 8), torch.tensor([0]), **settings)  # type: ignore[arg-type]  # wrong on purpose
