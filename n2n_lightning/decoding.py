"""Picture files, format by format: the images that a file holds, or what is wrong with it."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
from tifffile import PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffFrame, TiffPage, TiffPageSeries

PILLOW_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # named, because some of Pillow's others run programs
PILLOW_MODES = ("L", "LA", "RGB", "RGBA")
MAX_IMAGE_PX = 10**9  # one image at a time is in memory
MAX_COPY_BYTES = 10**11  # a compressed file of a few bytes can claim any size
MAX_NPY_CHANNELS = 32
ORIENTATION = 274  # the tag's number, in EXIF and TIFF alike
REDUCED_OR_MASK = 0b101  # TIFF's NewSubfileType
ALPHA = (1, 2)  # TIFF's ExtraSamples that are opacity
JPEG_IN_TIFF = (6, 7)  # compressions that tifffile decodes from YCbCr to RGB
Array = npt.NDArray[Any]
_pillow_limit = threading.Lock()
_npy_header = threading.Lock()  # numpy parses it by ast, which two threads break in Python 3.11 (python/cpython#106905)


class ImageError(ValueError):
    """A picture file that cannot be used; the message names it."""


class Contents(NamedTuple):
    """The images of one file."""

    shape: tuple[int, int, int, int]  # (N, H, W, C)
    dtype: np.dtype[Any]  # with the file's byte order
    offset: int | None  # in bytes, where the values begin that lie in the file as ``shape`` says; None when they do not
    images: Iterator[Array]  # (H, W, C) each, in order


def open_contents(path: Path, opened: ExitStack) -> Contents:
    """Look into a file; what ``images`` need open stays so until ``opened`` is closed.

    Raises:
        ImageError: what is wrong, without the file's name. Damaged files make the decoders raise anything else.
    """
    stored = path.stat().st_size
    if stored == 0:
        raise ImageError("is empty; remove it")
    match path.suffix.lower():
        case ".npy":
            contents = open_npy(path)
        case ".tif" | ".tiff":
            logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said once, by ImageError
            contents = open_tiff(opened.enter_context(TiffFile(path)))
        case _:
            contents = read_photo(path)
    shape, dtype, offset, _ = contents
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageError(f"has pixels of type {dtype.name}; convert them to integers or floats of 8 to 64 bits")
    if 0 in shape:
        raise ImageError(f"holds no pixels, its shape is {shape}; remove it")
    size = math.prod(shape) * dtype.itemsize
    if offset is None and size > MAX_COPY_BYTES:
        raise ImageError(f"would take {size / 1e9:.0f} GB decoded, more than 100; save it uncompressed, as TIFF or NPY")
    if offset is not None and stored < offset + size:
        raise ImageError(f"is cut off, {offset + size - stored} bytes of pixels are missing; mend or remove it")
    return contents


def open_npy(path: Path) -> Contents:
    with _npy_header:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # raises where the file is shorter than it claims
    if not isinstance(array, np.memmap):
        raise ImageError("is an archive; save one array as NPY")
    pixels: Array = array
    if array.ndim == 2:
        pixels = array[None, ..., None]
    elif array.ndim == 3:
        channels_last = array.shape[2] < min(*array.shape[:2], MAX_NPY_CHANNELS + 1)
        pixels = array[None] if channels_last else array[..., None]
    elif array.ndim != 4:
        raise ImageError(f"has {array.ndim} axes; save it as (H, W), (H, W, C), (N, H, W) or (N, H, W, C)")
    images, height, width, channels = pixels.shape
    offset = array.offset if array.flags.c_contiguous else None
    return Contents((images, height, width, channels), array.dtype, offset, iter(pixels))


def read_photo(path: Path) -> Contents:
    """The image of a PNG, JPEG, WebP or BMP file."""
    with open_pillow(path) as image:
        check_size(*image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG, whose other images are previews or gain maps
            raise ImageError(f"holds {frames} frames; give single images")
        if "transparency" in image.info:
            raise ImageError("has transparent pixels; save it without transparency")
        if image.format == "PNG" and png_depth(path) == 16:  # Pillow cuts these down to 8 bits a channel
            pixels: Array = imagecodecs.png_decode(path.read_bytes())
        elif image.mode in PILLOW_MODES:
            pixels = np.asarray(image)
        else:
            raise ImageError(f"has Pillow's mode {image.mode}; convert it to RGB or grey")
        orientation = image.getexif().get(ORIENTATION, 1)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] in (2, 4):
        pixels = without_alpha(pixels, [pixels.shape[2] - 1], axis=2)
    pixels = upright(pixels, orientation)
    height, width, channels = pixels.shape
    return Contents((1, height, width, channels), pixels.dtype, None, iter([pixels]))


def open_pillow(path: Path) -> Image.Image:
    """Read the header, without Pillow's limit of pixels: a global, which warns and raises long before ours."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=PILLOW_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def png_depth(path: Path) -> int:
    """Bits a channel."""
    with path.open("rb") as file:
        return file.read(25)[24]  # after the signature, the head of IHDR, width and height


