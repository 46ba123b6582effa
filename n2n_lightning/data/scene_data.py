"""Base of all sources of image files: check every file, give scenes to training and validation, find one range."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from n2n_lightning.data.crops import CropSampler, FixedCrops, RandomCrops, Regions, assign_regions, grid_crops
from n2n_lightning.data.defects import remove_defects
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.pairs import PairSource, Stage, check_at_least
from n2n_lightning.data.scenes import Scene, SceneFiles, format_text, size_text
from n2n_lightning.data.stack_values import StackValues
from n2n_lightning.image_io.axes import parse_axes
from n2n_lightning.image_io.stack import ImageError, ImageStack, open_stacks
from n2n_lightning.image_io.value_range import Limits, clip_bounds, known_range

SHOWN_FAULTS = 50


@dataclass(frozen=True)
class CheckedImages:
    """The usable images of a data set."""

    scenes: list[Scene]
    regions: Regions  # what each stage may use
    crop: tuple[int, int]  # height and width as read, px


@dataclass(kw_only=True)
class SceneData:
    """Base of the sources of image files; each adds where its files are and how they make a pair.

    Args:
        crop_px: side of the training and validation crops; None takes whole images, which must have one size unless
            there is nothing but validation (``val_fraction=1``).
        train_pairs: number of training crops in an epoch.
        val_pairs: maximum number of validation crops, tiles of a grid over the images; None for all.
        val_fraction: part of the scenes that validation holds back, or of the area of scenes that are cut; 1 for all.
            Arrays may have 0: then there is no validation.
        val_areas: cut each scene across its longer side, and validate on the last part; otherwise each scene is as a
            whole for training or for validation, and only a lone one is cut.
        range: the value that becomes 1; None finds it: 255 for 8-bit images, else the smallest 2^k - 1 (integers) or
            2^k (floats) that no absolute value exceeds, outliers left out.
        axes: letters of the files' dimensions, slowest first, such as "TZYX": T, Z, C, Y, X, and S for C; None takes
            those that the files name.
        skip_bad: leave out and name files that cannot be used, instead of refusing the data set.
        seed: decides the split and fixed crops.
        cache_dir: folder where decoded images are kept.
    """

    crop_px: int | None = 64
    train_pairs: int = 4096
    val_pairs: int | None = 400
    val_fraction: float = 0.2
    val_areas: bool = False
    range: float | None = None
    axes: str | None = None
    skip_bad: bool = False
    seed: int = 0
    cache_dir: str = "outputs/cache"

    cell_px = 1  # side of the square of input pixels behind each pixel of a pair
    spare_validation = False  # whether val_fraction may be 0
    skip_advice = "fix them, or set data.skip_bad=true to go on without them"
    spare_frames = False  # whether a scene can do without some of its frames, as a burst can
    draws = "fresh"  # or "fixed": the same training crops in every epoch

    def __post_init__(self) -> None:
        check_at_least(1, 64, crop_px=self.crop_px, train_pairs=self.train_pairs, val_pairs=self.val_pairs)
        check_at_least(0, 0, seed=self.seed)
        if not 0 <= self.val_fraction <= 1 or (self.val_fraction == 0 and not self.spare_validation):
            rule = "0 to 1" if self.spare_validation else "above 0, at most 1"
            raise ValueError(f"val_fraction must be {rule}, got {self.val_fraction}; set data.val_fraction=0.2")
        if self.range is not None and not self.range > 0:
            raise ValueError(f"range must be above 0, got {self.range}; set data.range=255, or null to find it")
        if self.axes is not None:
            self.axes = parse_axes(self.axes)
        self.takes_whole = self.crop_px is None and self.val_fraction == 1  # images of any sizes

    def find_files(self, stage: Stage) -> tuple[list[SceneFiles], list[str]] | None:
        """Return the files of ``stage`` and their faults; None for "val" when it is split off the training images."""
        raise NotImplementedError

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        """Return the pairs at ``crops``."""
        raise NotImplementedError

    @property
    def peak(self) -> float:
        return self.range or self._found_range

    @cached_property
    def _found_range(self) -> float:
        return self.values.find_range()

    @cached_property
    def values(self) -> StackValues:
        """The values of all images, noisy and clean."""
        images = (image for scene in self.content.scenes for image in scene.images)
        return StackValues(list(dict.fromkeys(image.stack for image in images)))

    @property
    def span(self) -> Limits:
        """The least and the greatest value that a clean image can have: the data's own if it has values below 0."""
        low, high = self.values.span[:2]
        return (low, high) if low < 0 else (0.0, self.peak)

    @property
    def reach(self) -> Limits:
        """The largest absolute value of the darkest and of the brightest file, outliers left out."""
        return self.values.reach

    @property
    def sample_type(self) -> str:
        return self.content.scenes[0].pixel_format[1]

    def use_training_range(self, peak: float, sample_type: str, trained: Limits | None = None) -> None:
        """Scale images as those of a training were, if they are of its kind and ``range`` is not set.

        Args:
            peak: the training's value that became 1.
            sample_type: type of the training's values.
            trained: the training's ``reach``; None if unknown.

        Raises:
            ValueError: the images are on another scale than the training's.
        """
        known = known_range(np.dtype(self.sample_type), peak, sample_type)
        if self.range is not None or known is None:
            return
        if self.sample_type != "uint8":
            self.values.check_scale(known, trained)
        self.range = known

    def load(self, stage: Stage) -> PairSource:
        """Return the pairs of ``stage``; a ValueError names all files that are missing or cannot be used."""
        content = self.content
        assert self.peak > 0  # or it raises a ValueError
        regions = content.regions[stage]
        if not regions:
            purpose = "training" if stage == "train" else "validation"
            raise ValueError(f"val_fraction={self.val_fraction} leaves none for {purpose}; set data.val_fraction=0.2")
        if stage == "train" and self.takes_whole:
            raise ValueError("crop_px=null and val_fraction=1 are for evaluation alone; set data.crop_px=64")
        # the stage's own scenes alone: those of the other stage may have more or fewer images
        scenes = [content.scenes[region.scene] for region in regions]
        regions = [region._replace(scene=number) for number, region in enumerate(regions)]
        crops: CropSampler
        if stage == "train":
            seed = self.seed if self.draws == "fixed" else None
            crops = RandomCrops(regions, content.crop, self.train_pairs, seed)
        elif self.takes_whole:
            crops = FixedCrops(regions[: self.val_pairs], one_size=False)
        else:
            crops = grid_crops(regions, content.crop, self.val_pairs, self.seed)
        source = self.make_source(scenes, crops, stage)
        if isinstance(source, SceneSource) and self.sample_type != "uint8":
            source.bounds = clip_bounds(self.values.span, self.peak)
        return source

    def fingerprint(self) -> str:
        """Return a hash of the bytes of all files, in order."""
        images = (image for scene in self.content.scenes for image in scene.images)
        return hashlib.sha256("".join(f"{i.stack.digest} {i.number} " for i in images).encode()).hexdigest()[:12]

    def find_scenes(self, stage: Stage) -> tuple[list[Scene], list[str]] | None:
        """Return the usable scenes of ``stage`` and the faults of the others; None as ``find_files`` does."""
        found = self.find_files(stage)
        if found is None:
            return None
        groups, faults = found
        paths = list(dict.fromkeys(path for group in groups for path in group.paths))
        opened = dict(zip(paths, open_stacks(paths, Path(self.cache_dir), self.axes), strict=True))
        stacks = {path: stack for path, stack in opened.items() if isinstance(stack, ImageStack)}
        faults = [*faults, *(str(error) for error in opened.values() if isinstance(error, ImageError))]
        scenes: list[Scene] = []
        for group in groups:
            usable, wrong = group.open(stacks)
            scenes += usable
            faults += wrong
        return scenes, faults

    @cached_property
    def content(self) -> CheckedImages:
        """All usable images, each given to a stage."""
        train, train_faults = self._find_usable_scenes("train") or ([], [])
        found = self._find_usable_scenes("val")
        val, val_faults = found or ([], [])
        misfits = self.misfits([*train, *val])
        train, val = ([scene for scene in scenes if scene not in misfits] for scenes in (train, val))
        faults = list(dict.fromkeys([*train_faults, *val_faults, *misfits.values()]))  # pages of a file share a fault
        if faults and not self.skip_bad:
            raise ValueError(fault_list(faults, self.skip_advice))
        if not train or (found and not val):
            raise ValueError(fault_list(faults, "and no other is left"))
        if faults:
            print(fault_list(faults, "left out"), file=sys.stderr, flush=True)
        scenes = [*train, *val]
        if self.range not in (None, 255.0) and scenes[0].pixel_format[1] == "uint8":
            raise ValueError(f"8-bit images have the range 255, got {self.range:g}; set data.range=null")
        crop = self._crop_size(scenes)
        held_back = val if found else None
        if self.val_areas and (found or self.val_fraction == 1):
            raise ValueError(
                "val_areas must be false with validation images of their own or val_fraction=1, got true; set "
                "data.val_areas=false"
            )
        regions = assign_regions(train, held_back, self.val_fraction, crop, self.seed, by_area=self.val_areas)
        return CheckedImages(scenes, regions, crop)

    def _find_usable_scenes(self, stage: Stage) -> tuple[list[Scene], list[str]] | None:
        """Return what ``find_scenes`` does, without images that make their scene worthless."""
        found = self.find_scenes(stage)
        if found is None:
            return None
        scenes, faults = remove_defects(found[0], spare_frames=self.spare_frames)
        return scenes, [*found[1], *faults]

    def _crop_size(self, scenes: Sequence[Scene]) -> tuple[int, int]:
        """Return height and width of a crop as read, px: the images' most common size if they are taken whole."""
        if self.takes_whole or self.crop_px is not None:
            return ((self.crop_px or 1) * self.cell_px,) * 2
        return Counter(scene.size for scene in scenes).most_common(1)[0][0]

    def misfits(self, scenes: Sequence[Scene]) -> dict[Scene, str]:
        """Return the scenes that do not fit the others or the crop, and why."""
        if not scenes:
            return {}
        usual = Counter(scene.pixel_format for scene in scenes).most_common(1)[0][0]
        crop = self._crop_size(scenes)
        one_size = self.crop_px is None and not self.takes_whole

        def misfit(scene: Scene) -> str | None:
            if scene.pixel_format != usual:
                return f"holds {format_text(scene.pixel_format)}, others {format_text(usual)}; convert it"
            if one_size and scene.size != crop:
                others = f"others {size_text(crop)}; set data.crop_px=64 for crops of one size"
                return f"is {size_text(scene.size)} px, {others}"
            if scene.size[0] < crop[0] or scene.size[1] < crop[1]:
                return f"is {size_text(scene.size)} px, a crop {size_text(crop)}; set a smaller data.crop_px"
            return None

        return {scene: f"{scene.name} {fault}" for scene in scenes if (fault := misfit(scene))}


def fault_list(faults: Sequence[str], consequence: str) -> str:
    """Return one message with all faults, or the first of many, and what follows from them."""
    if len(faults) == 1:
        return f"{faults[0]} ({consequence})"
    more = [f"... and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
    return "\n  ".join([f"{len(faults)} images cannot be used ({consequence}):", *faults[:SHOWN_FAULTS], *more])
