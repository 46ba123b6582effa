"""Image files of any depth for training: decoded once, checked pixel by pixel, then read from disk in windows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.image_file import Array, ImageError, ImageReader, check_size, image_errors, name_file
from n2n_lightning.image_io.value_range import ValueSpan, ValueSurvey, finite_limits, non_finite_pixels
from n2n_lightning.system.atomic import DISK_FULL, UNWRITABLE, atomic_write
from n2n_lightning.system.lock import exclusive_build

__all__ = ["ImageError", "ImageStack", "in_threads", "open_stack", "open_stacks"]

CACHE_VERSION = 3  # part of the cache's key: raise it with any change to the pixels or to ImageStack
SEEK_BYTES = 8192  # seeking to the next row of a window costs as much time as reading this much
BLOCK_BYTES = 2**24  # of values that are looked through at one time
MAX_COPY_BYTES = 10**11  # a compressed file of a few bytes can claim any size


@dataclass(frozen=True)
class ImageStack:
    """The images of one file, all of one size: raw values on disk, read in windows, never as a whole."""

    origin: Path  # the image file, for names and messages
    path: Path  # of the raw values: the file itself if they lie in it as they are, else a copy in the cache
    offset: int  # bytes
    shape: tuple[int, int, int, int]  # (N, H, W, C)
    dtype: str  # numpy's, with byte order: "|u1", "<u2", ">f4"
    low: float  # least value, outliers left out
    high: float  # greatest value, outliers left out
    digest: str  # sha256 of the image file's bytes
    outliers: int  # values far beyond ``low`` or ``high``: see ``value_range.ValueSurvey``
    image_digests: tuple[str, ...]  # hash of each image's pixels: equal for copies, also in files of other formats
    image_axes: tuple[tuple[str, int], ...]  # what counts the images, such as (("T", 5), ("Z", 4)): see ``ImageReader``
    axes: str  # letter of each dimension of the file, slowest first, such as "TZYX"; ? if unknown

    @property
    def name(self) -> str:
        return str(self.origin)

    @property
    def values(self) -> ValueSpan:
        return ValueSpan(self.low, self.high, self.outliers)

    def read(self, number: int, top: int, left: int, height: int, width: int) -> Array:
        """Read one image's window: (height, width, C) in native byte order.

        Nothing is kept open or mapped: memory would grow with every page touched, in every worker.
        """
        images, rows, columns, channels = self.shape
        assert 0 <= number < images and 0 <= top <= top + height <= rows and 0 <= left <= left + width <= columns
        dtype = np.dtype(self.dtype)
        pixel_bytes = channels * dtype.itemsize
        row_bytes = columns * pixel_bytes
        start = self.offset + (number * rows + top) * row_bytes
        try:
            with self.path.open("rb", buffering=0) as file:
                if (columns - width) * pixel_bytes <= SEEK_BYTES:
                    band = np.empty((height, columns, channels), dtype)
                    read_exactly(file, start, band)
                    # a copy, because a slice would keep the whole band in memory
                    window = band if width == columns else band[:, left : left + width].copy()
                else:
                    window = np.empty((height, width, channels), dtype)
                    for y, row in enumerate(window):
                        read_exactly(file, start + y * row_bytes + left * pixel_bytes, row)
        except (OSError, EOFError) as error:
            raise ImageError(f"{self.name} can no longer be read ({error}); leave it alone and start again") from error
        return window.astype(dtype.newbyteorder("="), copy=False)


def open_stacks(paths: Sequence[Path], cache: Path, axes: str | None = None) -> list[ImageStack | ImageError]:
    """Open files in threads; in the list, an ImageError takes the place of a file that cannot be used.

    ``axes`` are the letters of the files' dimensions, as ``parse_axes`` returns them; None takes the files' own.
    """
    opened: list[ImageStack | ImageError | None] = [recall(path, cache, axes) for path in paths]
    missing = [number for number, stack in enumerate(opened) if stack is None]

    def decode(place: int) -> None:
        number = missing[place]
        try:
            opened[number] = open_stack(paths[number], cache, axes)
        except ImageError as error:
            opened[number] = error

    if missing:
        with exclusive_build(cache):  # several jobs of a sweep may start at the same time
            in_threads(decode, len(missing), f"reading {len(missing)} images")
    return [stack for stack in opened if stack is not None]


def in_threads(task: Callable[[int], None], count: int, title: str, threads: int | None = None) -> None:
    """Run ``task(0)`` to ``task(count - 1)`` with a progress bar; the first exception ends it.

    ``threads`` is the number of threads; None takes one for each core.
    """
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            futures = [pool.submit(task, number) for number in range(count)]
            for future in track(futures, description=title, console=Console(stderr=True)):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def open_stack(path: Path, cache: Path, axes: str | None = None) -> ImageStack:
    """Open a file from the cache, or decode and check it; raise an ImageError where it cannot be used."""
    return recall(path, cache, axes) or decode_stack(path, cache, axes)


def recall(path: Path, cache: Path, axes: str | None = None) -> ImageStack | None:
    """Return what the cache holds for the file as it is now; None where there is no entry, or a damaged one."""
    try:
        entry = sidecar(path, cache, axes)
        fields = json.loads(entry.read_bytes())
        tuples = {name: tuple(fields[name]) for name in ("shape", "image_digests")}
        image_axes = tuple((str(axis), int(count)) for axis, count in fields["image_axes"])
        known = {"origin": path, "path": Path(fields["path"]), "image_axes": image_axes}
        stack = ImageStack(**fields | tuples | known)
        dtype, ours = np.dtype(stack.dtype), (path.absolute(), entry.with_suffix(".pixels"))
        if dtype.kind not in "uif" or stack.path not in ours or not all(n > 0 for n in stack.shape) or stack.offset < 0:
            return None
        end = stack.offset + math.prod(stack.shape) * dtype.itemsize
        return stack if stack.path.stat().st_size >= end else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def sidecar(path: Path, cache: Path, axes: str | None = None) -> Path:
    """Return where the cache keeps the fields of a file's ImageStack; a changed file has another place.

    So has a file that is read by other axes.
    """
    path, stat = path.absolute(), path.stat()
    key = repr((str(path), stat.st_size, stat.st_mtime_ns, CACHE_VERSION, axes))
    return cache.absolute() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def decode_stack(path: Path, cache: Path, axes: str | None = None) -> ImageStack:
    """Decode and check a file, and record in the cache what was found."""
    with image_errors(path):
        entry = sidecar(path, cache, axes)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    with open_image_file(path, axes) as image:
        shape, survey = image.upright_shape, Survey(path, image.upright_shape)
        named = (image.image_axes, image.axes)
        if image.offset is not None:
            values, offset, dtype = path.absolute(), image.offset, image.dtype
            for block in raw_blocks(image):
                survey.add(block)
            survey.check()
        else:
            with name_file(path):
                check_copy(image)
            values, dtype = entry.with_suffix(".pixels"), image.dtype.newbyteorder("=")
            with cached(values) as file:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                offset = file.tell()
                for upright in image.upright_images():
                    pixels = np.ascontiguousarray(upright, dtype)
                    survey.add(pixels)
                    file.write(pixels.data)
                survey.check()  # before the copy gets its name
    span = survey.values.limits()
    found = (span.low, span.high, digest, span.outliers, tuple(survey.image_digests), *named)
    stack = ImageStack(path, values, offset, shape, dtype.str, *found)
    with cached(entry) as file:
        file.write(json.dumps(dataclasses.asdict(stack), default=str).encode())
    return stack


def check_copy(image: ImageReader) -> None:
    """Refuse a file whose images are too large to be decoded into the cache."""
    _, height, width, _ = image.upright_shape
    if image.form != "npy":  # which claims no more than it holds
        check_size(width, height)
    size = math.prod(image.upright_shape) * image.dtype.itemsize
    if size > MAX_COPY_BYTES:
        raise ImageError(f"would take {size / 1e9:.0f} GB decoded, more than 100; save it uncompressed, as TIFF or NPY")


class Survey:
    """Looks through (N, H, W, C) for limits of the values, copies and non-finite pixels.

    It is fed in order, in pieces that each belong to one image.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.path, self.shape = path, shape
        self.values = ValueSurvey()
        self.image_digests: list[str] = []
        self.seen, self.faults, self.first_fault = 0, 0, 0  # in pixels

    def add(self, pixels: Array) -> None:
        """Take the next pixels, (..., C)."""
        if self.seen % (self.shape[1] * self.shape[2]) == 0:
            self._hash = pixel_hash(self.shape[1:], pixels.dtype)
        self._hash.update(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data)
        if finite_limits(pixels) is None:
            wrong = non_finite_pixels(pixels).ravel()
            if not self.faults:
                self.first_fault = self.seen + int(wrong.argmax())
            self.faults += int(wrong.sum())
        else:
            self.values.add(pixels)
        self.seen += pixels.size // self.shape[3]
        if self.seen % (self.shape[1] * self.shape[2]) == 0:
            self.image_digests.append(self._hash.hexdigest())

    def check(self) -> None:
        """Refuse images with non-finite pixels, once all have been added."""
        assert self.seen == math.prod(self.shape[:3])
        if self.faults:
            image, row, column = np.unravel_index(self.first_fault, self.shape[:3])
            first = f"image {image + 1}, row {row}, column {column}"
            raise ImageError(
                f"{self.path} has {self.faults} pixels that are NaN or infinite, the first at {first}; fix or remove it"
            )


