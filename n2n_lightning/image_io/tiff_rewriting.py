"""New values put into a copy of a TIFF file, so that all else in it stays: tags, descriptions, layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from tifffile import PHOTOMETRIC, TiffFile, TiffPage

from n2n_lightning.image_io.image_file import Array, ImageError
from n2n_lightning.image_io.tiff import Segments, TiffImages, locate

BITS, COMPRESSION, COLOURS, FILL_ORDER, PREDICTOR, SUBSAMPLING = 258, 259, 262, 266, 317, 530  # tags
OFFSETS, COUNTS = (273, 324), (279, 325)  # of strips, of tiles
RGB, DEFLATE, NO_PREDICTOR = 2, 8, 1
LONG, LONG8 = 4, 16  # types of tags
CLASSIC_LIMIT = 2**32  # of offsets, where the file is no BigTIFF
ENCODERS: dict[int, Callable[[Array], Any]] = {  # without loss; what came in another compression goes out in deflate
    1: lambda values: values.tobytes(),
    5: lambda values: imagecodecs.lzw_encode(values.tobytes()),
    DEFLATE: lambda values: imagecodecs.zlib_encode(values.tobytes()),
    32946: lambda values: imagecodecs.zlib_encode(values.tobytes()),
    32773: lambda values: imagecodecs.packbits_encode(values, axis=-2),  # row by row
    34925: lambda values: imagecodecs.lzma_encode(values.tobytes()),
    50000: lambda values: imagecodecs.zstd_encode(values.tobytes()),
}
PREDICTORS: dict[int, Callable[[Any], Any]] = {
    2: partial(imagecodecs.delta_encode, axis=-2),
    3: partial(imagecodecs.floatpred_encode, axis=-2),
}


class TiffRewriter:
    """Takes the rows of each image from the top down, and puts them where the old ones are.

    Args:
        tiff: a copy of the file, open for reading and writing.
        images: those of the copy.
    """

    def __init__(self, tiff: TiffFile, images: Sequence[TiffImages]) -> None:
        self.tiff, self.images = tiff, images
        self._pages: dict[tuple[int, int], PageWriter] = {}  # unfinished
        self._taken: set[int] = set()  # offsets; a file can have several segments at one

    def write(self, group: int, top: int, rows: Array) -> None:
        """(images, rows, W, C), which follow on the group's last."""
        part, number = locate(self.images, group)
        images = self.images[part]
        for page, values in zip(images.groups[number].tolist(), images.to_pages(rows), strict=True):
            if images.series.dataoffset is not None:
                place = images.raw(page, self.tiff.filehandle.path, "r+")
                place[images.band(top, top + rows.shape[1])] = values
                continue
            key = part, page
            if key not in self._pages:
                stored = images.stored(page).aspage()
                self._pages[key] = PageWriter(self.tiff, stored, Segments(images.page), self._taken)
            if self._pages[key].write(values, rows.shape[1]):
                del self._pages[key]


class PageWriter:
    """Encodes a page's strips or tiles as soon as all their rows are there.

    Args:
        tiff: the file.
        page: the page in it.
        segments: the layout.
        taken: offsets that were written to already.
    """

    def __init__(self, tiff: TiffFile, page: TiffPage, segments: Segments, taken: set[int]) -> None:
        self.tiff, self.page, self.segments, self.taken = tiff, page, segments, taken
        self.dtype = np.dtype(page.dtype)
        self.compression = page.compression if page.compression in ENCODERS else DEFLATE
        usual = self.compression == page.compression and page.predictor in (NO_PREDICTOR, *PREDICTORS)
        self.as_it_was = usual and page.bitspersample == self.dtype.itemsize * 8 and page.fillorder == 1
        self.offsets, self.counts = list(page.dataoffsets), list(page.databytecounts)
        self._rows: list[Array] = []
        self._height, self._row = 0, 0  # of what waits in _rows; the next row of segments

    def write(self, values: Array, rows: int) -> bool:
        """Whether the page is finished with these rows, an array of the page's shape but for its height."""
        planes, depth, height, width, samples = self.segments.shape
        self._rows.append(values.reshape(planes, depth, rows, width, samples))
        self._height += rows
        whole = min(self.segments.height, height - self._row * self.segments.height)
        if self._height >= whole:
            waiting = np.concatenate(self._rows, axis=2)
            while 0 < whole <= waiting.shape[2]:
                self._put_row(waiting[:, :, :whole])
                waiting = waiting[:, :, whole:]
                self._row += 1
                whole = min(self.segments.height, height - self._row * self.segments.height)
            self._rows, self._height = [waiting.copy()], waiting.shape[2]
        if self._row == self.segments.layout[2]:
            self._finish()
            return True
        return False

    def _put_row(self, rows: Array) -> None:
        segments = self.segments
        for place, number in np.ndenumerate(segments.numbers(self._row)):
            plane, deep, across = place
            left, front = across * segments.width, deep * segments.depth
            segment = rows[plane, front : front + segments.depth, :, left : left + segments.width]
            if self.page.is_tiled:  # those at the edge are stored whole
                full = (segments.depth, segments.height, segments.width, segments.shape[4])
                segment = np.pad(segment, [(0, n - m) for n, m in zip(full, segment.shape, strict=True)], mode="edge")
            self._put(int(number), self._encode(np.ascontiguousarray(segment, self.dtype)))

    def _encode(self, segment: Array) -> Any:
        predictor = self.page.predictor if self.as_it_was else NO_PREDICTOR
        if predictor != NO_PREDICTOR:
            segment = PREDICTORS[predictor](segment)
        if predictor != 3:  # the floating-point predictor has put the bytes in order itself
            segment = np.ascontiguousarray(segment, self.dtype.newbyteorder(self.tiff.byteorder))
        return ENCODERS[self.compression](segment)

    def _put(self, number: int, encoded: Any) -> None:
        file = self.tiff.filehandle
        if len(encoded) > self.counts[number] or self.offsets[number] in self.taken:
            end = file.seek(0, 2)
            self.offsets[number] = end + end % 2
            if not self.tiff.is_bigtiff and self.offsets[number] + len(encoded) > CLASSIC_LIMIT:
                raise ImageError("would grow beyond the 4 GB that a TIFF file can have; give --format npy")
        self.taken.add(self.offsets[number])
        self.counts[number] = len(encoded)
        file.seek(self.offsets[number])
        file.write(encoded)

    def _finish(self) -> None:
        """Let the page's tags say where its segments are now, and how they are encoded."""
        integer = LONG8 if self.tiff.is_bigtiff else LONG
        tags = self.page.tags
        moved = ((OFFSETS, self.page.dataoffsets, self.offsets), (COUNTS, self.page.databytecounts, self.counts))
        for codes, old, new in moved:
            for tag in [tags[code] for code in codes if code in tags and new != list(old)]:
                # emptied first, so that the new values go to the end: tifffile would put longer ones where the old
                # ones were the end of the file as it was opened, over the segments that follow there by now
                tag.overwrite(0, dtype=integer, erase=False).overwrite(new)
        if self.as_it_was:
            return
        decoded = self.page.photometric == PHOTOMETRIC.YCBCR
        plain = {
            BITS: (self.dtype.itemsize * 8,) * self.page.samplesperpixel,
            COMPRESSION: self.compression,
            COLOURS: RGB if decoded else self.page.photometric,
            FILL_ORDER: 1,
            PREDICTOR: NO_PREDICTOR,
            SUBSAMPLING: (1, 1),
        }
        for code, value in plain.items():
            if code in tags:
                tags[code].overwrite(value)
