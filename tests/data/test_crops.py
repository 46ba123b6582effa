"""Where crops are taken: every position for training, a grid without overlap for validation, two parts of one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from n2n_lightning.data.crops import CropWindows, FixedCrops, RandomCrops, Region, grid_crops, split_region
from n2n_lightning.data.seeding import index_generators, seeded_generator

REGIONS = [Region(0, 0, 0, 4, 5), Region(2, 3, 1, 6, 4)]  # scene, top, left, height, width
SIZE = (3, 2)
POSITIONS = {  # of a crop of 3x2 in them, by hand: 2x4 and 4x3
    *((0, top, left) for top in (0, 1) for left in (0, 1, 2, 3)),
    *((2, top, left) for top in (3, 4, 5, 6) for left in (1, 2, 3)),
}


def triples(windows: CropWindows) -> list[tuple[int, int, int]]:
    return list(zip(windows.scene.tolist(), windows.top.tolist(), windows.left.tolist(), strict=True))


def grid(regions: list[Region], size: tuple[int, int], most: int = 1000, seed: int = 0) -> FixedCrops:
    return grid_crops(regions, size, most, seed)


def tiles_of(crops: FixedCrops) -> list[tuple[int, int, int]]:
    return triples(crops.windows(torch.arange(len(crops)), seeded_generator(0)))


# Whole regions


def test_whole_regions_are_given_as_they_are_one_at_a_time():
    crops = FixedCrops([*REGIONS, Region(5, 7, 8, 4, 5)], one_size=False)
    assert len(crops) == 3 and not crops.one_size and (crops.height, crops.width) == (4, 5)
    assert crops.groups.tolist() == [0, 2, 5] == list(crops.scenes)
    for index, (scene, top, left, height, width) in enumerate(crops.regions):
        windows = crops.windows(torch.tensor([index]), seeded_generator(0))
        assert triples(windows) == [(scene, top, left)] and (windows.height, windows.width) == (height, width)
    with pytest.raises(AssertionError):
        crops.windows(torch.tensor([0, 1]), seeded_generator(0))


# Drawn anywhere


@pytest.mark.parametrize("seed", [None, 0, 5])
def test_drawn_crops_reach_every_position_and_no_other_and_regions_by_their_area(seed: int | None):
    drawn = triples(RandomCrops(REGIONS, SIZE, 10_000, seed).windows(torch.arange(10_000), seeded_generator(3)))
    counts = {position: drawn.count(position) for position in POSITIONS}
    assert sum(counts.values()) == 10_000
    # 4x5 px have 8 positions, 6x4 px have 12
    expected = {position: 10_000 * (20 / 8 if position[0] == 0 else 24 / 12) / 44 for position in POSITIONS}
    # chi-squared with 19 degrees of freedom: above 55 once in 40,000 tries, and the seeds are fixed
    assert sum((counts[position] - mean) ** 2 / mean for position, mean in expected.items()) < 55


def test_crops_as_large_as_their_region_have_one_place():
    windows = RandomCrops([Region(7, 2, 3, 5, 6)], (5, 6), 9, None).windows(torch.arange(9), seeded_generator(0))
    assert triples(windows) == [(7, 2, 3)] * 9


def test_crops_with_a_seed_are_the_same_for_any_batch_and_any_seeded_generator():
    crops = RandomCrops(REGIONS, SIZE, 100, 4)
    at_once = triples(crops.windows(torch.arange(100), seeded_generator(0)))
    for batch in torch.arange(100).split(7):
        assert triples(crops.windows(batch, seeded_generator(1))) == [at_once[i] for i in batch]
    backwards = triples(crops.windows(torch.arange(100).flip(0), seeded_generator(2)))
    assert backwards == at_once[::-1] != at_once
    assert triples(RandomCrops(REGIONS, SIZE, 100, 5).windows(torch.arange(100), seeded_generator(0))) != at_once


def test_crops_without_a_seed_follow_the_batchs_seeded_generator():
    crops, indices = RandomCrops(REGIONS, SIZE, 50, None), torch.arange(50)
    first, again, other = (triples(crops.windows(indices, seeded_generator(key))) for key in (1, 1, 2))
    assert first == again != other


# A grid


def test_tiles_lie_in_their_region_do_not_overlap_and_are_as_many_as_fit():
    regions = [Region(0, 0, 0, 7, 10), Region(1, 5, 3, 6, 4)]
    tiles = tiles_of(grid(regions, (3, 4)))
    painted = np.zeros((2, 20, 20), int)
    for scene, top, left in tiles:
        painted[scene, top : top + 3, left : left + 4] += 1
    assert painted.max() == 1
    assert painted[0, :7, :10].sum() == painted[0].sum() == 4 * 12
    assert painted[1, 5:11, 3:7].sum() == painted[1].sum() == 2 * 12


def test_the_most_are_spread_over_the_regions():
    """Of 12, 2 and 6 tiles, 9 are 4, 2 and 3: a region gives another once all have, in order."""
    regions = [Region(0, 0, 0, 3, 4), Region(1, 0, 0, 1, 2), Region(2, 0, 0, 2, 3)]
    everything = tiles_of(grid(regions, (1, 1)))
    assert len(everything) == 20
    seen = set()
    for seed in range(5):
        tiles = tiles_of(grid(regions, (1, 1), 9, seed))
        assert tiles == tiles_of(grid(regions, (1, 1), 9, seed))
        assert set(tiles) <= set(everything) and len(set(tiles)) == 9
        assert [[scene for scene, _, _ in tiles].count(scene) for scene in (0, 1, 2)] == [4, 2, 3]
        seen.add(tuple(tiles))
    assert len(seen) > 1, "the seed chooses which"


def test_tiles_of_several_scenes_are_grouped_by_scene():
    crops = grid([Region(0, 0, 0, 4, 4), Region(3, 0, 0, 4, 2)], (2, 2))
    assert crops.groups.tolist() == [0, 0, 0, 0, 3, 3]


def blocks_of(crops: FixedCrops) -> dict[int, set[tuple[int, int]]]:
    """Return the 64x64 blocks in which each group's tiles begin."""
    blocks: dict[int, set[tuple[int, int]]] = {}
    for group, (_, top, left) in zip(crops.groups.tolist(), tiles_of(crops), strict=True):
        blocks.setdefault(group, set()).add((top // 64, left // 64))
    return blocks


@pytest.mark.parametrize(("crop", "tiles_a_block"), [(16, 16), (32, 4), (64, 1)])
def test_tiles_of_a_lone_scene_are_grouped_by_blocks_of_64_px(crop: int, tiles_a_block: int):
    crops = grid([Region(0, 0, 0, 128, 192)], (crop, crop))
    blocks = sorted(sorted(block) for block in blocks_of(crops).values())
    assert blocks == [[(row, column)] for row in range(2) for column in range(3)]
    assert (torch.bincount(crops.groups) == tiles_a_block).all()


def test_tiles_larger_than_a_block_are_a_group_each():
    crops = grid([Region(0, 0, 40, 200, 300)], (96, 96))
    assert len(crops) == len(set(crops.groups.tolist())) == 6


# One image for training and validation


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (6, 2)])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.95])
def test_the_two_parts_of_an_image_cover_it_without_overlap_and_hold_a_crop_each(
    size: tuple[int, int], fraction: float
):
    refused = 0
    for height in range(1, 16):
        for width in range(1, 16):
            whole = Region(0, 2, 3, height, width)
            fits = height >= size[0] and width >= size[1] and (height >= 2 * size[0] or width >= 2 * size[1])
            if not fits:
                refused += 1
                with pytest.raises(ValueError, match=f"{width}x{height} px are too small .*{size[1]}x{size[0]}"):
                    split_region(whole, fraction, size)
                continue
            painted = np.zeros((20, 20), int)
            for part in split_region(whole, fraction, size):
                assert part.height >= size[0] and part.width >= size[1]
                painted[part.top : part.top + part.height, part.left : part.left + part.width] += 1
            assert painted.max() == 1 and painted[2 : 2 + height, 3 : 3 + width].sum() == height * width
    assert refused > 10


@pytest.mark.parametrize(("height", "width"), [(100, 40), (40, 100)])
def test_the_longer_side_is_cut_and_validation_gets_the_end(height: int, width: int):
    train, val = split_region(Region(0, 0, 0, height, width), 0.2, (8, 8))
    if height > width:
        assert (train, val) == (Region(0, 0, 0, 80, 40), Region(0, 80, 0, 20, 40))
    else:
        assert (train, val) == (Region(0, 0, 0, 40, 80), Region(0, 0, 80, 40, 20))


# Generators of single crops


def test_an_index_has_a_generator_of_its_own_that_no_batch_changes():
    def numbers(indices: list[int], seed: int = 0) -> list[Tensor]:
        return [torch.rand(3, generator=rng) for rng in index_generators(torch.tensor(indices), seed)]

    together, apart = numbers([0, 1, 2]), [numbers([i])[0] for i in (0, 1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(together, apart, strict=True))
    assert len({tuple(n.tolist()) for n in [*together, *numbers([0, 1, 2], seed=1)]}) == 6
