"""Noisy pairs of 32x32 px that are point-sampled from any folder of photographs; ``data=photos``."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from n2n_lightning.data.pairs import STAGES, CellPairs, PairSource, Stage, Targets, TensorPairs, check_at_least
from n2n_lightning.data.photo_crops import PART_PAIRS, ArrayKind, ByteArray, PhotoArray
from n2n_lightning.image_io.listing import is_broken_link, list_images
from n2n_lightning.image_io.stack import cached, in_threads
from n2n_lightning.system.atomic import atomic_write, read_json
from n2n_lightning.system.lock import exclusive_build
from n2n_lightning.system.workers import worker_processes

PHOTO_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
BUNDLED = {"train": ("astronaut.png", "coffee.png", "rocket.jpg"), "val": ("chelsea.png", "motorcycle_left.png")}
# of fixed training pairs, by their targets
CACHE_NAMES: dict[Targets, ArrayKind] = {"noisy": "pairs", "clean": "supervised"}
STALE_SECONDS = 3600.0  # a file that is being built changes all the time
RECIPE_VERSION = 1  # part of the cache's key: raise it with any change to the pixels


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
        kind: ArrayKind = "val" if stage == "val" else "cells" if self.draws == "fresh" else CACHE_NAMES[self.targets]
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

    def _build(self, stage: Stage, kind: ArrayKind, path: Path) -> None:
        """Write the array of ``kind`` to ``path`` on all cores."""
        from joblib import cpu_count  # respects the limits of containers

        photographs, count = tuple(self.photographs(stage)), self.pairs[stage]
        for part in path.parent.glob(f"{path.name}.*.part"):  # left by processes that were killed
            if part.stat().st_mtime < time.time() - STALE_SECONDS:
                part.unlink(missing_ok=True)
        with cached(path) as file:
            array = PhotoArray(Path(file.name), kind, count, photographs, (self.seed, int(stage == "val")))
            array.create()
            title = f"building {count} {kind} from {len(photographs)} photographs"
            cores = cpu_count()
            workers = min(cores, count // PART_PAIRS)
            if workers > 1:
                with worker_processes(workers) as call:
                    in_threads(partial(call, array.fill), array.parts, title, workers)
            else:  # done before workers would have started
                in_threads(array.fill, array.parts, title, cores)


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


def list_photographs(folder: Path) -> list[Path]:
    """Return every picture below ``folder``, sorted."""
    found = list_images(folder, "a folder of photographs", PHOTO_SUFFIXES)
    broken = [str(path) for path in found if is_broken_link(path)]
    if broken:
        raise ValueError(f"{', '.join(broken)} cannot be read, the link leads nowhere; fix or remove it")
    return found


def bundled_folder() -> Path:
    """Return the folder of scikit-image's pictures, without importing scikit-image."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None, "scikit-image is a dependency"
    return Path(spec.origin).parent / "data"
