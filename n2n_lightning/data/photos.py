"""Noisy pairs of 32x32 px that are point-sampled from any folder of photographs; ``data=photos``."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from n2n_lightning.data.pairs import STAGES, CellPairs, PairSource, Stage, Targets, TensorPairs, check_at_least
from n2n_lightning.image_io.image_file import ImageError, check_packing
from n2n_lightning.image_io.listing import is_broken_link, list_files
from n2n_lightning.image_io.stack import cached, in_threads
from n2n_lightning.system.atomic import atomic_write, read_json
from n2n_lightning.system.folders import suggest_path
from n2n_lightning.system.lock import exclusive_build

PHOTO_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PHOTO_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # named, because some of Pillow's others run programs
BUNDLED = {"train": ("astronaut.png", "coffee.png", "rocket.jpg"), "val": ("chelsea.png", "motorcycle_left.png")}
CACHE_NAMES = {"noisy": "pairs", "clean": "supervised"}  # of fixed training pairs, by their targets
MIN_SIDE_PX, CELL_PX, IMAGE_PX = 160, 8, 32
CONTRAST = 1.1
STALE_SECONDS = 3600.0  # a file that is being built changes all the time
RECIPE_VERSION = 1  # part of the cache's key: raise it with any change to the pixels
ByteArray = npt.NDArray[np.uint8]


@dataclass(kw_only=True)
class PhotoData:
    """Pairs made from photographs, a stand-in for the course's files.

    Each image is a random square crop of a photograph, resized to 256x256 and split into 32x32 cells of 8x8 px. A clean
    pixel is the mean of its cell, a noisy pixel is one pixel of the cell, drawn at random. A training pair is two
    independent draws; a validation pair is one draw and the clean image.

    Args:
        root: folder of photographs (at least 160 px a side; sub-folders are searched); None takes the five that
            scikit-image bundles.
        val_root: folder of the validation photographs; None holds back one in five of ``root``.
        train_pairs: number of training pairs; the photographs take turns.
        val_pairs: number of validation pairs.
        draws: "fixed", the same two draws in every epoch, as in the course's files (6 KiB an image on disk), or
            "fresh", new draws from the stored cells (192 KiB an image on disk); both are memory-mapped.
        targets: "noisy", the second draw, or "clean", the cells' means, to compare with.
        seed: seed of crops and fixed draws.
        cache_dir: folder where the finished arrays are kept.
    """

    peak, sample_type = 255.0, "uint8"

    root: str | None = None
    val_root: str | None = None
    train_pairs: int = 2048
    val_pairs: int = 400
    draws: Literal["fixed", "fresh"] = "fixed"
    targets: Targets = "noisy"
    seed: int = 0
    cache_dir: str = "outputs/cache"

    def __post_init__(self) -> None:
        check_at_least(1, 1000, train_pairs=self.train_pairs, val_pairs=self.val_pairs)
        check_at_least(0, 0, seed=self.seed)
        if self.val_root is not None and self.root is None:
            raise ValueError(f"val_root needs root, got val_root={self.val_root!r} alone; set data.root=FOLDER too")
        self.pairs: dict[Stage, int] = {"train": self.train_pairs, "val": self.val_pairs}

    def load(self, stage: Stage) -> PairSource:
        """Build the pairs of ``stage``, or map them from the cache; a ValueError names what cannot be used."""
        kind = "val" if stage == "val" else "cells" if self.draws == "fresh" else CACHE_NAMES[self.targets]
        path = Path(self.cache_dir) / f"photos-{kind}-{self.pairs[stage]}-{self.key(stage)}.npy"
        stored = map_array(path)
        if stored is None:
            with exclusive_build(path):  # the jobs of a sweep may all come at once
                if map_array(path) is None:
                    self._build(stage, kind, path)
            stored = np.load(path, mmap_mode="c")
        if kind == "cells":
            return CellPairs(torch.from_numpy(stored), self.targets)
        first, second = torch.from_numpy(stored)
        return TensorPairs(first, None, second) if stage == "val" else TensorPairs(first, second, targets=self.targets)

    def fingerprint(self) -> str:
        """Return a hash of the photographs' bytes and of the recipe, for both stages."""
        return f"{self.key('train')}-{self.key('val')}"

    def key(self, stage: Stage) -> str:
        """Return a hash of all that the pairs of ``stage`` depend on."""
        recipe = repr((RECIPE_VERSION, stage, self.pairs[stage], self.seed)).encode()
        return hashlib.sha256(b"".join([recipe, *self.hashes[stage]])).hexdigest()[:12]

    @cached_property
    def hashes(self) -> dict[Stage, list[bytes]]:
        """Hash of each photograph's bytes; ValueError if one is used for both training and validation."""
        photos = {stage: self.photographs(stage) for stage in STAGES}
        hashes = {stage: hash_files(photos[stage], Path(self.cache_dir)) for stage in STAGES}
        for path, digest in zip(photos["val"], hashes["val"], strict=True):
            if digest in hashes["train"]:
                raise ValueError(f"{path} is among the training photographs too; take it out of data.root")
        return hashes

    def photographs(self, stage: Stage) -> list[Path]:
        """Return the photographs of ``stage``; the two stages share none."""
        if self.root is None:
            return [bundled_folder() / name for name in BUNDLED[stage]]
        if self.val_root is not None:
            return list_photographs(Path(self.root if stage == "train" else self.val_root))
        found = list_photographs(Path(self.root))
        if len(found) < 2:
            raise ValueError(f"{self.root} holds one photograph; training and validation need one each")
        order = np.random.default_rng(self.seed).permutation(len(found))
        held_back = {int(i) for i in order[: max(len(found) // 5, 1)]}
        return [path for i, path in enumerate(found) if (i in held_back) == (stage == "val")]

    def _build(self, stage: Stage, kind: str, path: Path) -> None:
        """Write the array of ``kind`` to ``path``: (2, N, 3, 32, 32) uint8, or (N, 32, 32, 64, 3) for "cells"."""
        photographs, count = self.photographs(stage), self.pairs[stage]
        cells_shape = (count, IMAGE_PX, IMAGE_PX, CELL_PX**2, 3)
        shape = cells_shape if kind == "cells" else (2, count, 3, IMAGE_PX, IMAGE_PX)

        def fill(number: int) -> None:
            photo = read_photograph(photographs[number])
            for index in range(number, count, len(photographs)):
                rng = np.random.default_rng([self.seed, stage == "val", index])
                cells = render_cells(photo, rng)
                if kind == "cells":
                    output[index] = cells
                else:
                    output[0, index] = sample_cells(cells, rng)
                    output[1, index] = sample_cells(cells, rng) if kind == "pairs" else box_mean(cells)

        for part in path.parent.glob(f"{path.name}.*.part"):  # left by processes that were killed
            if part.stat().st_mtime < time.time() - STALE_SECONDS:
                part.unlink(missing_ok=True)
        with cached(path) as file:
            output = np.lib.format.open_memmap(file.name, mode="w+", dtype=np.uint8, shape=shape)
            title = f"building {count} {kind} from {len(photographs)} photographs"
            in_threads(fill, min(len(photographs), count), title)
            output.flush()


def hash_files(paths: Sequence[Path], cache: Path) -> list[bytes]:
    """Return the SHA-256 of each file's bytes. The cache keeps them; a file is read again when it has changed."""
    stats = [path.stat() for path in paths]
    keys = [repr((str(p.absolute()), stat.st_size, stat.st_mtime_ns)) for p, stat in zip(paths, stats, strict=True)]
    names = repr([str(path.absolute()) for path in paths]).encode()
    record = cache / f"photos-hashes-{hashlib.sha256(names).hexdigest()[:12]}.json"
    known = read_json(record)
    hashes = {
        key: known.get(key) or hashlib.sha256(path.read_bytes()).hexdigest()
        for key, path in zip(keys, paths, strict=True)
    }
    if hashes.keys() != known.keys():
        with suppress(OSError), atomic_write(record, shared=True) as file:  # it only saves time
            file.write(json.dumps(hashes).encode())
    return [bytes.fromhex(digest) for digest in hashes.values()]


def map_array(path: Path) -> ByteArray | None:
    """Map a stored array, which all processes share in memory; return None if there is none, or it is damaged."""
    try:
        stored: ByteArray = np.load(path, mmap_mode="c")  # copy-on-write, because torch wants a writable array
    except (OSError, ValueError, EOFError):
        return None
    return stored


def render_cells(photo: Image.Image, rng: np.random.Generator) -> ByteArray:
    """Return a random crop of an RGB photograph as cells: (32, 32, 64, 3) uint8, the 64 pixels of each cell."""
    width, height = photo.size
    side = int(rng.integers(MIN_SIDE_PX, min(width, height) + 1))
    left, top = (int(rng.integers(0, room - side + 1)) for room in (width, height))
    edge = IMAGE_PX * CELL_PX
    crop = photo.resize((edge, edge), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = np.asarray(crop, dtype=np.float32)
    mean = pixels.mean()
    pixels = np.rint(np.clip(mean + CONTRAST * (pixels - mean), 0, 255)).astype(np.uint8)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    cells = pixels.reshape(IMAGE_PX, CELL_PX, IMAGE_PX, CELL_PX, 3).transpose(0, 2, 1, 3, 4)
    flat: ByteArray = cells.reshape(IMAGE_PX, IMAGE_PX, CELL_PX * CELL_PX, 3)
    return flat


def sample_cells(cells: ByteArray, rng: np.random.Generator) -> ByteArray:
    """Draw one pixel of each cell, as ``pixelation.draw_cell_pixels`` does: (H, W, K, 3) uint8 -> (3, H, W) uint8."""
    choice = rng.integers(0, cells.shape[2], size=(*cells.shape[:2], 1, 1))
    noisy: ByteArray = np.take_along_axis(cells, choice, axis=2)[:, :, 0].transpose(2, 0, 1)
    return noisy


def box_mean(cells: ByteArray) -> ByteArray:
    """Return the rounded mean of each cell: (H, W, K, 3) uint8 -> (3, H, W) uint8."""
    clean: ByteArray = np.rint(cells.mean(axis=2, dtype=np.float32)).astype(np.uint8).transpose(2, 0, 1)
    return clean


def list_photographs(folder: Path) -> list[Path]:
    """Return every picture below ``folder``, sorted."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder{suggest_path(folder)}; give a folder of photographs")
    found = list_files(folder, PHOTO_SUFFIXES)
    broken = [str(path) for path in found if is_broken_link(path)]
    if broken:
        raise ValueError(f"{', '.join(broken)} cannot be read, the link leads nowhere; fix or remove it")
    if not found:
        raise ValueError(f"{folder} holds no photographs ({' '.join(PHOTO_SUFFIXES)}); give a folder that does")
    return found


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


def bundled_folder() -> Path:
    """Return the folder of scikit-image's pictures, without importing scikit-image."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None, "scikit-image is a dependency"
    return Path(spec.origin).parent / "data"