def pixel_hash(shape: Sequence[int], dtype: np.dtype[Any]) -> hashlib._Hash:
    """Return the hash to which an image's values in little-endian order are added: (H, W, C) of ``dtype``."""
    return hashlib.sha256(repr((*map(int, shape), dtype.newbyteorder("<").str)).encode())


def raw_blocks(image: ImageReader) -> Iterator[Array]:
    """Yield all values of a file that has an offset, in order: (pixels, C) a block, each of one image."""
    images, height, width, channels = image.upright_shape
    pixels, pixel_bytes = height * width, channels * image.dtype.itemsize
    assert image.offset is not None
    block = np.empty((min(max(BLOCK_BYTES // pixel_bytes, 1), pixels), channels), image.dtype)
    with image_errors(image.path), image.path.open("rb", buffering=0) as file:
        for start in range(0, images * pixels, pixels):
            for first in range(0, pixels, len(block)):
                part = block[: pixels - first]
                read_exactly(file, image.offset + (start + first) * pixel_bytes, part)
                yield part


def read_exactly(file: FileIO, start: int, values: Array) -> None:
    """Fill ``values``, contiguous, from byte ``start`` of an unbuffered file."""
    file.seek(start)
    room = values.reshape(-1).view(np.uint8).data
    while room:  # one read gives 2 GB at most
        count = file.readinto(room)
        if not count:
            raise EOFError(f"it ends {len(room)} bytes early")
        room = room[count:]


@contextmanager
def cached(path: Path) -> Iterator[IO[bytes]]:
    """Write a file of the cache, which other processes may write at the same time."""
    try:
        with atomic_write(path, shared=True) as file:
            yield file
    except OSError as error:
        if error.errno not in (*DISK_FULL, *UNWRITABLE):
            raise
        reason = "the disk is full" if error.errno in DISK_FULL else f"{path.parent} cannot be written"
        raise OSError(f"{reason}: decoded images need room in {path.parent}; set data.cache_dir=FOLDER") from error
