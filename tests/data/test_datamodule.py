"""Loaders and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from small_runs import photo_data, tensors
from torch import Tensor

from n2n_lightning.data.batches import BatchKey, EpochBatches, PairBatches, augment
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.ee559 import Ee559Data, write_pkl
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.seeding import seeded_generator

# The loaders


def fitted(data: Any, **settings: Any) -> NoisyPairDataModule:
    datamodule = NoisyPairDataModule(data, **{"batch_size": 3} | settings)
    datamodule.setup("fit")
    return datamodule


def epoch_of(datamodule: NoisyPairDataModule, epoch: int) -> NoisyPair:
    """Return a training epoch, in the stored order."""
    loader = datamodule.loader("train")
    assert isinstance(loader.sampler, EpochBatches)
    loader.sampler.set_epoch(epoch)
    keys, batches = list(loader.sampler), list(loader)
    order = torch.cat([key.indices for key in keys]).argsort()
    return NoisyPair(*(torch.cat(parts)[order] for parts in list(zip(*batches, strict=True))[:2]), None)


def test_fixed_draws_are_the_same_in_every_epoch(photographs: Path, tmp_path: Path):
    datamodule = fitted(photo_data(photographs, tmp_path))
    first, second = epoch_of(datamodule, 0), epoch_of(datamodule, 1)
    assert torch.equal(first.source, second.source) and torch.equal(first.target, second.target)


def test_fresh_draws_differ_by_epoch_and_follow_from_seed_and_epoch(photographs: Path, tmp_path: Path):
    data = photo_data(photographs, tmp_path, draws="fresh")
    first, second = (epoch_of(fitted(data), epoch) for epoch in (0, 1))
    assert not torch.equal(first.source, second.source) and not torch.equal(first.target, second.target)
    assert not torch.equal(first.source, first.target)
    torch.rand(11)  # neither the global generator nor earlier epochs have a say
    again = epoch_of(fitted(data), 1)
    assert torch.equal(second.source, again.source) and torch.equal(second.target, again.target)
    assert not torch.equal(second.source, epoch_of(fitted(data, seed=1), 1).source)


@pytest.mark.parametrize(("length", "batch_size"), [(10, 3), (9, 3), (2, 5), (1, 1)])
def test_an_epoch_is_a_permutation_of_all_images(length: int, batch_size: int):
    batches = EpochBatches(length, batch_size, seed=0, shuffle=True)
    for epoch in range(3):
        batches.set_epoch(epoch)
        keys = list(batches)
        assert len(keys) == len(batches) == int(np.ceil(length / batch_size))
        assert sorted(torch.cat([key.indices for key in keys]).tolist()) == list(range(length))
        assert all(len(key.indices) == batch_size for key in keys[:-1])
        assert [key.number for key in keys] == list(range(len(keys)))


def order_of(seed: int, epoch: int) -> list[int]:
    batches = EpochBatches(100, 8, seed=seed, shuffle=True)
    batches.set_epoch(epoch)
    return torch.cat([key.indices for key in batches]).tolist()


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {(seed, epoch): order_of(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    torch.manual_seed(123)
    assert {key: order_of(*key) for key in reversed(orders)} == orders


def test_validation_keeps_the_stored_order_in_every_epoch():
    batches = EpochBatches(10, 4, seed=0, shuffle=False)
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen.append([(key.indices.tolist(), key.epoch) for key in batches])
    assert seen[0] == seen[1] == [([0, 1, 2, 3], 0), ([4, 5, 6, 7], 0), ([8, 9], 0)]


@pytest.mark.parametrize("draws", ["fixed", "fresh"])
def test_overfitting_repeats_one_batch(photographs: Path, tmp_path: Path, draws: Literal["fixed", "fresh"]):
    data = photo_data(photographs, tmp_path, draws=draws)
    loader = fitted(data, overfit_steps=5, augment=["flip", "swap"]).loader("train")
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen += list(loader)
    assert len(seen) == 10 and len(seen[0].source) == 3
    assert all(torch.equal(pair.source, seen[0].source) and torch.equal(pair.target, seen[0].target) for pair in seen)


def test_stored_values_become_float_with_one_for_the_range():
    stored = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    datamodule = NoisyPairDataModule(Ee559Data(root="unread"))
    numbers, mask = torch.tensor([7]), stored > 9
    batch = NoisyPair(stored, stored, stored, stored, group=numbers, mask=mask, seeds=numbers)
    pair = datamodule.on_after_batch_transfer(batch, 0)
    for images in pair[:4]:
        assert images is not None and images.dtype == torch.float32
        torch.testing.assert_close(images.flatten(), torch.tensor([0, 0.2, 1.0]))
    assert pair.group is numbers and pair.seeds is numbers and pair.mask is mask
    alone = datamodule.on_after_batch_transfer(NoisyPair(stored, None), 0)
    assert torch.equal(alone.source, pair.source) and alone[1:] == (*(None,) * 6, 1.0)


def test_rotation_wants_square_images_and_flips_do_not(tmp_path: Path):
    wide = torch.zeros(4, 3, 16, 20, dtype=torch.uint8)
    for name in ("train_data.pkl", "val_data.pkl"):
        write_pkl(tmp_path / name, wide, wide)
    fitted(Ee559Data(root=str(tmp_path)), augment=["flip", "swap"])
    with pytest.raises(ValueError, match="16x20"):
        fitted(Ee559Data(root=str(tmp_path)), augment=["rotate"])


def test_training_and_validation_need_as_many_channels(tmp_path: Path):
    write_pkl(tmp_path / "train_data.pkl", *[torch.zeros(4, 3, 16, 16, dtype=torch.uint8)] * 2)
    write_pkl(tmp_path / "val_data.pkl", *[torch.zeros(4, 1, 16, 16, dtype=torch.uint8)] * 2)
    with pytest.raises(ValueError, match="channels, got 3 and 1"):
        fitted(Ee559Data(root=str(tmp_path)))


def test_the_images_that_training_sees_are_augmented_and_validations_are_not(course_data: Path):
    datamodule = fitted(Ee559Data(root=str(course_data)), augment=["flip", "rotate"])
    plain = fitted(Ee559Data(root=str(course_data)))
    assert not torch.equal(epoch_of(datamodule, 0).source, epoch_of(plain, 0).source)
    for ours, theirs in zip(datamodule.loader("val"), plain.loader("val"), strict=True):
        assert torch.equal(ours.source, theirs.source)


def test_augmentation_is_drawn_anew_each_epoch_from_seed_and_epoch(course_data: Path):
    source = tensors(Ee559Data(root=str(course_data)), "train")
    batches = PairBatches(source, seed=0, augmentations=["flip"])
    first, second, again = (batches[BatchKey(torch.arange(16), epoch, 0)] for epoch in (0, 1, 0))
    assert torch.equal(first.source, again.source) and not torch.equal(first.source, second.source)


# Augmentation


def lone_images(count: int) -> Tensor:
    """One image without any symmetry, repeated; integers, so that sums are exact."""
    values = torch.randperm(108, generator=torch.Generator().manual_seed(0))
    return values.reshape(1, 3, 6, 6).float().expand(count, -1, -1, -1)


@pytest.mark.parametrize("kinds", [["flip"], ["rotate"], ["flip", "rotate"]])
def test_source_target_clean_and_mask_are_turned_alike(kinds: list[str]):
    images = lone_images(64)
    whole = NoisyPair(images, images + 1, images + 2, mask=images[:, :1] > 50)
    pair = augment(whole, kinds, torch.Generator().manual_seed(0))
    assert pair.clean is not None
    assert torch.equal(pair.target, pair.source + 1) and torch.equal(pair.clean, pair.source + 2)
    assert torch.equal(pair.mask, pair.source[:, :1] > 50)
    assert not torch.equal(pair.source, images)


def test_all_eight_orientations_occur_and_nothing_else():
    images = lone_images(200)
    turned = augment(NoisyPair(images, images, None), ["flip", "rotate"], torch.Generator().manual_seed(0)).source
    image = images[0].numpy()
    ways = [np.rot90(base, turns, (1, 2)) for base in (image, image[:, ::-1]) for turns in range(4)]
    counts = [int((turned.numpy() == way).all((1, 2, 3)).sum()) for way in ways]
    assert sum(counts) == 200
    # 25 each on average; at least 5 in every one fails by chance once in 100,000 tries, and the seed is fixed
    assert min(counts) >= 5


def test_swapping_exchanges_whole_images_of_about_half_of_the_pairs():
    images = lone_images(200)
    pair = augment(NoisyPair(images, images + 1, images + 2), ["swap"], torch.Generator().manual_seed(0))
    swapped = (pair.source == images + 1).flatten(1).all(1)
    kept = (pair.source == images).flatten(1).all(1)
    assert (swapped ^ kept).all() and 60 <= int(swapped.sum()) <= 140
    assert torch.equal(pair.source + pair.target, 2 * images + 1)
    assert pair.clean is not None and torch.equal(pair.clean, images + 2)


def test_grey_puts_one_channel_of_half_of_the_scenes_into_all_its_channels():
    images = torch.arange(3.0).reshape(1, 3, 1, 1).expand(300, -1, 4, 4)
    mask = torch.ones(300, 1, 4, 4, dtype=torch.bool)
    pair = augment(NoisyPair(images, images + 10, images + 20, mask=mask), ["grey"], seeded_generator(0))
    assert pair.clean is not None and torch.equal(pair.target, pair.source + 10)
    assert torch.equal(pair.clean, pair.source + 20) and torch.equal(pair.mask, mask)
    grey = (pair.source == pair.source[:, :1]).flatten(1).all(1)
    assert 110 <= int(grey.sum()) <= 190 and torch.equal(pair.source[~grey], images[~grey])
    assert set(pair.source[grey].unique().tolist()) == {0, 1, 2}, "any channel"


def test_a_lone_noisy_image_is_turned_and_not_swapped():
    images = lone_images(64)
    pair = augment(NoisyPair(images, None), ["flip", "swap"], torch.Generator().manual_seed(0))
    assert pair.target is None and not torch.equal(pair.source, images)


def test_without_augmentation_the_pair_stays_as_it_is():
    pair = NoisyPair(lone_images(2), lone_images(2), lone_images(2))
    after = augment(pair, [], torch.Generator())
    assert all(one is other for one, other in zip(after, pair, strict=True))
