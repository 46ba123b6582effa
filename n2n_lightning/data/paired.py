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

from n2n_lightning.data.crops import CropSampler
from n2n_lightning.data.device_cache import SceneSource
from n2n_lightning.data.frame_data import FrameData
from n2n_lightning.data.pairs import NoisyPair, PairSource, Stage
from n2n_lightning.data.scenes import Scene, SceneFiles
from n2n_lightning.image_io.listing import file_or_images, list_images

COMPARED_FRAMES = 10  # at most, for each score without a clean image; more add little precision


class FramePairs(SceneSource):
    """Crops of two noisy images of a scene; in validation also the mean of the others and the clean one, where known.

    Args:
        any_order: draw any ordered pair of frames, or in validation let them take turns; otherwise the first is the
            source and the second the target.
    """

    def __init__(self, scenes: Sequence[Scene], crops: CropSampler, *, any_order: bool) -> None:
        super().__init__(scenes, crops)
        self.any_order = any_order
        self.counts = np.array([len(scene.noisy) for scene in scenes])
        self.has_pairs = bool(self.counts.min() > 1)
        self.compared = min(int(self.counts.min()), COMPARED_FRAMES)
        self.has_clean = self.groups is not None and all(scene.clean is not None for scene in scenes)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        windows = self.crops.windows(indices, rng)
        scenes = [self.scenes[number] for number in windows.scene]
        counts = self.counts[windows.scene]

        def read_noisy(numbers: npt.NDArray[Any]) -> Tensor:
            frames = [scene.noisy[number] for scene, number in zip(scenes, numbers % counts, strict=True)]
            return self.read(frames, windows)

        first, step = np.zeros_like(counts), np.ones_like(counts)
        if self.groups is None:
            if self.any_order:
                chance = torch.rand(2, len(indices), generator=rng).numpy()
                first, step = (chance[0] * counts).astype(int), 1 + (chance[1] * (counts - 1)).astype(int)
            return NoisyPair(read_noisy(first), read_noisy(first + step))
        if self.any_order:
            first = indices.numpy()
        others = range(2, self.compared)
        return NoisyPair(
            read_noisy(first),
            read_noisy(first + 1) if self.has_pairs else None,
            self.read([scene.clean for scene in scenes if scene.clean], windows) if self.has_clean else None,
            torch.stack([read_noisy(first + n) for n in others]).float().mean(0) if others else None,
            self.groups[indices],
        )


@dataclass(kw_only=True)
class PairsData(FrameData):
    """Two folders of noisy images, matched by name, or two files; ``data=pairs``.

    Two files of folders are a pair if their paths below the folders are equal apart from the suffix. Files of several
    pages are matched page by page.

    Args:
        source: folder of the images to denoise, or one file; the same for the others.
        target: folder of the second noisy images; None if only scores against ``clean`` are wanted.
        clean: folder of clean images, for validation; None if there are none.
        val_source: folder of the validation images; None holds some of ``source`` back.
        val_target: folder of their second noisy images.
        val_clean: folder of their clean images.
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

    def find_files(self, stage: Stage) -> tuple[list[SceneFiles], list[str]] | None:
        chosen = (self.source, self.target, self.clean)
        if stage == "val":
            if self.val_source is None:
                return None
            chosen = (self.val_source, self.val_target, self.val_clean)
        folders = [Path(folder) for folder in chosen if folder is not None]
        found = [files_by_name(folder) for folder in folders]
        faults = [
            f"{files[name]} has no partner in {other}"
            for files in found
            for other, others in zip(folders, found, strict=True)
            for name in sorted(files.keys() - others.keys())
        ]
        names = sorted(set.intersection(*(set(files) for files in found)))
        paths = [tuple(files[name] for files in found) for name in names]
        return [SceneFiles(p[:-1], p[-1]) if chosen[2] else SceneFiles(p) for p in paths], faults

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        source = FramePairs(scenes, crops, any_order=False)
        if stage == "train" and not source.has_pairs:
            raise ValueError("training needs a second noisy image; set data.target=FOLDER, or use data=single")
        return source


@dataclass(kw_only=True)
class BurstData(FrameData):
    """Bursts: any number of noisy frames of each scene; ``data=burst``.

    Training draws any ordered pair of a scene's frames. Frames are taken over time (T); each slice (Z) of a file is a
    scene of its own.

    Args:
        root: one scene, as a folder of frames or a file of several pages; or many scenes, as a folder of these.
        val_root: the same for validation; None holds some of the scenes back, or a part of a lone one.
    """

    root: str
    val_root: str | None = None

    spare_frames = any_order = True

    def find_files(self, stage: Stage) -> tuple[list[SceneFiles], list[str]] | None:
        root = self.root if stage == "train" else self.val_root
        return None if root is None else (list_bursts(Path(root), self.axes), [])

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        return FramePairs(scenes, crops, any_order=self.any_order)


def files_by_name(folder: Path) -> dict[str, Path]:
    """Return the images below ``folder`` by their path below it, without suffix; a file itself has no name."""
    files: dict[str, Path] = {}
    for path in file_or_images(folder):
        if path == folder:
            return {"": path}
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise ValueError(f"{files[name]} and {path} have the same name; keep one, pairs are matched by name")
        files[name] = path
    return files


def list_bursts(root: Path, axes: str | None = None) -> list[SceneFiles]:
    """Return the files of each folder at or below ``root``, or ``root`` itself if it is a file."""
    if root.is_file():
        return [SceneFiles((root,), burst=True, axes=axes)]
    folders: dict[Path, list[Path]] = {}
    for path in list_images(root, "a folder of frames or of folders of them, or one file of several frames"):
        folders.setdefault(path.parent, []).append(path)
    return [SceneFiles(tuple(paths), burst=True, axes=axes) for paths in folders.values()]
