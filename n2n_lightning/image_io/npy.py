"""NPY files: arrays, mapped and read a band of rows at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np

from n2n_lightning.image_io.image_file import Array, ImageError, ImageReader, Metadata

MAX_NPY_CHANNELS = 32
MAX_NPY_HEADER = 1024  # characters; an image's header has 128, and numpy takes seconds to refuse a long one
_npy_header = threading.Lock()  # numpy parses it by ast, which two threads break in Python 3.11 (python/cpython#106905)


class NpyReader(ImageReader):
    """Reads an array. It is mapped anew for each band, so that memory does not grow with the rows that were read."""

    form, orientation, held_bytes = "npy", 1, 0

    def __init__(self, path: Path) -> None:
        self.path = path
        array = load_npy(path, "r")
        images = as_images(array)
        self.count, self.shape, self.dtype = len(images), (1, *images.shape[1:]), images.dtype
        self.offset = array.offset if array.flags.c_contiguous else None
        self.alphas: list[int] = []
        self.image_axes = (("?", self.count),) if self.count > 1 else ()

    def decode(self, group: int, top: int, bottom: int) -> Array:
        return np.array(as_images(load_npy(self.path, "r"))[group : group + 1, top:bottom])

    def metadata(self) -> Metadata:
        return {}


def load_npy(path: Path, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
    """Map the array of a file; raise where the file is shorter than its header says."""
    with _npy_header:
        array = np.load(path, mmap_mode=mode, allow_pickle=False, max_header_size=MAX_NPY_HEADER)
    if not isinstance(array, np.memmap):
        raise ImageError("is an archive; save one array as NPY")
    return array


def as_images(array: Array) -> Array:
    """View (H, W), (H, W, C), (N, H, W) or (N, H, W, C) as (N, H, W, C), without a copy."""
    if array.ndim == 2:
        return array[None, ..., None]
    if array.ndim == 3:
        has_channels = array.shape[2] < min(*array.shape[:2], MAX_NPY_CHANNELS + 1)
        return array[None] if has_channels else array[..., None]
    if array.ndim != 4:
        raise ImageError(f"has {array.ndim} axes; save it as (H, W), (H, W, C), (N, H, W) or (N, H, W, C)")
    return array
