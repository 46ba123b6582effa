"""TIFF files: which images their pages make, read a band of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

from n2n_lightning.image_io.axes import image_axes_order, name_dimensions, plain_axes
from n2n_lightning.image_io.image_file import ORIENTATION_TAG, Array, ImageError, ImageReader, Metadata, check_size
from n2n_lightning.image_io.tiff_checks import (
    PILLOW_CODECS,
    check_colours,
    check_compression,
    check_embedded,
    check_length,
    check_ome,
    check_pages,
    check_segments,
    is_inverted,
)

REDUCED_OR_MASK = 0b101  # NewSubfileType
ALPHA_SAMPLES = (1, 2)  # ExtraSamples that are opacity
X_RESOLUTION_TAG, XMP_TAG, ICC_PROFILE_TAG = 282, 700, 34675
DPI_FACTORS = {2: 1.0, 3: 2.54}  # by the unit of resolution: inch, centimetre


class TiffReader(ImageReader):
    """Reads every page of a file that is no thumbnail, mask or lower level of a pyramid.

    The file must stay open while images are read.
    """

    form = "tiff"

    def __init__(self, tiff: TiffFile, path: Path, axes: str | None = None) -> None:
        self.path, self.given_axes = path, axes
        check_ome(tiff)
        if not tiff.series:
            raise ImageError("holds no images; fix or remove it")
        check_pages(tiff)
        full = [s for s in tiff.series if not (s.keyframe.is_subifd or s.keyframe.subfiletype & REDUCED_OR_MASK)]
        chosen = full or tiff.series
        self.series = [TiffSeries(tiff, series, axes, len(chosen)) for series in chosen]
        kinds = dict.fromkeys(f"{'x'.join(map(str, s.upright_shape[1:]))} {s.dtype.name}" for s in self.series)
        if len(kinds) > 1:
            sizes = ", ".join(kinds)
            raise ImageError(f"holds images of several sizes or types ({sizes}); give each a file of its own")
        first = self.series[0]
        self.groups = [(series, number) for series in self.series for number in range(series.count)]
        self.count, self.shape, self.dtype = len(self.groups), first.shape, first.dtype
        self.alphas, self.orientation, self.held_bytes = first.alphas, first.orientation, first.held_bytes
        self.offset = first.offset if len(self.series) == 1 else None
        self.axes, self.image_axes = first.axes, first.image_axes
        if len({series.image_axes for series in self.series}) > 1:
            self.image_axes = (("?", self.upright_shape[0]),)

    @property
    def parts(self) -> Sequence[TiffSeries]:
        return self.series

    def decode(self, group: int, top: int, bottom: int) -> Array:
        series, number = self.groups[group]
        return series.decode(number, top, bottom)

    def metadata(self) -> Metadata:
        return self.series[0].metadata()


class TiffSeries(ImageReader):
    """Reads pages of one kind, which tifffile calls a series.

    Axes S and C are channels; axes other than these, Y and X count images. Pages that hold one channel each of the same
    images form a group. Several series of a file are counted by an axis of their own, the slowest.

    Args:
        tiff: the file.
        series: the pages.
        given_axes: letters of the dimensions, which win over those that the file names.
        number_of_series: of the file.
    """

    def __init__(self, tiff: TiffFile, series: TiffPageSeries, given_axes: str | None, number_of_series: int) -> None:
        self.tiff, self.series, self.page = tiff, series, series.keyframe
        if 0 in series.shape:
            raise ImageError(f"holds no pixels, its shape is {series.shape}; remove it")
        check_colours(self.page)
        check_compression(self.page)
        check_length(tiff, series)
        counted, kept = named_axes(series, given_axes, number_of_series)
        axes, sizes = [axis for axis, _ in kept], [n for _, n in kept]
        self.axes = plain_axes([axis for axis, _ in (*counted, *kept)])
        # axes[:inner] count pages, axes[inner:] lie within a page
        starts = (i for i in range(len(kept)) if math.prod(sizes[i:]) == self.page.size)
        inner = next(starts, len(kept))
        if given_axes and series.dataoffset is not None and not {"Y", "X"} <= set(axes[inner:]):
            inner = 0  # the values lie in the file one after the other, and all of them may be taken for one page
        self.page_axes, self.page_shape = axes[inner:], tuple(sizes[inner:])
        if not {"Y", "X"} <= set(self.page_axes):
            raise ImageError(f"has axes {given_axes or series.axes}; save it with Y and X within a page")
        self.image_axes = tuple((plain_axes(axis), n) for axis, n in (*counted, *kept) if axis not in "YXCS")
        order = image_axes_order(axes)
        outer = [i for i in order if i < inner]
        numbers = np.arange(math.prod(sizes[:inner])).reshape(sizes[:inner]).transpose(outer)
        self.groups = numbers.reshape(-1, math.prod(sizes[i] for i in outer if axes[i] in "CS"))  # (groups, pages)
        self.count, pages = self.groups.shape
        height, width = (self.page_shape[self.page_axes.index(axis)] for axis in "YX")
        samples = math.prod(n for axis, n in zip(self.page_axes, self.page_shape, strict=True) if axis in "CS")
        self.shape = (math.prod(self.page_shape) // (height * width * samples), height, width, samples * pages)
        self.dtype = np.dtype(self.page.dtype).newbyteorder(tiff.byteorder)
        self.orientation = self.page.tags.valueof(ORIENTATION_TAG, 1)
        extras = self.page.extrasamples
        first = self.page.samplesperpixel - len(extras)
        within = [first + i for i, kind in enumerate(extras) if kind in ALPHA_SAMPLES]
        self.alphas = [] if given_axes else [page * samples + i for page in range(pages) for i in within]
        self.white = 2**self.page.bitspersample - 1 if is_inverted(self.page) else None  # 0 in the file
        self.is_raw = series.dataoffset is not None  # the pages' values lie in the file one after the other
        in_order = order == list(range(len(axes))) and self.orientation == 1 and not self.alphas and self.white is None
        self.offset = series.dataoffset if in_order else None
        self.held_bytes = 0
        if not self.is_raw:
            self.segments = Segments(self.page)
            row_bytes = math.prod(self.shape) // height * self.segments.height * self.dtype.itemsize  # of segments
            self.held_bytes = 4 * row_bytes  # decoded, waiting to be encoded, and their encodings
        self._decoded: dict[tuple[int, int], Array] = {}  # rows of segments that the next band may need again

    def decode(self, group: int, top: int, bottom: int) -> Array:
        numbers = self.groups[group]
        pages = np.stack([self._decode_page(int(number), numbers, top, bottom) for number in numbers])
        images, _, width, channels = self.shape
        if self.white is not None:
            pages = self.white - pages
        return pages.transpose(self._order).reshape(images, bottom - top, width, channels)

    def to_pages(self, images: Array) -> Array:
        """Undo ``decode``: (images, rows, W, C) -> (pages of the group, *page_shape with rows for its height)."""
        rows = self._with_rows(images.shape[1])
        if self.white is not None:
            images = self.white - images
        shape = [(self.groups.shape[1], *rows)[i] for i in self._order]
        return images.reshape(shape).transpose(np.argsort(self._order))

    @property
    def _order(self) -> list[int]:
        return image_axes_order(["C", *self.page_axes])

    def _with_rows(self, rows: int) -> list[int]:
        return [rows if axis == "Y" else n for axis, n in zip(self.page_axes, self.page_shape, strict=True)]

    def band(self, top: int, bottom: int) -> tuple[slice, ...]:
        """Return the index of rows in an array of ``page_shape``."""
        return tuple(slice(top, bottom) if axis == "Y" else slice(None) for axis in self.page_axes)

    def map_page(self, number: int, mode: str) -> Array:
        """Map a page's values where they lie in the file as they are; a page may stand for all of a series."""
        assert self.series.dataoffset is not None
        start, path = self.series.dataoffset + number * self.page.nbytes, self.tiff.filehandle.path
        values: Array = np.memmap(path, self.dtype, mode, start, self.page_shape)  # type: ignore[call-overload]  # a mode
        return values

    def _decode_page(self, number: int, group: Array, top: int, bottom: int) -> Array:
        if self.is_raw:
            return np.array(self.map_page(number, "r")[self.band(top, bottom)])
        stored, segments = self.stored(number), self.segments
        first, last = top // segments.height, (bottom - 1) // segments.height
        for row in range(first, last + 1):
            if (number, row) not in self._decoded:
                self._decoded[number, row] = segments.decode(stored, row)
        for key in [key for key in self._decoded if key[1] < first or key[0] not in group]:
            del self._decoded[key]
        rows = [self._decoded[number, row] for row in range(first, last + 1)]
        above = first * segments.height
        joined = rows[0] if len(rows) == 1 else np.concatenate(rows, axis=2)
        return joined[:, :, top - above : bottom - above].reshape(self._with_rows(bottom - top))

    def stored(self, number: int) -> TiffPage | TiffFrame:
        """Return a page of the series, after a check that all of it is there."""
        page = self.series[number]
        if page is None or page.parent is not self.tiff:
            raise ImageError("has a header that counts pages of other files; save it as one file")
        check_segments(page, self.tiff.filehandle.size)
        return page

    def metadata(self) -> Metadata:
        tags = self.page.tags
        found: Metadata = {"icc_profile": tags.valueof(ICC_PROFILE_TAG), "xmp": tags.valueof(XMP_TAG)}
        factor = DPI_FACTORS.get(self.page.resolutionunit)
        if X_RESOLUTION_TAG in tags and factor:
            found["dpi"] = tuple(round(value * factor, 4) for value in self.page.resolution)
        return found


