"""Pictures of one image with several noises, and of what nets make of it."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from small_runs import smooth_images

from n2n_lightning.models.checkpoint import find_checkpoint, load_denoiser
from n2n_lightning.noise.kinds import Gaussian, Text
from n2n_lightning.paper.pictures import CROP_PX, centre, draw_restored, restore


def photograph(side: int = 200) -> np.ndarray:
    return smooth_images(1, side, seed=3)[0].transpose(1, 2, 0).round().astype("uint8")


def test_each_net_is_shown_with_what_it_makes_of_the_same_noisy_image():
    clean = photograph(40)
    nets = {"one": find_checkpoint("nn_relu"), "other": find_checkpoint("convtrans_relu")}
    shown = restore(clean, Gaussian(25), nets, seed=4)
    assert list(shown) == ["noisy image", "one", "other", "clean image"] and shown["clean image"] is clean

    image = torch.from_numpy(clean).movedim(-1, 0)[None] / 255
    noisy = Gaussian(25).corrupt(image, torch.Generator().manual_seed(4))
    expected = {"noisy image": noisy} | {title: load_denoiser(path).denoise(noisy) for title, path in nets.items()}
    for title, values in expected.items():
        difference = shown[title] / 255 - values[0].movedim(0, -1).clamp(0, 1).numpy()
        assert np.abs(difference).max() <= 0.5 / 255 + 1e-6


def test_the_centre_is_shown():
    image = np.arange(200 * 130).reshape(200, 130)
    assert (centre(image) == image[36:164, 1:129]).all()
    small = image[:50]
    assert (centre(small) == small[:, 1:129]).all()


def test_a_row_a_noise_and_a_column_a_net():
    clean, net = photograph(), find_checkpoint("nn_relu")
    pictures = [
        np.asarray(Image.open(io.BytesIO(draw_restored(clean, rows))).convert("RGB"))
        for rows in (
            {"gaussian": (Gaussian(25), {"net": net})},
            {"gaussian": (Gaussian(25), {"net": net}), "text": (Text(0.25), {"net": net, "other": net})},
        )
    ]
    (height, width, _), (taller, wider, _) = (picture.shape for picture in pictures)
    assert taller > height + 2 * CROP_PX and wider > width + 2 * CROP_PX
    clean_images = [places(centre(clean).repeat(2, 0).repeat(2, 1), picture) for picture in pictures]
    assert [len(found) for found in clean_images] == [1, 2]


def places(part: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Where ``part`` is found in ``picture``: (top, left) of each."""
    height, width, _ = part.shape
    starts = np.argwhere((picture == part[0, 0]).all(-1))
    return [(y, x) for y, x in starts if np.array_equal(picture[y : y + height, x : x + width], part)]
