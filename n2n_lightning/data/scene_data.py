"""What all sources of image files share: every file checked, scenes for training and validation, one range for all."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from n2n_lightning.data.crops import Crops, DrawnCrops, GridCrops, Region, WholeRegions, split_region
from n2n_lightning.data.pairs import STAGES, PairSource, Stage
from n2n_lightning.data.scenes import Listing, Scene, WindowedImages, by, kind_in_words
from n2n_lightning.image_io.stack import ImageError, ImageStack, open_stacks
from n2n_lightning.image_io.value_range import covering_range

SHOWN_FAULTS = 50


@dataclass(frozen=True)
class CheckedImages:
    """A data set once it has been looked through."""

    scenes: list[Scene]
    regions: dict[Stage, list[Region]]
    crop: tuple[int, int]  # height and width as read, px
    peak: float

    @property
    def sample_type(self) -> str:
        return self.scenes[0].kind[1]


@dataclass(kw_only=True)
class SceneData:
    """What the sources of image files have in common; each adds where its files are and how they make a pair.

    Args:
        crop_px: side of the training and validation crops; None takes whole images, which are then of one size, unless
            there is nothing but validation (``val_fraction=1``).
        train_pairs: training crops an epoch.
        val_pairs: validation crops at most, out of a grid over the images; None for all.
        val_fraction: part of the images that validation holds back, or of a lone image's area; 1 for all.
        range: the value that becomes 1; None finds it: 255 for 8-bit images, else the least 2^k - 1 (whole numbers)
            or 2^k (floats) that no value exceeds.
        skip_bad: leave out files that cannot be used, naming them, instead of refusing them all.
        seed: of the split and of fixed crops.
        cache_dir: where decoded images are kept.
    """

    crop_px: int | None = 64
    train_pairs: int = 4096
    val_pairs: int | None = 400
    val_fraction: float = 0.2
    range: float | None = None
    skip_bad: bool = False
    seed: int = 0
    cache_dir: str = "outputs/cache"

    def __post_init__(self) -> None:
        for name, value in (
            ("crop_px", self.crop_px),
            ("train_pairs", self.train_pairs),
            ("val_pairs", self.val_pairs),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}; set data.{name}=64")
        if not 0 < self.val_fraction <= 1:
            raise ValueError(
                f"val_fraction must be above 0, at most 1, got {self.val_fraction}; set data.val_fraction=0.2"
            )
        if self.range is not None and not self.range > 0:
            raise ValueError(f"range must be above 0, got {self.range}; set data.range=255, or null to find it")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}; set data.seed=0")

    def listings(self, stage: Stage, faults: list[str]) -> list[Listing] | None:
        """The files of ``stage``, and their faults; None for "val" when it is split off the training images."""
        raise NotImplementedError

    def make_source(self, scenes: list[Scene], crops: Crops, stage: Stage) -> PairSource:
        """The pairs at ``crops``."""
        raise NotImplementedError

    @property
    def cell_px(self) -> int:
        """Side of the square of input pixels behind each of a pair's pixels."""
        return 1

    @property
    def takes_whole(self) -> bool:
        """Whether images are taken as they are, of whatever sizes."""
        return self.crop_px is None and self.val_fraction == 1

    @property
    def fixed_seed(self) -> int | None:
        """Seed of training crops that are the same in every epoch; None draws new ones."""
        return None

    @property
    def peak(self) -> float:
        return self.content.peak

    @property
    def sample_type(self) -> str:
        return self.content.sample_type

    def load(self, stage: Stage) -> PairSource:
        """Raises ValueError for files that are missing, of no use, or do not fit together; each is named."""
        content = self.content
        regions = content.regions[stage]
        if not regions:
            raise ValueError(f"val_fraction={self.val_fraction} leaves none for training; set data.val_fraction=0.2")
        if stage == "train" and self.takes_whole:
            raise ValueError("crop_px=null and val_fraction=1 are for evaluation alone; set data.crop_px=64")
        scenes = [content.scenes[region.scene] for region in regions]  # of the stage alone: what they have may differ
        regions = [region._replace(scene=number) for number, region in enumerate(regions)]
        crops: Crops
        if stage == "train":
            crops = DrawnCrops(regions, content.crop, self.train_pairs, self.fixed_seed)
        elif self.takes_whole:
            crops = WholeRegions(regions[: self.val_pairs])
        else:
            crops = GridCrops(regions, content.crop, self.val_pairs, self.seed)
        return self.make_source(scenes, crops, stage)

    def fingerprint(self) -> str:
        """Hash of all files' bytes, in order."""
        images = (frame for scene in self.content.scenes for frame in scene.images)
        return hashlib.sha256("".join(f"{i.stack.digest} {i.number} " for i in images).encode()).hexdigest()[:12]

    def find_scenes(self, stage: Stage, faults: list[str]) -> list[Scene] | None:
        """Every usable scene of ``stage``, None where it has none of its own; what is wrong with the others."""
        listings = self.listings(stage, faults)
        if listings is None:
            return None
        paths = list(dict.fromkeys(path for listing in listings for path in listing.paths))
        opened = dict(zip(paths, open_stacks(paths, Path(self.cache_dir)), strict=True))
        stacks: dict[Path, WindowedImages] = {
            path: stack for path, stack in opened.items() if isinstance(stack, ImageStack)
        }
        faults += [str(error) for error in opened.values() if isinstance(error, ImageError)]
        scenes = []
        for listing in [listing.without_bad_frames(stacks, faults) for listing in listings]:
            if stacks.keys() >= set(listing.paths):
                try:
                    scenes += listing.scenes(stacks)
                except ImageError as error:
                    faults.append(str(error))
        return scenes

    @cached_property
    def content(self) -> CheckedImages:
        """Every file opened, checked and given to a stage."""
        faults: list[str] = []
        found = {stage: self.find_scenes(stage, faults) for stage in STAGES}
        both = [scene for scenes in found.values() for scene in scenes or ()]
        crop = (0, 0)
        if both:
            kind = Counter(scene.kind for scene in both).most_common(1)[0][0]
            crop = Counter(scene.size for scene in both).most_common(1)[0][0]
            if self.takes_whole or self.crop_px is not None:
                crop = ((self.crop_px or 1) * self.cell_px,) * 2
            for scenes in found.values():
                if scenes is not None:
                    scenes[:] = [scene for scene in scenes if self._fits(scene, kind, crop, faults)]
        faults = list(dict.fromkeys(faults))  # a file of several pages has the same as often
        if faults and not self.skip_bad:
            raise ValueError(listed(faults, "mend them, or set data.skip_bad=true to go on without them"))
        if not all(len(scenes) for scenes in found.values() if scenes is not None):
            raise ValueError(listed(faults, "and no other is left"))
        if faults:
            print(listed(faults, "left out"), file=sys.stderr, flush=True)
        train, val = found["train"] or [], found["val"]
        scenes = [*train, *(val or ())]
        if self.range not in (None, 255.0) and scenes[0].kind[1] == "uint8":
            raise ValueError(f"8-bit images have the range 255, got {self.range:g}; set data.range=null")
        return CheckedImages(scenes, self._regions(train, val, crop), crop, self.range or find_range(scenes))

    def _fits(self, scene: Scene, kind: tuple[int, str], crop: tuple[int, int], faults: list[str]) -> bool:
        """Whether the scene fits the others and the crop; if not, ``faults`` says so."""
        fault = None
        if scene.kind != kind:
            fault = f"{scene.name} holds {kind_in_words(scene.kind)}, others {kind_in_words(kind)}; convert it"
        elif self.crop_px is None and not self.takes_whole and scene.size != crop:
            fault = f"{scene.name} is {by(scene.size)} px, others {by(crop)}; set data.crop_px=64 for crops of one size"
        elif scene.size[0] < crop[0] or scene.size[1] < crop[1]:
            fault = f"{scene.name} is {by(scene.size)} px, a crop {by(crop)}; set a smaller data.crop_px"
        faults += [fault] if fault else []
        return fault is None

    def _regions(self, train: list[Scene], val: list[Scene] | None, crop: tuple[int, int]) -> dict[Stage, list[Region]]:
        """What each stage may use. Scenes are given to one stage as a whole; a lone one is cut in two."""
        whole = [Region(number, 0, 0, *scene.size) for number, scene in enumerate([*train, *(val or ())])]
        if val is not None:
            known = {frame.stack.digest for scene in train for frame in scene.images}
            for scene in val:
                if known & {frame.stack.digest for frame in scene.images}:
                    raise ValueError(f"{scene.name} is among the training images too; take it out of either")
            return {"train": whole[: len(train)], "val": whole[len(train) :]}
        if self.val_fraction == 1:
            return {"train": [], "val": whole}
        kinds = list(dict.fromkeys(scene.identity for scene in train))  # copies of an image go to one stage together
        if len(kinds) == 1:
            try:
                parts = split_region(whole[0], self.val_fraction, crop)
            except ValueError as error:
                raise ValueError(f"{train[0].name} is the only image and {error}") from error
            return {stage: [part] for stage, part in zip(STAGES, parts, strict=True)}
        order = np.random.default_rng(self.seed).permutation(len(kinds)).tolist()
        held_back = {kinds[n] for n in order[: min(max(round(len(kinds) * self.val_fraction), 1), len(kinds) - 1)]}
        regions: dict[Stage, list[Region]] = {"train": [], "val": []}
        for region, scene in zip(whole, train, strict=True):
            regions["val" if scene.identity in held_back else "train"].append(region)
        return regions


def find_range(scenes: Sequence[Scene]) -> float:
    """255 for 8-bit images, else ``ranges.covering_range``.

    Raises:
        ValueError: the values cannot be an image's whose black is 0.
    """
    stacks = [frame.stack for scene in scenes for frame in scene.images]
    dtype = np.dtype(stacks[0].dtype)
    lowest, high = min(stacks, key=lambda stack: stack.low), max(stack.high for stack in stacks)
    try:
        return 255.0 if dtype == np.uint8 else covering_range(lowest.low, high, dtype)
    except ValueError as error:
        raise ValueError(
            f"values go from {lowest.low:g} (in {lowest.name}) to {high:g}, but black is taken to be 0: "
            "add an offset to the images, or set data.range to the value that is to become 1"
        ) from error


def listed(faults: Sequence[str], then: str) -> str:
    """All faults as one message."""
    if len(faults) == 1:
        return f"{faults[0]} ({then})"
    more = [f"... and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
    return "\n  ".join([f"{len(faults)} images cannot be used ({then}):", *faults[:SHOWN_FAULTS], *more])
