"""TIFF files: which images their pages make, read whole or a band of rows at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from tifffile import PHOTOMETRIC, TIFF, TiffFile, TiffFrame, TiffPage, TiffPageSeries

from n2n_lightning.image_io.codec_headers import check_embedded
from n2n_lightning.image_io.image_file import (
    ORIENTATION,
    Array,
    ImageError,
    ImageFile,
    check_size,
    upright,
    without_alpha,
)
from n2n_lightning.image_io.tiff_checks import check_ome, check_pages, check_room, check_segments

REDUCED_OR_MASK = 0b101  # NewSubfileType
ALPHA = (1, 2)  # ExtraSamples that are opacity
JPEG_IN_TIFF = (6, 7)  # compressions that tifffile decodes from YCbCr to RGB


def open_tiff(tiff: TiffFile) -> ImageFile:
    """Every page that is no thumbnail, mask or lower level of a pyramid."""
    parts = [part.contents() for part in find_images(tiff)]
    if len(parts) == 1:
        return parts[0]
    count, (_, height, width, channels) = sum(part.shape[0] for part in parts), parts[0].shape
    images = itertools.chain.from_iterable(part.images for part in parts)
    return ImageFile((count, height, width, channels), parts[0].dtype, None, images)


def find_images(tiff: TiffFile) -> list[TiffImages]:
    """The file's series of pages, all of one kind.

    Raises:
        ImageError: they are cut off, of several kinds, or of a kind that cannot be read.
    """
    check_ome(tiff)
    if not tiff.series:
        raise ImageError("holds no images; mend or remove it")
    check_pages(tiff)
    full = [s for s in tiff.series if not (s.keyframe.is_subifd or s.keyframe.subfiletype & REDUCED_OR_MASK)]
    parts = [TiffImages(tiff, series) for series in full or tiff.series]
    kinds = dict.fromkeys(f"{'x'.join(map(str, part.upright_shape))} {part.dtype.name}" for part in parts)
    if len(kinds) > 1:
        raise ImageError(f"holds images of several sizes or types ({', '.join(kinds)}); give each a file of its own")
    return parts


def locate(parts: Sequence[TiffImages], group: int) -> tuple[int, int]:
    """Which of ``parts`` a group of images is in, all counted through, and its number there."""
    for number, part in enumerate(parts):
        if group < len(part.groups):
            return number, group
        group -= len(part.groups)
    raise IndexError(group)


class TiffImages:
    """Pages of one kind as images: axes S and C are channels; axes other than these, Y and X count images.

    Pages that hold one channel each of the same images form a group.

    Args:
        tiff: open for as long as images are read.
        series: the pages, as tifffile groups them.
    """

    def __init__(self, tiff: TiffFile, series: TiffPageSeries) -> None:
        self.tiff, self.series, self.page = tiff, series, series.keyframe
        if 0 in series.shape:
            raise ImageError(f"holds no pixels, its shape is {series.shape}; remove it")
        self._check_colours()
        check_room(tiff, series)
        kept = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"]
        axes, sizes = [axis for axis, _ in kept], [n for _, n in kept]
        # axes[:inner] count pages, axes[inner:] lie within a page
        starts = (i for i in range(len(kept)) if math.prod(sizes[i:]) == self.page.size)
        inner = next(starts, len(kept))
        self.page_axes, self.page_shape = axes[inner:], tuple(sizes[inner:])
        if not {"Y", "X"} <= set(self.page_axes):
            raise ImageError(f"has axes {series.axes}; save it with Y and X within a page")
        outer = [i for i in channels_last(axes) if i < inner]
        numbers = np.arange(math.prod(sizes[:inner])).reshape(sizes[:inner]).transpose(outer)
        self.groups = numbers.reshape(-1, math.prod(sizes[i] for i in outer if axes[i] in "CS"))
        self.in_order = channels_last(axes) == list(range(len(axes)))  # the file's order is (N, H, W, C) already
        height, width = (self.page_shape[self.page_axes.index(axis)] for axis in "YX")
        samples = math.prod(n for axis, n in zip(self.page_axes, self.page_shape, strict=True) if axis in "CS")
        images = math.prod(self.page_shape) // (height * width * samples)
        self.shape = (images, height, width, samples * self.groups.shape[1])  # of a group
        self.orientation = self.page.tags.valueof(ORIENTATION, 1)
        extras = self.page.extrasamples
        first = self.page.samplesperpixel - len(extras)
        within = [first + i for i, kind in enumerate(extras) if kind in ALPHA]
        self.alphas = [page * samples + i for page in range(self.groups.shape[1]) for i in within]
        self.dtype = np.dtype(self.page.dtype).newbyteorder(tiff.byteorder)
        self._decoded: dict[tuple[int, int], Array] = {}  # rows of segments that the next band may need again

    @property
    def upright_shape(self) -> tuple[int, int, int]:
        """(H, W, C) without alpha, of an image that was turned upright."""
        _, height, width, channels = self.shape
        height, width = (width, height) if 5 <= self.orientation <= 8 else (height, width)
        return height, width, channels - len(self.alphas)

    @property
    def segment_bytes(self) -> int:
        """Of a row of a group's segments; 0 where the values lie in the file as they are."""
        if self.series.dataoffset is not None:
            return 0
        segments = Segments(self.page)
        return math.prod(self.shape) // self.shape[1] * segments.height * self.dtype.itemsize

    def contents(self) -> ImageFile:
        as_it_is = self.in_order and self.orientation == 1 and not self.alphas
        offset = self.series.dataoffset if as_it_is else None
        if offset is None:
            check_size(self.shape[2], self.shape[1])
        return ImageFile((len(self.groups) * self.shape[0], *self.upright_shape), self.dtype, offset, self.images())

    def images(self) -> Iterator[Array]:
        """(H, W, C) each, upright and without alpha."""
        for group in range(len(self.groups)):
            for image in self.read(group, 0, self.shape[1]):
                yield upright(without_alpha(image, self.alphas) if self.alphas else image, self.orientation)

    def read(self, group: int, top: int, bottom: int) -> Array:
        """A group's images as they are stored, rows ``top`` to ``bottom``: (images, rows, W, C)."""
        numbers = self.groups[group]
        pages = np.stack([self._read_page(int(number), numbers, top, bottom) for number in numbers])
        count, _, width, channels = self.shape
        return pages.transpose(self._order).reshape(count, bottom - top, width, channels)

    def to_pages(self, images: Array) -> Array:
        """``read`` undone: (images, rows, W, C) -> (pages of the group, *page_shape with rows for its height)."""
        rows = self._with_rows(images.shape[1])
        shape = [(self.groups.shape[1], *rows)[i] for i in self._order]
        return images.reshape(shape).transpose(np.argsort(self._order))

    @property
    def _order(self) -> list[int]:
        return channels_last(["C", *self.page_axes])

    def _with_rows(self, rows: int) -> list[int]:
        return [rows if axis == "Y" else n for axis, n in zip(self.page_axes, self.page_shape, strict=True)]

    def band(self, top: int, bottom: int) -> tuple[slice, ...]:
        """The index of rows in an array of ``page_shape``."""
        return tuple(slice(top, bottom) if axis == "Y" else slice(None) for axis in self.page_axes)

    def raw(self, number: int, path: str, mode: str) -> Array:
        """The page's values where they lie in the file as they are, mapped."""
        assert self.series.dataoffset is not None
        start = self.series.dataoffset + number * self.page.nbytes
        values: Array = np.memmap(path, self.dtype, mode, start, self.page_shape)  # type: ignore[call-overload]  # a mode
        return values

    def _read_page(self, number: int, group: Array, top: int, bottom: int) -> Array:
        if self.series.dataoffset is not None:  # the series may have one page that stands for all of them
            return np.array(self.raw(number, self.tiff.filehandle.path, "r")[self.band(top, bottom)])
        stored, segments = self.stored(number), Segments(self.page)
        first, last = top // segments.height, (bottom - 1) // segments.height
        for row in range(first, last + 1):
            if (number, row) not in self._decoded:
                self._decoded[number, row] = segments.read(stored, row)
        for key in [key for key in self._decoded if key[1] < first or key[0] not in group]:
            del self._decoded[key]
        rows = [self._decoded[number, row] for row in range(first, last + 1)]
        above = first * segments.height
        whole = rows[0] if len(rows) == 1 else np.concatenate(rows, axis=2)
        return whole[:, :, top - above : bottom - above].reshape(self._with_rows(bottom - top))

    def stored(self, number: int) -> TiffPage | TiffFrame:
        """A page of the series."""
        page = self.series[number]
        if page is None or page.parent is not self.tiff:
            raise ImageError("has a header that counts pages of other files; save it as one file")
        check_segments(page, self.tiff.filehandle.size)
        return page

    def _check_colours(self) -> None:
        page = self.page
        decoded = page.photometric == PHOTOMETRIC.YCBCR and page.compression in JPEG_IN_TIFF
        if page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB) and not decoded:
            name = getattr(page.photometric, "name", page.photometric)
            raise ImageError(f"has colours of TIFF's kind {name}; convert it to RGB or grey, where 0 is black")
        if page.dtype is None:
            raise ImageError(f"has samples of {page.bitspersample} bits; convert them to 8, 16 or 32")


