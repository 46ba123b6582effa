"""Draw noisy and clean images from crops of a photograph. Imports no torch, so that workers start at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from n2n_lightning.image_io.image_file import ImageError, check_packing

PHOTO_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # named, because some of Pillow's others run programs
MIN_SIDE_PX, CELL_PX, IMAGE_PX = 160, 8, 32
CONTRAST = 1.1
LEVELS = np.arange(256, dtype=np.float32)
ByteArray = npt.NDArray[np.uint8]
PART_PAIRS = 256  # of one photograph that are made by one worker at a time: a third of a second
ArrayKind = Literal["pairs", "supervised", "val", "cells"]


@dataclass(frozen=True)
class PhotoArray:
    """An array of pairs in a file, and the photographs that take turns in it.

    Args:
        path: the file, in NPY format.
        kind: "pairs", two draws; "supervised" or "val", a draw and the clean image; "cells", all pixels of each cell.
        count: number of pairs.
        photographs: their files.
        seed: seed of the random numbers; the number of a pair completes it.
    """

    path: Path
    kind: ArrayKind
    count: int
    photographs: tuple[Path, ...]
    seed: tuple[int, ...]

    def create(self) -> None:
        """Write an array of zeros: (2, N, 3, 32, 32) uint8, or (N, 32, 32, 64, 3) for "cells"."""
        cells = (self.count, IMAGE_PX, IMAGE_PX, CELL_PX**2, 3)
        shape = cells if self.kind == "cells" else (2, self.count, 3, IMAGE_PX, IMAGE_PX)
        np.lib.format.open_memmap(self.path, mode="w+", dtype=np.uint8, shape=shape)

    @property
    def parts(self) -> int:
        """Number of parts that can be filled side by side."""
        return self.used_photographs * math.ceil(self.count / self.used_photographs / PART_PAIRS)

    @property
    def used_photographs(self) -> int:
        return min(len(self.photographs), self.count)

    def fill(self, part: int) -> None:
        """Write the pairs of one part, all from one photograph; a ValueError says why it cannot be read."""
        turn, number = divmod(part, self.used_photographs)
        numbers = range(number, self.count, len(self.photographs))[turn * PART_PAIRS : (turn + 1) * PART_PAIRS]
        if not numbers:
            return
        photo, output = read_photograph(self.photographs[number]), np.load(self.path, mmap_mode="r+")
        draws = {"pairs": 2, "cells": 0}.get(self.kind, 1)
        # all random numbers first: small functions take a third of the time when they follow each other
        plans = [plan_crop(photo.size, draws, np.random.default_rng([*self.seed, index])) for index in numbers]
        for index, plan in zip(numbers, plans, strict=True):
            crop = cut_crop(photo, plan)
            if self.kind == "cells":
                output[index] = crop.cells()
                continue
            output[:draws, index] = crop.pick(plan.choice)
            if self.kind != "pairs":
                output[1, index] = box_mean(crop.cells())


class CropPlan(NamedTuple):
    """The random numbers of an image."""

    box: tuple[int, int, int, int]  # left, top, right, bottom of a square in the photograph
    is_mirrored: bool
    choice: npt.NDArray[np.int64]  # (draws, 32, 32) in 0..63: the pixel of each cell that each draw takes


def plan_crop(size: tuple[int, int], draws: int, rng: np.random.Generator) -> CropPlan:
    """Draw the crop of an image from a photograph of this width and height, and the pixels of its cells."""
    side = int(rng.integers(MIN_SIDE_PX, min(size) + 1))
    left, top = (int(rng.integers(0, room - side + 1)) for room in size)
    is_mirrored = rng.random() < 0.5
    choice = rng.integers(0, CELL_PX**2, size=(draws, IMAGE_PX, IMAGE_PX))
    return CropPlan((left, top, left + side, top + side), is_mirrored, choice)


@dataclass(frozen=True)
class PhotoCrop:
    """A crop of a photograph, as it is before its contrast is raised: few of its pixels are taken.

    Args:
        pixels: (8 H, 8 W, 3) uint8.
        contrast: (256,) uint8, the table that raises the contrast of a pixel.
        is_mirrored: whether the images are mirrored from left to right.
    """

    pixels: ByteArray
    contrast: ByteArray
    is_mirrored: bool

    def pick(self, choice: npt.NDArray[np.int64]) -> ByteArray:
        """Take one pixel of each cell: (draws, H, W) in 0..63 -> (draws, 3, H, W) uint8."""
        height, width = self.pixels.shape[:2]
        row, column = np.divmod(choice, CELL_PX)
        row += np.arange(0, height, CELL_PX)[:, None]
        column += np.arange(0, width, CELL_PX)
        if self.is_mirrored:
            column = width - 1 - column
        picked = self.pixels.reshape(-1, 3)[row * width + column]  # faster than an index of each axis
        images: ByteArray = self.contrast[picked].transpose(0, 3, 1, 2)
        return images

    def cells(self) -> ByteArray:
        """Return the 64 pixels of each cell: (H, W, 64, 3) uint8."""
        height, width = (side // CELL_PX for side in self.pixels.shape[:2])
        pixels = np.take(self.contrast, self.pixels[:, ::-1] if self.is_mirrored else self.pixels)
        flat: ByteArray = pixels.reshape(height, CELL_PX, width, CELL_PX, 3).transpose(0, 2, 1, 3, 4)
        return flat.reshape(height, width, CELL_PX**2, 3)


def cut_crop(photo: Image.Image, plan: CropPlan) -> PhotoCrop:
    """Cut a crop out of an RGB photograph and resize it to 256x256."""
    edge = IMAGE_PX * CELL_PX
    resized = photo.resize((edge, edge), Image.Resampling.BICUBIC, box=plan.box)
    pixels = np.frombuffer(resized.tobytes(), np.uint8).reshape(edge, edge, 3)  # np.asarray takes twice the time
    mean = float32_mean(pixels)
    contrast = np.rint(np.clip(mean + CONTRAST * (LEVELS - mean), 0, 255)).astype(np.uint8)
    return PhotoCrop(pixels, contrast, plan.is_mirrored)


def float32_mean(pixels: ByteArray) -> np.float32:
    """Return the bits of ``pixels.astype(np.float32).mean()`` in a sixth of its time: (256, 256, 3) uint8.

    numpy adds up halves of halves. A quarter's sum is below 2^24, so float32 holds it exactly.
    """
    first, second, third, fourth = pixels.reshape(4, -1).sum(axis=1, dtype=np.uint32).astype(np.float32)
    mean: np.float32 = ((first + second) + (third + fourth)) / np.float32(pixels.size)
    return mean


def box_mean(cells: ByteArray) -> ByteArray:
    """Return the rounded mean of each cell: (H, W, K, 3) uint8 -> (3, H, W) uint8."""
    clean: ByteArray = np.rint(cells.mean(axis=2, dtype=np.float32)).astype(np.uint8).transpose(2, 0, 1)
    return clean


def read_photograph(path: Path) -> Image.Image:
    """Read a photograph as 8-bit RGB, turned upright by its EXIF orientation."""
    try:
        with Image.open(path, formats=PHOTO_FORMATS) as opened:
            check_packing(math.prod(opened.size) * len(opened.getbands()), path.stat().st_size)
            if opened.mode[0] in "IF":  # Pillow would clip these to white or black
                raise ValueError(f"it has more than 8 bits a channel, Pillow's mode {opened.mode}")
            photo = ImageOps.exif_transpose(opened).convert("RGB")
    except ImageError as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # damaged bytes make Pillow raise anything: struct.error, SyntaxError, TypeError, ...
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a picture ({reason}); fix or remove it") from error
    if min(photo.size) < MIN_SIDE_PX:
        raise ValueError(f"{path} is {photo.width}x{photo.height} px; photographs need {MIN_SIDE_PX} px a side")
    return photo
