"""Real noisy pairs, from two folders or from bursts: ``data=pairs``, ``data=burst``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.crops import Crops
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Frame, Listing, Scene
from n2n_lightning.image_io.stack import list_images


class FramePairs(SceneSource):
    """Crops of two noisy images of a scene; in validation with a third and the clean one, where all scenes have them.

    Args:
        scenes: the frames of each.
        crops: where; those of a grid are for validation, in which frames take turns, so that nothing is drawn.
        any_order: draw any ordered pair of frames; otherwise the first is the source and the second the target.
    """

    def __init__(self, scenes: Sequence[Scene], crops: Crops, *, any_order: bool) -> None:
        self.scenes, self.crops, self.any_order = scenes, crops, any_order
        self.groups = crops.groups
        self.counts = np.array([len(scene.frames) for scene in scenes])
        self.image_shape, self.one_size = (scenes[0].kind[0], crops.height, crops.width), crops.one_size
        self.has_pairs = bool(self.counts.min() > 1)
        self.has_third = bool(self.counts.min() > 2)
        self.has_clean = self.groups is not None and all(scene.clean is not None for scene in scenes)

    def __len__(self) -> int:
        return len(self.crops)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        places = self.crops.places(indices, rng)
        scenes = [self.scenes[number] for number in places.scene]
        counts = self.counts[places.scene]

        def read(frames: list[Frame]) -> Tensor:
            return self.read(frames, places)

        def read_frames(numbers: npt.NDArray[Any]) -> Tensor:
            return read([scene.frames[number] for scene, number in zip(scenes, numbers % counts, strict=True)])

        if self.groups is None:
            first, step = np.zeros_like(counts), np.ones_like(counts)
            if self.any_order:
                chance = torch.rand(2, len(indices), generator=rng).numpy()
                first, step = (chance[0] * counts).astype(int), 1 + (chance[1] * (counts - 1)).astype(int)
            return NoisyPair(read_frames(first), read_frames(first + step))
        first = indices.numpy() if self.any_order else np.zeros_like(counts)
        return NoisyPair(
            read_frames(first),
            read_frames(first + 1) if self.has_pairs else None,
            read([scene.clean for scene in scenes if scene.clean is not None]) if self.has_clean else None,
            read_frames(first + 2) if self.has_third else None,
            self.groups[indices],
        )


@dataclass(kw_only=True)
class PairsData(SceneData):
    """Two folders of noisy images, matched by name; ``data=pairs``.

    Two files are a pair when their paths below the folders are the same but for the suffix. A file of several pages
    is as many pairs.

    Args:
        source: folder of the images to denoise.
        target: folder of the second noisy images; None where only scores against ``clean`` are wanted.
        clean: folder of clean images, for validation; None for no such.
        val_source: folder of the validation images; None holds some of ``source`` back.
        val_target: likewise.
        val_clean: likewise.
    """

    source: str
    target: str | None
    clean: str | None = None
    val_source: str | None = None
    val_target: str | None = None
    val_clean: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is None and self.clean is None:
            raise ValueError("target must be a folder, got null; set data.target=FOLDER, or use data=single")
        if self.val_source is None and (self.val_target or self.val_clean):
            raise ValueError("val_target and val_clean need val_source; set data.val_source=FOLDER too")
        if self.val_source is not None and self.val_target is None and self.val_clean is None:
            raise ValueError("val_source has nothing to be scored against; set data.val_target or data.val_clean")

    def listings(self, stage: Stage, faults: list[str]) -> list[Listing] | None:
        if stage == "val" and self.val_source is None:
            return None
        chosen = (self.source, self.target, self.clean)
        if stage == "val":
            chosen = (self.val_source or "", self.val_target, self.val_clean)
        folders = [Path(folder) for folder in chosen if folder is not None]
        found = [by_name(folder) for folder in folders]
        for files in found:
            for other, others in zip(folders, found, strict=True):
                faults += [f"{files[name]} has no partner in {other}" for name in sorted(files.keys() - others.keys())]
        names = sorted(set.intersection(*(set(files) for files in found)))
        has_clean = chosen[2] is not None
        paths = [[files[name] for files in found] for name in names]
        return [Listing(tuple(p[:-1] if has_clean else p), p[-1] if has_clean else None) for p in paths]

    def make_source(self, scenes: list[Scene], crops: Crops, stage: Stage) -> PairSource:
        source = FramePairs(scenes, crops, any_order=False)
        if stage == "train" and not source.has_pairs:
            raise ValueError("training needs a second noisy image; set data.target=FOLDER, or use data=single")
        return source


@dataclass(kw_only=True)
class BurstData(SceneData):
    """Bursts: any number of noisy frames of each scene; ``data=burst``.

    Training draws any ordered pair of a scene's frames.

    Args:
        root: one scene, as a folder of frames or a file of several pages; or many, as a folder of such.
        val_root: the same for validation; None holds some of the scenes back, or a part of the only one.
    """

    root: str
    val_root: str | None = None

    def listings(self, stage: Stage, faults: list[str]) -> list[Listing] | None:
        root = self.root if stage == "train" else self.val_root
        return None if root is None else list_bursts(Path(root))

    def make_source(self, scenes: list[Scene], crops: Crops, stage: Stage) -> PairSource:
        return FramePairs(scenes, crops, any_order=True)


def by_name(folder: Path) -> dict[str, Path]:
    """Path below the folder, without suffix -> file."""
    files: dict[str, Path] = {}
    for path in list_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise ValueError(f"{files[name]} and {path} have the same name; keep one, pairs are matched by name")
        files[name] = path
    return files


def list_bursts(root: Path) -> list[Listing]:
    """The files of each folder at or below ``root``; a file is a folder of its own."""
    if root.is_file():
        return [Listing((root,), burst=True)]
    folders: dict[Path, list[Path]] = {}
    for path in list_images(root):
        folders.setdefault(path.parent, []).append(path)
    return [Listing(tuple(paths), burst=True) for paths in folders.values()]
