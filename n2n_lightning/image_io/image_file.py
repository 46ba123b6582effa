"""What all readers of image files share: the reader's interface, errors, limits of size, alpha and orientation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_IMAGE_PX = 10**9  # one image at a time is in memory
BOMB_BYTES, BOMB_RATIO = 2**26, 100  # decoded bytes, and decoded bytes per byte of the file: noise compresses less
ORIENTATION_TAG = 274  # the same number in EXIF and in TIFF
SAMPLED_GROUPS, SAMPLED_BANDS, SAMPLED_ROWS = 4, 8, 32  # of an alpha channel, to tell opacity from an image
MIN_OPACITY_SHARE = 0.5  # of its values are 0 or opaque in an alpha channel
MAX_REASON_CHARS = 300  # of a library's message
Array = npt.NDArray[Any]
Metadata = dict[str, Any]  # by Pillow's names: exif, icc_profile, xmp (bytes), dpi (a pair), comment


class ImageError(ValueError):
    """An image file that cannot be used. The message names the file."""


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Put the file's name in front of the message of an ImageError."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error


@contextmanager
def image_errors(path: Path) -> Iterator[None]:
    """Turn every exception into an ImageError that names the file."""
    try:
        with name_file(path):
            yield
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make decoders raise anything: struct.error, IndexError, PngError, ...
        reason = " ".join(str(error).split())[:MAX_REASON_CHARS]
        raise ImageError(f"{path} cannot be read ({type(error).__name__}: {reason}); fix or remove it") from error


class ImageReader(ABC):
    """Reads the images of a file, in groups of images that are stored together.

    All images have one upright shape and one type. A file may store them in several ways: then ``parts`` has a reader
    for each, and what is said here of a group (``shape``, ``alphas``, ``orientation``) is true of the first part's.
    """

    path: Path  # for messages
    form: str  # the file's format, a key of FORMAT_SUFFIXES
    count: int  # groups
    shape: tuple[int, int, int, int]  # (images, H, W, C) of a group as stored: not turned, alpha among the channels
    dtype: np.dtype[Any]  # with the file's byte order
    alphas: list[int]  # indices of the channels that are alpha
    orientation: int  # EXIF's number, 1 to 8; 1 is upright
    offset: int | None  # byte where the values begin if they lie in the file as ``upright_images`` gives them
    held_bytes: int  # memory that the file itself takes while it is read and written
    image_axes: tuple[
        tuple[str, int], ...
    ]  # of ``upright_images``, slowest first: axis (T, Z, or ? if unknown), length
    axes: str  # letter of each dimension of the file, slowest first: T, Z, C, Y, X, or ? if unknown
    given_axes: str | None = None  # the letters that the user gave, which win over the file's

    @property
    def parts(self) -> Sequence[ImageReader]:
        """Readers of the ways in which the file stores images."""
        return [self]

    @abstractmethod
    def decode(self, group: int, top: int, bottom: int) -> Array:
        """Return rows ``top`` to ``bottom`` of a group's images as they are stored: (images, rows, W, C).

        Damaged files make it raise any exception.
        """

    @abstractmethod
    def metadata(self) -> Metadata:
        """Return what another format may keep."""

    def read(self, group: int, top: int, bottom: int) -> Array:
        """Decode rows; raise an ImageError that names the file where that is not possible."""
        with image_errors(self.path):
            return self.decode(group, top, bottom)

    @property
    def colours(self) -> list[int]:
        """Indices of the channels that are not alpha."""
        return [channel for channel in range(self.shape[3]) if channel not in self.alphas]

    @property
    def colour_shape(self) -> tuple[int, int, int, int]:
        """(images, H, W, C) of a group without alpha."""
        return (*self.shape[:3], len(self.colours))

    @property
    def upright_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of ``upright_images``."""
        height, width = turned(*self.shape[1:3], self.orientation)
        return sum(part.count * part.shape[0] for part in self.parts), height, width, len(self.colours)

    def upright_images(self) -> Iterator[Array]:
        """Yield each image as (H, W, C), upright and without alpha; raise an ImageError where it is transparent."""
        orientations = [part.orientation for part in self.parts]
        with image_errors(self.path):  # does not see what goes wrong with whoever takes the images
            for part, orientation in zip(self.parts, orientations, strict=True):
                for group in range(part.count):
                    for image in part.decode(group, 0, part.shape[1]):
                        yield upright(without_alpha(image, part.alphas, part.axes), orientation)

    def check_uniform(self) -> None:
        """Refuse a file whose images are stored in different ways."""
        if any((part.shape, part.alphas) != (self.shape, self.alphas) for part in self.parts):
            raise ImageError("holds images that are stored in different ways; give each a file of its own")


def check_values(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuse an image without pixels, or with pixels of a type that cannot be used."""
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageError(f"has pixels of type {dtype.name}; convert them to integers or floats of 8 to 64 bits")
    if 0 in shape:
        raise ImageError(f"holds no pixels, its shape is {tuple(shape)}; remove it")


def check_size(width: int, height: int) -> None:
    """Refuse an image that is too large to be in memory as a whole."""
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
            "noisy image does; remove it, or save it uncompressed"
        )


def without_alpha(pixels: Array, alphas: Sequence[int], axes: str) -> Array:
    """Return (..., C) without the channels ``alphas``; refuse pixels that are not opaque.

    ``axes`` are the letters of the file's dimensions, for the message.
    """
    if not alphas:
        return pixels
    if (pixels[..., alphas] != opaque_value(pixels.dtype)).any():
        axes = axes.replace("?", "T", 1)
        frames = f", data.axes={axes.replace('C', 'T')} if its channels are frames" if axes[0] == "C" else ""
        raise ImageError(
            f"has transparent pixels; save it without an alpha channel, or set data.axes={axes} if channel "
            f"{alphas[0] + 1} is no opacity but part of the image{frames}"
        )
    return np.delete(pixels, alphas, axis=-1)


def opaque_value(dtype: np.dtype[Any]) -> int:
    """Return the value of an alpha channel where nothing shines through."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def opacity_fault(image: ImageReader) -> str | None:
    """Say so where a channel is marked as opacity but varies as an image does: few of its values are 0 or opaque.

    Programs mark the last of four channels so by themselves. A sample of the rows is read.
    """
    if not image.alphas:
        return None
    height, sampled = image.shape[1], []
    for group in np.unique(np.linspace(0, image.count - 1, SAMPLED_GROUPS).astype(int)).tolist():
        for top in np.unique(np.linspace(0, max(height - SAMPLED_ROWS, 0), SAMPLED_BANDS).astype(int)).tolist():
            band = image.read(group, top, min(top + SAMPLED_ROWS, height))
            sampled.append(band[..., image.alphas].reshape(-1, len(image.alphas)))
    values = np.concatenate(sampled)
    extremes = np.isin(values, (0, opaque_value(image.dtype))).mean(axis=0)
    varies = (values != values[0]).any(axis=0) & (extremes < MIN_OPACITY_SHARE)
    if not varies.any():
        return None
    channel, axes = image.alphas[int(varies.argmax())] + 1, image.axes.replace("?", "T", 1)
    return (
        f"has a channel {channel} that is marked as opacity but varies like an image, and opacity is not denoised; "
        f"give --axes {axes} to denoise it as a channel, or save the file without it"
    )


def turned(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return height and width of an image once it is upright: orientations 5 to 8 swap them."""
    return (width, height) if 5 <= orientation <= 8 else (height, width)


def upright(pixels: Array, orientation: int) -> Array:
    """Turn (H, W, C) upright, as EXIF's orientation says; 5 to 8 swap H and W."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
