"""Where crops are taken from scenes: drawn anywhere for training, tiles of a grid for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK_PX = 64  # of a single scene, blocks of this side are what the bootstrap resamples
Ints = npt.NDArray[np.int64]


class Region(NamedTuple):
    """The part of a scene that one stage may use, in px."""

    scene: int
    top: int
    left: int
    height: int
    width: int


class Places(NamedTuple):
    """Where a batch's crops lie, (B,) each, and their size, px."""

    scene: Ints
    top: Ints
    left: Ints
    height: int
    width: int


class Crops(Protocol):
    """So many places in the scenes."""

    height: int  # of all, or of the first where sizes differ
    width: int
    one_size: bool  # whether a batch can hold several
    scenes: Ints | None  # of validation crops, the scene that each lies in

    @property
    def groups(self) -> Tensor | None:
        """Of validation tiles, (N,) int64: those with the same number are resampled together."""
        ...

    def __len__(self) -> int: ...

    def places(self, indices: Tensor, rng: torch.Generator) -> Places: ...


class DrawnCrops:
    """Crops anywhere in the regions: a region as often as its area is large, in it every position equally likely.

    Args:
        regions: at least as large as a crop.
        size: height and width of a crop, px.
        count: number of crops.
        seed: None draws new places each time, from the batch's generator; else a crop's place follows from the seed and
            its index.
    """

    groups, one_size = None, True
    scenes: Ints | None = None

    def __init__(self, regions: Sequence[Region], size: tuple[int, int], count: int, seed: int | None) -> None:
        self.height, self.width = size
        self.count, self.seed = count, seed
        self.regions = np.array(regions, dtype=np.int64)
        self.rooms = self.regions[:, 3:] - np.array(size) + 1  # positions down and across
        self.areas = self.regions[:, 3:].prod(1)
        self.ends = self.areas.cumsum()

    def __len__(self) -> int:
        return self.count

    def places(self, indices: Tensor, rng: torch.Generator) -> Places:
        if self.seed is None:
            chance = torch.rand(len(indices), generator=rng, dtype=torch.float64).numpy()
        else:
            chance = hashed(indices.numpy(), self.seed) / 2.0**64
        at = chance * self.ends[-1]  # px, counted through the regions
        region = np.searchsorted(self.ends, at, side="right")
        within = 1 - (self.ends[region] - at) / self.areas[region]
        position = (within * self.rooms[region].prod(1)).astype(np.int64)
        across = self.rooms[region, 1]
        scene, top, left = self.regions[region, :3].T
        return Places(scene, top + position // across, left + position % across, self.height, self.width)


class GridCrops:
    """Tiles of a grid over the regions, which do not overlap.

    Args:
        regions: at least as large as a crop.
        size: height and width of a crop, px.
        most: take no more than this many, None for all; the regions then give as many each as they can.
        seed: of that choice.
    """

    one_size = True

    def __init__(self, regions: Sequence[Region], size: tuple[int, int], most: int | None, seed: int) -> None:
        self.height, self.width = height, width = size
        rng = np.random.default_rng(seed)
        tiles, ranks = [], []
        for region in regions:
            tops = region.top + np.arange(region.height // height) * height
            lefts = region.left + np.arange(region.width // width) * width
            grid = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
            tiles.append(np.insert(grid, 0, region.scene, axis=1))
            ranks.append(rng.permutation(len(grid)))
        chosen = np.argsort(np.concatenate(ranks), kind="stable")[:most]
        self.tiles = np.concatenate(tiles)[np.sort(chosen)]
        self.scenes: Ints | None = self.tiles[:, 0]
        if len(regions) > 1:
            self.groups = torch.from_numpy(self.tiles[:, 0].copy())
        else:
            rows, columns = (self.tiles[:, 1:] // BLOCK_PX).T
            self.groups = torch.from_numpy(rows * (columns.max() + 1) + columns)

    def __len__(self) -> int:
        return len(self.tiles)

    def places(self, indices: Tensor, rng: torch.Generator) -> Places:
        scene, top, left = self.tiles[indices.numpy()].T
        return Places(scene, top, left, self.height, self.width)


class WholeRegions:
    """The regions themselves, of any sizes; a batch holds one of them, since they may be large."""

    one_size = False

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions = regions
        self.height, self.width = regions[0].height, regions[0].width
        self.scenes: Ints | None = np.array([region.scene for region in regions])
        self.groups = torch.from_numpy(self.scenes)

    def __len__(self) -> int:
        return len(self.regions)

    def places(self, indices: Tensor, rng: torch.Generator) -> Places:
        (index,) = indices.tolist()
        scene, top, left, height, width = self.regions[index]
        return Places(np.array([scene]), np.array([top]), np.array([left]), height, width)


def hashed(indices: Ints, seed: int) -> npt.NDArray[np.uint64]:
    """Random-looking 64 bits for each index (SplitMix64, Steele et al. 2014), so that nothing is kept per crop."""
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    z = start + (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it should
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def generators(indices: Tensor, seed: int) -> list[torch.Generator]:
    """One for each index, always alike, whatever batch it comes in."""
    return [torch.Generator().manual_seed(int(bits >> np.uint64(1))) for bits in hashed(indices.numpy(), seed)]


def split_region(whole: Region, fraction: float, size: tuple[int, int]) -> tuple[Region, Region]:
    """A region cut across its longer side: the part for training, and the last ``fraction`` of it for validation.

    Raises:
        ValueError: the two cannot hold a crop of ``size`` (height, width) each.
    """
    down = whole.height / size[0] > whole.width / size[1]
    side, crop = (whole.height, size[0]) if down else (whole.width, size[1])
    cut = min(max(round(side * (1 - fraction)), crop), side - crop)
    if cut < crop or whole.height < size[0] or whole.width < size[1]:
        raise ValueError(
            f"with {whole.width}x{whole.height} px too small to give training and validation a crop of "
            f"{size[1]}x{size[0]} each; set a smaller data.crop_px, or add images"
        )
    if down:
        return whole._replace(height=cut), whole._replace(top=whole.top + cut, height=side - cut)
    return whole._replace(width=cut), whole._replace(left=whole.left + cut, width=side - cut)
