"""Images whose pixels hold the image's number and their own position, as files of any format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from PIL import Image
from torch import Tensor

from n2n_lightning.data.pairs import NoisyPair, Stage
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.seeding import seeded_generator

Array = npt.NDArray[Any]
Data = TypeVar("Data", bound=SceneData)


def numbered_image(scene: int, frame: int = 0, height: int = 40, width: int = 48) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8 whose channels hold 10 * scene + frame, the row, and the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full((height, width), 10 * scene + frame), rows, columns], -1).astype(np.uint8)


class Origin(NamedTuple):
    """Where a crop of a numbered image is from."""

    scene: int
    frame: int
    top: int
    left: int

    @property
    def place(self) -> tuple[int, int, int]:
        return self.scene, self.top, self.left


def origins(images: Tensor | None) -> list[Origin]:
    """Return where each of (N, 3, H, W) uint8 crops is from, and check that it is one piece of one image."""
    assert images is not None
    height, width = images.shape[2:]
    found = []
    for name, rows, columns in images.numpy():
        scene, frame = divmod(int(name[0, 0]), 10)
        origin = Origin(scene, frame, int(rows[0, 0]), int(columns[0, 0]))
        expected = numbered_image(scene, frame, 256, 256)[origin.top :, origin.left :][:height, :width]
        np.testing.assert_array_equal(np.stack([name, rows, columns], -1), expected)
        found.append(origin)
    return found


def write(path: Path, pixels: Array) -> Path:
    """Write (H, W), (H, W, 3) or, as pages, (N, H, W, 3) in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(pixels).save(path)
    return path


def make_data(kind: type[Data], folder: Path, **settings: Any) -> Data:
    """Return a small data set with its cache in ``folder``."""
    return kind(**{"cache_dir": str(folder / "cache"), "crop_px": 16, "train_pairs": 64, "val_pairs": 60} | settings)


def load_all(data: SceneData, stage: Stage, seed: int = 0) -> NoisyPair:
    """Return all pairs of a stage as one batch."""
    source = data.load(stage)
    return source.batch(torch.arange(len(source)), seeded_generator(seed))
