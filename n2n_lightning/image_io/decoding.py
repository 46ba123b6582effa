"""Picture files, format by format: the images that a file holds, or what is wrong with it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image
from tifffile import TiffFile

from n2n_lightning.image_io.image_file import (
    ORIENTATION,
    Array,
    ImageError,
    ImageFile,
    check_packing,
    check_size,
    upright,
    without_alpha,
)
from n2n_lightning.image_io.tiff import open_tiff

PILLOW_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # named, because some of Pillow's others run programs
PILLOW_MODES = ("L", "LA", "RGB", "RGBA")
MAX_COPY_BYTES = 10**11  # a compressed file of a few bytes can claim any size
MAX_NPY_CHANNELS = 32
MAX_NPY_HEADER = 1024  # characters, where an image has 128: numpy takes seconds to see that a long one is wrong
_pillow_limit = threading.Lock()
_npy_header = threading.Lock()  # numpy parses it by ast, which two threads break in Python 3.11 (python/cpython#106905)


def open_contents(path: Path, opened: ExitStack) -> ImageFile:
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
            contents = open_tiff(opened.enter_context(TiffFile(path, _multifile=False)))
        case _:
            contents = open_photo(path)
    shape, dtype, offset, _ = contents
    check_values(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    if offset is None and size > MAX_COPY_BYTES:
        raise ImageError(f"would take {size / 1e9:.0f} GB decoded, more than 100; save it uncompressed, as TIFF or NPY")
    if offset is not None and stored < offset + size:
        raise ImageError(f"is cut off, {offset + size - stored} bytes of pixels are missing; mend or remove it")
    return contents


def check_values(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """See that there are pixels, of a type that can be used."""
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageError(f"has pixels of type {dtype.name}; convert them to integers or floats of 8 to 64 bits")
    if 0 in shape:
        raise ImageError(f"holds no pixels, its shape is {tuple(shape)}; remove it")


def load_npy(path: Path, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
    """The array in a file, mapped; raises where the file is shorter than it claims."""
    with _npy_header:
        array = np.load(path, mmap_mode=mode, allow_pickle=False, max_header_size=MAX_NPY_HEADER)
    if not isinstance(array, np.memmap):
        raise ImageError("is an archive; save one array as NPY")
    return array


def as_images(array: Array) -> Array:
    """(H, W), (H, W, C), (N, H, W) or (N, H, W, C) -> (N, H, W, C), no copy."""
    if array.ndim == 2:
        return array[None, ..., None]
    if array.ndim == 3:
        channels_last = array.shape[2] < min(*array.shape[:2], MAX_NPY_CHANNELS + 1)
        return array[None] if channels_last else array[..., None]
    if array.ndim != 4:
        raise ImageError(f"has {array.ndim} axes; save it as (H, W), (H, W, C), (N, H, W) or (N, H, W, C)")
    return array


def open_npy(path: Path) -> ImageFile:
    array = load_npy(path, "r")
    pixels = as_images(array)
    images, height, width, channels = pixels.shape
    offset = array.offset if array.flags.c_contiguous else None
    return ImageFile((images, height, width, channels), array.dtype, offset, iter(pixels))


def open_photo(path: Path) -> ImageFile:
    """The image of a PNG, JPEG, WebP or BMP file, upright and without alpha."""
    with open_pillow(path) as image:
        check_photo(image, path)
        pixels = read_photo(image, path)
        pixels = upright(without_alpha(pixels, photo_alphas(pixels.shape[2])), image.getexif().get(ORIENTATION, 1))
    height, width, channels = pixels.shape
    return ImageFile((1, height, width, channels), pixels.dtype, None, iter([pixels]))


def check_photo(image: Image.Image, path: Path) -> None:
    """See that there is one image, of a kind that can be read."""
    check_size(*image.size)
    deep = is_16_bit(image, path)
    check_packing(math.prod(image.size) * len(image.getbands()) * (2 if deep else 1), path.stat().st_size)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG, whose other images are previews or gain maps
        raise ImageError(f"holds {frames} frames; give single images")
    if "transparency" in image.info:
        raise ImageError("has transparent pixels; save it without transparency")
    if image.mode not in PILLOW_MODES and not deep:
        raise ImageError(f"has Pillow's mode {image.mode}; convert it to RGB or grey")


def is_16_bit(image: Image.Image, path: Path) -> bool:
    """Whether it is a PNG of 16 bits a channel, which Pillow cuts down to 8."""
    return image.format == "PNG" and png_header(path).bits == 16


def photo_alphas(channels: int) -> list[int]:
    """Which channels are alpha."""
    return [channels - 1] if channels in (2, 4) else []


def read_photo(image: Image.Image, path: Path) -> Array:
    """The pixels of what ``check_photo`` has passed, as they are stored: (H, W, C)."""
    if is_16_bit(image, path):
        pixels: Array = imagecodecs.png_decode(path.read_bytes())
    else:
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def open_pillow(path: Path) -> Image.Image:
    """Read the header, without Pillow's limit of pixels: a global, which warns and raises long before ours."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=PILLOW_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


class PngHeader(NamedTuple):
    """What Pillow does not tell of a PNG."""

    bits: int  # a channel
    channels: int


def png_header(path: Path) -> PngHeader:
    with path.open("rb") as file:
        bits, colours = file.read(26)[24:]  # after the signature, the head of IHDR, width and height
    return PngHeader(bits, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours])
