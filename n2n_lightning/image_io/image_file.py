"""What the readers of picture files share: the images of a file, what is wrong with one, alpha and orientation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAX_IMAGE_PX = 10**9  # one image at a time is in memory
BOMB_BYTES, BOMB_RATIO = 2**26, 100  # decoded, and times the file's size: noise does not let itself be packed so well
ORIENTATION = 274  # the tag's number, in EXIF and TIFF alike
Array = npt.NDArray[Any]


class ImageError(ValueError):
    """A picture file that cannot be used; the message names it."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the message of an ImageError begin with the file's name."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error


class ImageFile(NamedTuple):
    """The images of one file."""

    shape: tuple[int, int, int, int]  # (N, H, W, C)
    dtype: np.dtype[Any]  # with the file's byte order
    offset: int | None  # in bytes, where the values begin that lie in the file as ``shape`` says; None when they do not
    images: Iterator[Array]  # (H, W, C) each, in order


def check_size(width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PX:
        raise ImageError(f"has images of {width}x{height} px, more than a gigapixel; cut them up")


def check_packing(decoded: int, stored: int) -> None:
    """Refuse a decompression bomb: a small file that would fill the memory, or claims that it would.

    Args:
        decoded: bytes of the pixels.
        stored: bytes of the file.
    """
    if decoded > max(BOMB_BYTES, BOMB_RATIO * stored):
        raise ImageError(
            f"would grow from {stored} bytes to {decoded / 1e6:.0f} MB, more than {BOMB_RATIO} times as much, which no "
            "noisy picture does; remove it, or save it uncompressed"
        )


def without_alpha(pixels: Array, alphas: Sequence[int]) -> Array:
    """(..., C) -> the same less the channels ``alphas``, once every pixel has been seen to be opaque."""
    opaque = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    if (pixels[..., alphas] != opaque).any():
        raise ImageError("has transparent pixels; save it without an alpha channel")
    return np.delete(pixels, alphas, axis=-1)


def upright(pixels: Array, orientation: int) -> Array:
    """(H, W, C) -> turned as EXIF's orientation says, where 5 to 8 swap H and W."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