class Segments:
    """The strips or tiles that a page is stored in.

    Args:
        page: the keyframe of its series.
    """

    def __init__(self, page: TiffPage) -> None:
        self.page = page
        self.shape: tuple[int, int, int, int, int] = page.shaped  # (separate samples, D, H, W, samples together)
        planes, depth, height, width, _ = self.shape
        self.height = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
        self.width = page.tilewidth if page.is_tiled else width
        self.depth = page.tiledepth if page.is_tiled else 1
        counts = ((depth, self.depth), (height, self.height), (width, self.width))
        self.layout = (planes, *(math.ceil(whole / part) for whole, part in counts))

    def numbers(self, row: int) -> Array:
        """A row of segments: (separate samples, D, segments side by side)."""
        return np.arange(math.prod(self.layout)).reshape(self.layout)[:, :, row]

    def read(self, stored: TiffPage | TiffFrame, row: int) -> Array:
        """Decode a row of segments: (separate samples, D, rows, W, samples together)."""
        planes, depth, height, width, samples = self.shape
        check_size(width, self.height)
        rows = np.empty((planes, depth, min(self.height, height - row * self.height), width, samples), self.page.dtype)
        file = stored.parent.filehandle
        for number in self.numbers(row).ravel().tolist():
            file.seek(stored.dataoffsets[number])
            data = file.read(stored.databytecounts[number])
            if self.page.compression in TIFF.IMAGE_COMPRESSIONS:
                check_embedded(data, self.page.compression, (self.depth, self.height, self.width, samples))
            segment, (plane, z, _, x, _), _ = self.page.decode(data, number, jpegtables=stored.jpegtables)
            assert segment is not None
            room = rows[plane, z : z + self.depth, :, x : x + self.width]
            room[...] = segment[: room.shape[0], : room.shape[1], : room.shape[2]]
        return rows


def channels_last(axes: Sequence[str]) -> list[int]:
    """The order in which ``axes`` become (images..., Y, X, channels...)."""
    return sorted(range(len(axes)), key=lambda i: {"Y": 1, "X": 2, "C": 3, "S": 3}.get(axes[i], 0))
