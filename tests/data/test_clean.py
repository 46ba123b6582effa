"""``data=clean``: which noise which crop gets and when, the clean images beside it, and validation's own noise."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numbered_images import Array, load_all, make_data, numbered_image, origins, write
from torch import Tensor

from n2n_lightning.data.clean import CleanData
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.seeding import seeded_generator


def correlation(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.double().flatten(), other.double().flatten())[0, 1])


def clean(folder: Path, **settings: Any) -> CleanData:
    return make_data(CleanData, folder, **{"root": str(folder / "root"), "noise": {"name": "gaussian"}} | settings)


def write_flat(folder: Path, level: int = 128, count: int = 4, dtype: type[np.generic] = np.uint8) -> None:
    """Images that differ in one pixel only; 48x48x3."""
    for number in range(count):
        pixels: Array = np.full((48, 48, 3), level, dtype)
        pixels[0, 0, 0] = number
        write(folder / f"{number}.npy", pixels)


def equal(one: NoisyPair, other: NoisyPair) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one[:-1], other[:-1], strict=True)  # but the weight
    )


def test_crops_are_of_one_place_and_validation_has_the_clean_one(tmp_path: Path):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", numbered_image(scene))
    data = clean(tmp_path, noise={"name": "gaussian", "sigma": 0.001})
    train, val = (load_all(data, stage) for stage in ("train", "val"))
    assert train.clean is None and train.group is None
    trained = [origins(images.round().byte()) for images in (train.source, train.target)]
    scored = [origins(images.round().byte()) for images in (val.source, val.target, val.clean)]
    assert trained[0] == trained[1] and len(set(trained[0])) > 50
    assert scored[0] == scored[1] == scored[2]
    assert {o.scene for o in trained[0]}.isdisjoint(o.scene for o in scored[0])
    assert torch.equal(val.clean, val.clean.round()), "without noise"


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
@pytest.mark.parametrize("stage", ["train", "val"])
@pytest.mark.parametrize("noise", [{"name": "gaussian"}, {"name": "poisson"}])
def test_the_two_noises_are_independent_of_each_other_and_from_crop_to_crop(
    tmp_path: Path, draws: str, stage: Any, noise: dict[str, Any]
):
    write_flat(tmp_path / "root")
    pair = load_all(clean(tmp_path, draws=draws, noise=noise, val_fraction=0.5), stage)
    first, second = ((images - 128)[:, 1:] for images in (pair.source, pair.target))  # without the pixel that differs
    sigma = 25 if noise["name"] == "gaussian" else 255 * (128 / 255 / 30) ** 0.5
    for images in (first, second):
        assert images.std() == pytest.approx(sigma, rel=0.05) and abs(images.mean()) < 5 * sigma / images.numel() ** 0.5
    assert abs(correlation(first, second)) < 5 / first.numel() ** 0.5
    for one, other in pairwise([*first, *second]):
        assert abs(correlation(one, other)) < 5 / one.numel() ** 0.5


def test_fresh_noise_and_places_follow_the_batchs_generator(tmp_path: Path):
    write_flat(tmp_path / "root")
    source = clean(tmp_path).load("train")
    first, again, other = (source.batch(torch.arange(8), seeded_generator(0, epoch, 0)) for epoch in (0, 0, 1))
    assert equal(first, again) and not torch.equal(first.source, other.source)


@pytest.mark.parametrize(
    "noise",
    [
        *({"name": "gaussian"}, {"name": "poisson"}, {"name": "pixelate", "cell_px": 3}, {"name": "text"}),
        *({"name": "gaussian", "sigma": [5, 90]}, {"name": "bernoulli", "p": [0.1, 0.9]}),
    ],
)
def test_fixed_noise_and_places_are_the_same_for_any_batch_and_epoch(tmp_path: Path, noise: dict[str, Any]):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", numbered_image(scene))
    settings = {"draws": "fixed", "noise": noise, "crop_px": 8}
    source = clean(tmp_path, **settings).load("train")
    at_once = source.batch(torch.arange(64), seeded_generator(0))
    parts = [source.batch(indices, seeded_generator(7, int(indices[0]))) for indices in torch.arange(64).split(5)]
    assert torch.equal(torch.cat([p.source for p in parts]), at_once.source)
    assert torch.equal(torch.cat([p.target for p in parts]), at_once.target)
    if at_once.mask is not None:
        assert torch.equal(torch.cat([p.mask for p in parts if p.mask is not None]), at_once.mask)
    assert len(at_once.source.unique(dim=0)) > 50, "not the same for all crops"
    assert not torch.equal(at_once.source, load_all(clean(tmp_path, seed=1, **settings), "train").source)


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
def test_validation_does_not_depend_on_its_batch_size_nor_on_the_epoch(tmp_path: Path, draws: str):
    write_flat(tmp_path / "root")
    seen = []
    for size in (1, 5, 100):
        datamodule = NoisyPairDataModule(clean(tmp_path, draws=draws, val_fraction=0.5), val_batch_size=size)
        datamodule.setup("validate")
        for _ in range(2):
            batches = list(datamodule.val_dataloader())
            seen.append(NoisyPair.joined(batches))
    assert len(seen[0].source) == 2 * 9 and all(equal(one, seen[0]) for one in seen)
    assert equal(seen[0], load_all(clean(tmp_path, val_fraction=0.5), "val")), (
        "the same for fresh and fixed training noise"
    )


def test_validations_noise_is_not_trainings(tmp_path: Path):
    write_flat(tmp_path / "root")
    data = clean(tmp_path, draws="fixed")
    train, val = (torch.cat(load_all(data, stage)[:2])[:, 1] for stage in ("train", "val"))
    assert not any(torch.equal(one, other) for one in train for other in val)


def test_the_strength_is_in_units_of_the_range(tmp_path: Path):
    write_flat(tmp_path / "root", level=2000, dtype=np.uint16)
    data = clean(tmp_path, range=4095, train_pairs=200)
    noise = load_all(data, "train").source[:, 1] - 2000
    sigma = 25 / 255 * 4095
    assert noise.std() == pytest.approx(sigma, rel=0.03) and abs(noise.mean()) < 5 * sigma / noise.numel() ** 0.5


def test_pixelation_reads_what_it_makes_crops_of(tmp_path: Path):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", numbered_image(scene))
    data = clean(tmp_path, noise={"name": "pixelate", "cell_px": 3}, crop_px=4)
    source, pair = data.load("val"), load_all(data, "val")
    assert source.image_shape == (3, 4, 4) and len(source) == 3 * 4  # of 12x12 px in 40x48
    assert pair.clean is not None and pair.clean.shape == (12, 3, 4, 4)
    steps = pair.clean.diff(dim=-1)[:, 2]
    torch.testing.assert_close(steps, torch.full_like(steps, 3.0), atol=1e-3, rtol=0)  # columns are numbered
    assert (pair.clean[:, 1:] % 3 - 1).abs().max() < 1e-3, "cells of 3 begin at multiples of 12"
    off = torch.stack([pair.source, pair.target]) - pair.clean
    assert off[:, :, 1:].abs().max() < 1.001 and off[:, :, 1:].abs().max() > 0.9
    train = load_all(data, "train")
    assert train.source.shape == (64, 3, 4, 4)
    assert (train.source - train.target)[:, 1:].abs().max() <= 2.001, "of one place"


def test_whole_images_are_pixelated_without_what_is_left_over(tmp_path: Path):
    for scene in range(3):
        write(tmp_path / f"root/{scene}.png", numbered_image(scene))
    data = clean(tmp_path, noise={"name": "pixelate", "cell_px": 7}, crop_px=None)
    assert data.load("train").image_shape == (3, 5, 6)
    assert [images.shape for images in load_all(data, "val")[:3]] == [(1, 3, 5, 6)] * 3


def test_images_of_any_size_are_not_trained_on_whole(tmp_path: Path):
    write_flat(tmp_path / "root")
    write_flat(tmp_path / "val", level=90)
    data = clean(tmp_path, val_root=str(tmp_path / "val"), crop_px=None, val_fraction=1)
    assert data.load("val").image_shape == (3, 48, 48)
    with pytest.raises(ValueError, match=re.escape("are for evaluation alone; set data.crop_px=64")):
        data.load("train")


def test_a_file_in_both_sets_is_refused(tmp_path: Path):
    write_flat(tmp_path / "root")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/other name.npy").write_bytes((tmp_path / "root/2.npy").read_bytes())
    data = clean(tmp_path, val_root=str(tmp_path / "val"))
    with pytest.raises(ValueError, match=re.escape("other name.npy is among the training images too")):
        data.load("train")


def test_a_range_gives_the_two_images_of_a_pair_a_strength_each(tmp_path: Path):
    write_flat(tmp_path / "root")
    for draws in ("fresh", "fixed"):
        pair = load_all(clean(tmp_path, draws=draws, noise={"name": "gaussian", "sigma": [5, 90]}), "train")
        first, second = (images[:, 1:].std((1, 2, 3)) for images in (pair.source, pair.target))
        assert first.min() < 20 and first.max() > 75 and second.min() < 20 and second.max() > 75
        assert abs(correlation(first, second)) < 5 / len(first) ** 0.5


def test_validation_may_have_a_noise_of_its_own(tmp_path: Path):
    write_flat(tmp_path / "root")
    noise = {"name": "gaussian", "sigma": [50, 90]}
    data = clean(tmp_path, noise=noise, val_noise={"sigma": 10}, val_fraction=0.5)
    train, val = ((load_all(data, stage).source - 128)[:, 1:].std((1, 2, 3)) for stage in ("train", "val"))
    assert train.min() > 45 and val.min() > 9 and val.max() < 11
    alone = load_all(clean(tmp_path, noise={"name": "gaussian", "sigma": 10}, val_fraction=0.5), "val")
    assert equal(alone, load_all(data, "val")), "whatever the training's"


@pytest.mark.parametrize(
    ("noise", "masked", "paired"),
    [
        ({"name": "gaussian"}, False, True),
        ({"name": "bernoulli"}, True, False),
        ({"name": "text"}, False, False),  # in validation, since its mean is not the clean image
        ({"name": "chain", "steps": [{"name": "gaussian"}, {"name": "bernoulli", "p": 0.2}]}, True, False),
    ],
)
def test_training_has_masks_and_validation_a_second_image_where_the_noise_gives_them(
    tmp_path: Path, noise: dict[str, Any], masked: bool, paired: bool
):
    for scene in range(4):
        write(tmp_path / f"root/{scene}.png", numbered_image(scene))
    data = clean(tmp_path, noise=noise)
    train, val = (load_all(data, stage) for stage in ("train", "val"))
    assert train.target is not None and (train.mask is not None) == masked
    if train.mask is not None:
        assert train.mask.shape == (64, 1, 16, 16) and not train.target[~train.mask.expand(64, 3, 16, 16)].any()
    assert val.clean is not None and val.mask is None and (val.target is not None) == paired
    sources = {stage: data.load(stage) for stage in ("train", "val")}
    assert sources["train"].has_pairs == (not masked) and sources["val"].has_pairs == paired
    datamodule = NoisyPairDataModule(data, augment=["swap"])
    if masked:
        with pytest.raises(ValueError, match=re.escape("set data.augment=[flip,rotate]")):
            datamodule.setup("fit")
    else:
        datamodule.setup("fit")


def test_clean_images_decide_which_epoch_is_best(tmp_path: Path):
    write_flat(tmp_path / "root")
    datamodule = NoisyPairDataModule(clean(tmp_path))
    datamodule.setup("fit")
    assert datamodule.monitor == "val/psnr"
