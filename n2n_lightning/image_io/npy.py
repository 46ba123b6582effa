"""NPY files: arrays, mapped and read a band of rows at a time."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np

from n2n_lightning.image_io.axes import image_axes_order, name_dimensions
from n2n_lightning.image_io.image_file import Array, ImageError, ImageReader, Metadata

MAX_NPY_CHANNELS = 32
MAX_NPY_HEADER = 1024  # characters; an image's header has 128, and numpy takes seconds to refuse a long one
_npy_header = threading.Lock()  # numpy parses it by ast, which two threads break in Python 3.11 (python/cpython#106905)


class NpyReader(ImageReader):
    """Reads an array. It is mapped anew for each band, so that memory does not grow with the rows that were read."""

    form, orientation, held_bytes = "npy", 1, 0

    def __init__(self, path: Path, axes: str | None = None) -> None:
        self.path, self.given_axes = path, axes
        array = load_npy(path, "r")
        images = as_images(array, axes)
        counts = images.shape[:-3]
        self.count, self.shape, self.dtype = math.prod(counts), (1, *images.shape[-3:]), images.dtype
        named = name_dimensions(array.shape, axes) if axes else guess_axes(array.shape)
        self.axes = "".join(letter for letter, _ in named)
        self.image_axes = tuple((letter, n) for letter, n in named if letter not in "CYX" and n > 1)
        in_order = image_axes_order(self.axes) == list(range(len(named)))
        self.offset = array.offset if array.flags.c_contiguous and in_order else None
        self.alphas: list[int] = []

    def decode(self, group: int, top: int, bottom: int) -> Array:
        return np.array(one_image(as_images(load_npy(self.path, "r"), self.given_axes), group)[None, top:bottom])

    def metadata(self) -> Metadata:
        return {}


def load_npy(path: Path, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
    """Map the array of a file; raise where the file is shorter than its header says."""
    with _npy_header:
        array = np.load(path, mmap_mode=mode, allow_pickle=False, max_header_size=MAX_NPY_HEADER)
    if not isinstance(array, np.memmap):
        raise ImageError("is an archive; save one array as NPY")
    return array


def guess_axes(shape: tuple[int, ...]) -> list[tuple[str, int]]:
    """Return letter and length of each dimension of (H, W), (H, W, C), (N, H, W) or (N, H, W, C)."""
    axes = {2: "YX", 3: "?YX", 4: "?YXC"}.get(len(shape))
    if axes is None:
        raise ImageError(
            f"has {len(shape)} axes; save it as (H, W), (H, W, C), (N, H, W) or (N, H, W, C), or name them: "
            "data.axes=TZCYX (predict: --axes TZCYX)"
        )
    if len(shape) == 3 and shape[2] < min(*shape[:2], MAX_NPY_CHANNELS + 1):
        axes = "YXC"
    return list(zip(axes, shape, strict=True))


def as_images(array: Array, axes: str | None = None) -> Array:
    """View an array as (N, H, W, C), or as (N, M, H, W, C) if two axes count images, without a copy.

    ``axes`` are the letters of its dimensions; None guesses them.
    """
    named = name_dimensions(array.shape, axes) if axes else guess_axes(array.shape)
    letters = [letter for letter, _ in named]
    images = array.reshape([n for _, n in named]).transpose(image_axes_order(letters))
    images = images if "C" in letters else images[..., None]
    return images if images.ndim > 3 else images[None]


def one_image(images: Array, number: int) -> Array:
    """Return a view of one image of ``as_images``: (H, W, C)."""
    view: Array = images[np.unravel_index(number, images.shape[:-3])]
    return view
