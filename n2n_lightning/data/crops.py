"""Which crops of the scenes each stage uses: random ones for training, tiles of a grid for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from n2n_lightning.data.pairs import STAGES, Stage
from n2n_lightning.data.scenes import Scene
from n2n_lightning.data.seeding import hash_indices

BLOCK_PX = 64  # of a single scene, blocks of this side are what the bootstrap resamples
Ints = npt.NDArray[np.int64]


class Region(NamedTuple):
    """A part of a scene, px."""

    scene: int
    top: int
    left: int
    height: int
    width: int


Regions = dict[Stage, list[Region]]


class CropWindows(NamedTuple):
    """Where the crops of one batch lie: (B,) scene numbers and top left corners; and their common size, px."""

    scene: Ints
    top: Ints
    left: Ints
    height: int
    width: int


class RandomCrops:
    """Random crops: a region is drawn in proportion to its area, then a position in it, uniformly.

    Args:
        regions: at least as large as a crop.
        size: height and width of a crop, px.
        count: number of crops.
        seed: None draws new places each time, from the batch's generator; otherwise a crop's place follows from the
            seed and its index.
    """

    groups, scenes, one_size = None, None, True  # see FixedCrops; training needs neither groups nor scenes

    def __init__(self, regions: Sequence[Region], size: tuple[int, int], count: int, seed: int | None) -> None:
        self.height, self.width = size
        self.count, self.seed = count, seed
        self.regions = np.array(regions, dtype=np.int64)
        self.positions = self.regions[:, 3:] - np.array(size) + 1  # their number down and across
        self.areas = self.regions[:, 3:].prod(1)
        self.ends = self.areas.cumsum()

    def __len__(self) -> int:
        return self.count

    def windows(self, indices: Tensor, rng: torch.Generator) -> CropWindows:
        """Return where the crops at (B,) int64 indices lie."""
        if self.seed is None:
            chance = torch.rand(len(indices), generator=rng, dtype=torch.float64).numpy()
        else:
            chance = hash_indices(indices.numpy(), self.seed) / 2.0**64
        at = chance * self.ends[-1]  # a pixel's number, counted through all regions
        region = np.searchsorted(self.ends, at, side="right")
        within = 1 - (self.ends[region] - at) / self.areas[region]
        position = (within * self.positions[region].prod(1)).astype(np.int64)
        across = self.positions[region, 1]
        scene, top, left = self.regions[region, :3].T
        return CropWindows(scene, top + position // across, left + position % across, self.height, self.width)


class FixedCrops:
    """The same crops in every epoch, for validation.

    Args:
        regions: the crops.
        groups: (N,) int64, crops of the same group are resampled together; None groups them by scene.
        one_size: whether a batch can hold several crops; otherwise they may have any sizes.
    """

    def __init__(self, regions: Sequence[Region] | Ints, groups: Ints | None = None, *, one_size: bool) -> None:
        self.regions = np.array(regions, dtype=np.int64)  # (N, 5)
        self.scenes = self.regions[:, 0]  # the scene of each crop
        self.height, self.width = self.regions[0, 3:].tolist()  # of the first crop where sizes differ
        self.groups, self.one_size = torch.from_numpy(self.scenes.copy() if groups is None else groups), one_size

    def __len__(self) -> int:
        return len(self.regions)

    def windows(self, indices: Tensor, rng: torch.Generator) -> CropWindows:
        """Return where the crops at (B,) int64 indices lie."""
        assert self.one_size or len(indices) == 1
        scene, top, left, height, width = self.regions[indices.numpy()].T
        return CropWindows(scene, top, left, int(height[0]), int(width[0]))


CropSampler = RandomCrops | FixedCrops


def grid_crops(regions: Sequence[Region], size: tuple[int, int], most: int | None, seed: int) -> FixedCrops:
    """Return tiles of a grid over the regions, without overlap.

    Args:
        regions: at least as large as a crop.
        size: height and width of a crop, px.
        most: maximum number of tiles, None for all; each region gives the same number as far as its tiles suffice.
        seed: decides which tiles are chosen.
    """
    height, width = size
    rng = np.random.default_rng(seed)
    tiles, ranks = [], []
    for region in regions:
        tops = region.top + np.arange(region.height // height) * height
        lefts = region.left + np.arange(region.width // width) * width
        corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
        count = len(corners)
        tiles.append(np.hstack([np.full((count, 1), region.scene), corners, np.full((count, 2), size)]))
        ranks.append(rng.permutation(count))
    chosen = np.argsort(np.concatenate(ranks), kind="stable")[:most]
    table = np.concatenate(tiles)[np.sort(chosen)]
    if len(regions) > 1:
        return FixedCrops(table, one_size=True)
    rows, columns = (table[:, 1:3] // BLOCK_PX).T
    return FixedCrops(table, rows * (columns.max() + 1) + columns, one_size=True)


def assign_regions(
    train: Sequence[Scene],
    val: Sequence[Scene] | None,
    val_fraction: float,
    crop: tuple[int, int],
    seed: int,
    *,
    by_area: bool = False,
) -> Regions:
    """Give each scene as a whole to one stage; cut a lone one, or all if ``by_area``, into two parts with a crop each.

    Args:
        train: scenes for training.
        val: scenes for validation, numbered after those for training; None takes some of ``train``.
        val_fraction: part of ``train``, or of the area of scenes that are cut, that validation takes; 1 for all,
            0 for none.
        crop: height and width of a crop, px.
        seed: decides which scenes validation takes.
        by_area: cut each scene.
    """
    whole = [Region(number, 0, 0, *scene.size) for number, scene in enumerate([*train, *(val or ())])]
    if val is not None:
        known = {digest for scene in train for digest in scene.identity}
        for scene in val:
            if known & set(scene.identity):
                raise ValueError(f"{scene.name} is among the training images too; take it out of either")
        return {"train": whole[: len(train)], "val": whole[len(train) :]}
    if val_fraction in (0, 1):
        return {"train": whole, "val": []} if val_fraction == 0 else {"train": [], "val": whole}
    group = group_scenes(train)  # scenes that share an image go to one stage together
    count = group.max() + 1
    if count == 1 or by_area:
        distinct = {scene.identity: region for region, scene in zip(whole, train, strict=True)}.values()
        try:
            parts = [split_region(region, val_fraction, crop) for region in distinct]
        except ValueError as error:
            if by_area:
                raise ValueError(f"data.val_areas=true cuts each scene, but {error}") from error
            only = "is the only image" if len(distinct) == 1 else "shares images with all other scenes"
            raise ValueError(f"{train[0].name} {only}, and its {error}") from error
        return {"train": [part for part, _ in parts], "val": [part for _, part in parts]}
    held = min(max(round(count * val_fraction), 1), count - 1)
    held_back = set(np.random.default_rng(seed).permutation(count)[:held].tolist())
    regions: Regions = {stage: [] for stage in STAGES}
    for region, number in zip(whole, group.tolist(), strict=True):
        regions["val" if number in held_back else "train"].append(region)
    return regions


def group_scenes(scenes: Sequence[Scene]) -> Ints:
    """Return the number of each scene's group, by first appearance; scenes with the same image are in one group."""
    places: dict[str, int] = {}
    pairs = [(n, places.setdefault(d, len(places))) for n, scene in enumerate(scenes) for d in scene.identity]
    scene, image = np.array(pairs).T
    size = len(scenes) + len(places)
    links = coo_array((np.ones(len(pairs)), (scene, len(scenes) + image)), shape=(size, size))
    labels = connected_components(links, directed=False)[1][: len(scenes)]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([numbers[label] for label in labels.tolist()])


def split_region(whole: Region, fraction: float, size: tuple[int, int]) -> tuple[Region, Region]:
    """Cut a region across its longer side; the last ``fraction`` is for validation.

    Raises:
        ValueError: a part would be smaller than a crop of ``size`` (height, width).
    """
    down = whole.height / size[0] > whole.width / size[1]
    side, crop = (whole.height, size[0]) if down else (whole.width, size[1])
    cut = min(max(round(side * (1 - fraction)), crop), side - crop)
    if cut < crop or whole.height < size[0] or whole.width < size[1]:
        raise ValueError(
            f"{whole.width}x{whole.height} px are too small for crops of {size[1]}x{size[0]} in both training and "
            "validation; set a smaller data.crop_px, or add images"
        )
    if down:
        return whole._replace(height=cut), whole._replace(top=whole.top + cut, height=side - cut)
    return whole._replace(width=cut), whole._replace(left=whole.left + cut, width=side - cut)