class Segments:
    """The strips or tiles that the pages of a series are stored in; ``page`` is the series' keyframe."""

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
        """Return the numbers of a row of segments: (separate samples, D, segments side by side)."""
        return np.arange(math.prod(self.layout)).reshape(self.layout)[:, :, row]

    def decode(self, stored: TiffPage | TiffFrame, row: int) -> Array:
        """Decode a row of segments: (separate samples, D, rows, W, samples together)."""
        planes, depth, height, width, samples = self.shape
        check_size(width, self.height)
        rows = np.empty((planes, depth, min(self.height, height - row * self.height), width, samples), self.page.dtype)
        file = stored.parent.filehandle
        for number in self.numbers(row).ravel().tolist():
            file.seek(stored.dataoffsets[number])
            data = file.read(stored.databytecounts[number])
            if self.page.compression in PILLOW_CODECS:
                check_embedded(data, self.page.compression, (self.depth, self.height, self.width))
            segment, (plane, z, _, x, _), _ = self.page.decode(data, number, jpegtables=stored.jpegtables)
            assert segment is not None
            room = rows[plane, z : z + self.depth, :, x : x + self.width]
            room[...] = segment[: room.shape[0], : room.shape[1], : room.shape[2]]
        return rows


def named_axes(
    series: TiffPageSeries, given: str | None, number_of_series: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Return axis and length of what counts the series of a file, if it has several, and of a series' dimensions.

    Axes of length 1 are left out, except for Y and X.
    """
    outer = [number_of_series] if number_of_series > 1 else []
    shape = (*outer, *series.shape)
    named = name_dimensions(shape, given) if given else list(zip("?" * len(outer) + series.axes, shape, strict=True))
    counted, kept = named[: len(outer)], [(axis, n) for axis, n in named[len(outer) :] if n > 1 or axis in "YX"]
    if counted and counted[0][0] not in "TZ?":
        raise ImageError(f"holds {outer[0]} series of images, got data.axes={given}; give T or Z as its first letter")
    return counted, kept
