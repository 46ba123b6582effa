"""Picture files as a denoiser takes them: bands of rows in, bands of rows back into a file of the same kind."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin, MpoImagePlugin

from n2n_lightning.image_io.decoding import (
    as_images,
    check_photo,
    check_values,
    is_16_bit,
    load_npy,
    open_pillow,
    photo_alphas,
    png_header,
    read_photo,
)
from n2n_lightning.image_io.encoding import Metadata, check_holds, encode
from n2n_lightning.image_io.image_file import ORIENTATION, Array, ImageError, naming
from n2n_lightning.image_io.tiff import find_images, locate
from n2n_lightning.image_io.tiff_rewriting import TiffRewriter

X_RESOLUTION, XMP, ICC_PROFILE = 282, 700, 34675  # tags
INCH, CENTIMETRE = 2, 3
Write = Callable[[int, int, Array], None]  # group of images, first row, (images, rows, W, C)


class BandedImage(Protocol):
    """A picture file whose images are read as they are stored: not turned, alpha among their channels."""

    path: Path
    form: str  # a key of conversion.FORMATS
    count: int  # groups of images
    shape: tuple[int, int, int, int]  # (images, H, W, C) of a group
    dtype: np.dtype[Any]
    alphas: list[int]  # channels
    orientation: int  # EXIF's
    held_bytes: int  # memory that the file itself takes while it is read and written

    def read(self, group: int, top: int, bottom: int) -> Array:
        """Rows of a group's images: (images, rows, W, C)."""
        ...

    def copied(self, path: Path) -> Any:
        """A context in which another file like this one is written, all but its pixels the same: gives ``Write``."""
        ...

    def metadata(self) -> Metadata:
        """What another format may keep."""
        ...


@contextmanager
def open_banded(path: Path) -> Iterator[BandedImage]:
    """A file's images.

    Raises:
        ImageError: what is wrong, without the file's name. Damaged files make the decoders raise anything else.
    """
    if path.stat().st_size == 0:
        raise ImageError("is empty; remove it")
    picture: BandedImage
    with ExitStack() as opened:
        match path.suffix.lower():
            case ".npy":
                picture = NpyPicture(path)
            case ".tif" | ".tiff":
                logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said once, by ImageError
                picture = TiffPicture(opened.enter_context(tifffile.TiffFile(path, _multifile=False)), path)
            case _:
                picture = PhotoPicture(opened.enter_context(open_pillow(path)), path)
        check_values((picture.count, *picture.shape), picture.dtype)
        yield picture


class NpyPicture:
    """An array; read and written in place, a band at a time."""

    form, orientation, held_bytes = "npy", 1, 0

    def __init__(self, path: Path) -> None:
        self.path = path
        images = as_images(load_npy(path, "r"))
        self.count, self.shape, self.dtype = len(images), (1, *images.shape[1:]), images.dtype
        self.alphas: list[int] = []

    def read(self, group: int, top: int, bottom: int) -> Array:
        return np.array(as_images(load_npy(self.path, "r"))[group : group + 1, top:bottom])

    @contextmanager
    def copied(self, path: Path) -> Iterator[Write]:
        shutil.copyfile(self.path, path)
        yield writing_npy(path)

    def metadata(self) -> Metadata:
        return {}


def writing_npy(path: Path) -> Write:
    """Write into an array's file; mapped anew for each band, so that memory does not grow with what was touched."""

    def write(group: int, top: int, rows: Array) -> None:
        as_images(load_npy(path, "r+"))[group, top : top + rows.shape[1]] = rows[0]

    return write


class TiffPicture:
    """Pages of a TIFF file."""

    form = "tiff"

    def __init__(self, tiff: tifffile.TiffFile, path: Path) -> None:
        self.path = path
        self.parts = find_images(tiff)
        first = self.parts[0]
        if any((part.shape, part.alphas) != (first.shape, first.alphas) for part in self.parts):
            raise ImageError("holds images that are stored in different ways; give each a file of its own")
        self.count, self.shape = sum(len(part.groups) for part in self.parts), first.shape
        self.dtype, self.alphas, self.orientation = first.dtype, first.alphas, first.orientation
        self.held_bytes = 4 * first.segment_bytes  # decoded, waiting to be encoded, and their encodings

    def read(self, group: int, top: int, bottom: int) -> Array:
        part, number = locate(self.parts, group)
        return self.parts[part].read(number, top, bottom)

    @contextmanager
    def copied(self, path: Path) -> Iterator[Write]:
        shutil.copyfile(self.path, path)
        with tifffile.TiffFile(path, mode="r+", _multifile=False) as copy:
            yield naming(self.path)(TiffRewriter(copy, find_images(copy)).write)

    def metadata(self) -> Metadata:
        tags = self.parts[0].page.tags
        found: Metadata = {"icc_profile": tags.valueof(ICC_PROFILE), "xmp": tags.valueof(XMP)}
        resolution, unit = self.parts[0].page.resolution, self.parts[0].page.resolutionunit
        if X_RESOLUTION in tags and unit in (INCH, CENTIMETRE):
            found["dpi"] = tuple(round(value * (2.54 if unit == CENTIMETRE else 1), 4) for value in resolution)
        return found


class PhotoPicture:
    """A PNG, JPEG, WebP or BMP file: one image, in memory as a whole once it is asked for."""

    count = 1

    def __init__(self, image: Image.Image, path: Path) -> None:
        check_photo(image, path)
        self.image, self.path = image, path
        deep = is_16_bit(image, path)
        channels = png_header(path).channels if deep else len(image.getbands())
        self.shape = (1, image.height, image.width, channels)
        self.dtype = np.dtype(np.uint16 if deep else np.uint8)
        self.alphas = photo_alphas(channels)
        self.orientation = image.getexif().get(ORIENTATION, 1)
        self.held_bytes = 3 * image.height * image.width * channels * self.dtype.itemsize  # in, out and encoded
        self.form = "jpeg" if image.format == "MPO" else str(image.format).lower()
        self._pixels: Array | None = None

    def read(self, group: int, top: int, bottom: int) -> Array:
        if self._pixels is None:
            self._pixels = read_photo(self.image, self.path)
        return self._pixels[None, top:bottom]

    @contextmanager
    def copied(self, path: Path) -> Iterator[Write]:
        with naming(self.path):
            check_holds(self.form, self.dtype, self.shape[3], bool(self.alphas))
        pixels = np.empty(self.shape[1:], self.dtype)

        def write(group: int, top: int, rows: Array) -> None:
            pixels[top : top + rows.shape[1]] = rows[0]

        yield write
        png = self.path.read_bytes() if self.form == "png" else None
        jpeg = isinstance(self.image, (JpegImagePlugin.JpegImageFile, MpoImagePlugin.MpoImageFile))
        chroma = JpegImagePlugin.get_sampling(self.image) if jpeg else -1
        with naming(self.path):
            path.write_bytes(encode(pixels, self.form, self.metadata(), png=png, subsampling=chroma))

    def metadata(self) -> Metadata:
        return {key: self.image.info.get(key) for key in ("exif", "icc_profile", "xmp", "dpi", "comment")}