def check_size(width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PX:
        raise ImageError(f"has images of {width}x{height} px, more than a gigapixel; cut them up")


def without_alpha(pixels: Array, alphas: Sequence[int], *, axis: int) -> Array:
    """Drop the channels ``alphas``, once every pixel has been seen to be opaque."""
    opaque = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    if (np.take(pixels, alphas, axis) != opaque).any():
        raise ImageError("has transparent pixels; save it without an alpha channel")
    return np.delete(pixels, alphas, axis)


def upright(pixels: Array, orientation: int) -> Array:
    """(H, W, C) -> turned as EXIF's orientation says, where 5 to 8 swap H and W."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def open_tiff(tiff: TiffFile) -> Contents:
    """Every page that is no thumbnail, mask or lower level of a pyramid."""
    if not tiff.series:
        raise ImageError("holds no images; mend or remove it")
    check_pages(tiff)
    full = [s for s in tiff.series if not (s.keyframe.is_subifd or s.keyframe.subfiletype & REDUCED_OR_MASK)]
    parts = [TiffImages(tiff, series).contents() for series in full or tiff.series]
    kinds = dict.fromkeys(f"{'x'.join(map(str, part.shape[1:]))} {part.dtype.name}" for part in parts)
    if len(kinds) > 1:
        raise ImageError(f"holds images of several sizes or types ({', '.join(kinds)}); give each a file of its own")
    if len(parts) == 1:
        return parts[0]
    count, (_, height, width, channels) = sum(part.shape[0] for part in parts), parts[0].shape
    images = itertools.chain.from_iterable(part.images for part in parts)
    return Contents((count, height, width, channels), parts[0].dtype, None, images)


def check_pages(tiff: TiffFile) -> None:
    """See that the chain of pages has an end: of a file that was cut off tifffile gives the pages before the cut."""
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)  # zero in the last page
    misfit = tiff.is_imagej and tiff.series[0].kind == "generic"  # ImageJ's header counts images that are not there
    if misfit or len(pointer) < tiff.tiff.offsetsize or any(pointer):
        raise ImageError(f"is cut off after page {len(tiff.pages)}; mend or remove it")


class TiffImages:
    """Pages of one kind as images: axes S and C are channels; axes other than these, Y and X count images.

    Args:
        tiff: open for as long as images are read.
        series: the pages, as tifffile groups them.
    """

    def __init__(self, tiff: TiffFile, series: TiffPageSeries) -> None:
        self.tiff, self.series, self.page = tiff, series, series.keyframe
        if 0 in series.shape:
            raise ImageError(f"holds no pixels, its shape is {series.shape}; remove it")
        self._check_colours()
        kept = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
        self.axes, self.sizes = [axis for axis, _ in kept], [n for _, n in kept]
        # axes[:inner] count pages, axes[inner:] lie within a page
        starts = (i for i in range(len(kept)) if math.prod(self.sizes[i:]) == self.page.size)
        self.inner = next(starts, len(kept))
        if not {"Y", "X"} <= set(self.axes[self.inner :]):
            raise ImageError(f"has axes {series.axes}; save it with Y and X within a page")
        self.page_shape = tuple(self.sizes[self.inner :])
        self.orientation = self.page.tags.valueof(ORIENTATION, 1)
        extras = self.page.extrasamples
        self.alphas = [self.page.samplesperpixel - len(extras) + i for i, kind in enumerate(extras) if kind in ALPHA]
        self.alpha_axis = -1 if self.page.planarconfig == PLANARCONFIG.CONTIG else -len(self.page_shape)
        self.sizes[self.alpha_axis] -= len(self.alphas)

    def contents(self) -> Contents:
        order = channels_last(self.axes)
        as_it_is = order == sorted(order) and self.orientation == 1 and not self.alphas
        shape = self._image_shape()
        count = math.prod(self.sizes) // math.prod(shape)
        height, width, channels = (shape[1], shape[0], shape[2]) if 5 <= self.orientation <= 8 else shape
        dtype = np.dtype(self.page.dtype).newbyteorder(self.tiff.byteorder)
        offset = self.series.dataoffset if as_it_is else None
        if offset is None:
            check_size(width, height)
        return Contents((count, height, width, channels), dtype, offset, self.images())

    def images(self) -> Iterator[Array]:
        """(H, W, C) each; pages that hold one channel each of the same image are read together."""
        outer = [i for i in channels_last(self.axes) if i < self.inner]
        together = math.prod(self.sizes[i] for i in outer if self.axes[i] in "CS")
        numbers = np.arange(math.prod(self.sizes[: self.inner])).reshape(self.sizes[: self.inner])
        for group in numbers.transpose(outer).reshape(-1, together).tolist():
            pages = np.stack([self._read_page(number) for number in group])
            order = channels_last(["C", *self.axes[self.inner :]])
            for image in pages.transpose(order).reshape(-1, *self._image_shape()):
                yield upright(image, self.orientation)

    def _image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) before the image is turned upright."""
        channels = math.prod(n for axis, n in zip(self.axes, self.sizes, strict=True) if axis in "CS")
        return self.sizes[self.axes.index("Y")], self.sizes[self.axes.index("X")], channels

    def _read_page(self, number: int) -> Array:
        page, tiff = self.page, self.tiff
        if self.series.dataoffset is not None:  # the series may have one page that stands for all of them
            dtype = np.dtype(page.dtype).newbyteorder(tiff.byteorder)
            start = self.series.dataoffset + number * page.nbytes
            pixels: Array = np.fromfile(tiff.filehandle.path, dtype, page.size, offset=start)
        else:
            stored = self.series[number]
            if stored is None or stored.parent is not tiff:
                raise ImageError("has a header that counts pages of other files; save it as one file")
            check_segments(stored, tiff.filehandle.size)
            pixels = stored.asarray(maxworkers=1)  # files are read in threads already
        pixels = pixels.reshape(self.page_shape)
        return without_alpha(pixels, self.alphas, axis=self.alpha_axis) if self.alphas else pixels

    def _check_colours(self) -> None:
        page = self.page
        decoded = page.photometric == PHOTOMETRIC.YCBCR and page.compression in JPEG_IN_TIFF
        if page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB) and not decoded:
            name = getattr(page.photometric, "name", page.photometric)
            raise ImageError(f"has colours of TIFF's kind {name}; convert it to RGB or grey, where 0 is black")
        if page.dtype is None:
            raise ImageError(f"has samples of {page.bitspersample} bits; convert them to 8, 16 or 32")


def channels_last(axes: Sequence[str]) -> list[int]:
    """The order in which ``axes`` become (images..., Y, X, channels...)."""
    return sorted(range(len(axes)), key=lambda i: {"Y": 1, "X": 2, "C": 3, "S": 3}.get(axes[i], 0))


def check_segments(page: TiffPage | TiffFrame, file_size: int) -> None:
    """See that every strip or tile is there: tifffile fills up what is missing."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True) if count]
    if not page.is_contiguous and (len(ends) != math.prod(page.chunked) or max(ends) > file_size):
        raise ImageError(f"lacks strips or tiles of page {page.index}; mend or remove it")
