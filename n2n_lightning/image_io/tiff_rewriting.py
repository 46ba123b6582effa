"""New values written into a copy of a TIFF file, so that all else in it stays: tags, descriptions, layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from tifffile import COMPRESSION, DATATYPE, PHOTOMETRIC, PREDICTOR, TIFF, TiffFile, TiffPage

from n2n_lightning.image_io.image_file import Array, ImageError
from n2n_lightning.image_io.tiff_reading import Segments, TiffReader

CLASSIC_LIMIT = 2**32  # of offsets, where the file is no BigTIFF
LOSSLESS = (  # values that came in another compression leave in deflate
    *(COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE),
    *(COMPRESSION.PACKBITS, COMPRESSION.LZMA, COMPRESSION.ZSTD),
)
PREDICTORS = (PREDICTOR.NONE, PREDICTOR.HORIZONTAL, PREDICTOR.FLOATINGPOINT)


class TiffRewriter:
    """Takes new rows of each image from the top down, and puts them in the place of the old ones.

    ``tiff`` is a copy of the file, open for reading and writing; ``reader`` reads the copy.
    """

    def __init__(self, tiff: TiffFile, reader: TiffReader) -> None:
        self.tiff, self.reader = tiff, reader
        self._pages: dict[int, PageWriter] = {}  # unfinished, by the page's offset
        self._used_offsets: set[int] = set()  # a file can have several segments at one offset

    def write(self, group: int, top: int, rows: Array) -> None:
        """Write (images, rows, W, C) of a group, the rows that follow on its last ones."""
        series, number = self.reader.groups[group]
        for page, values in zip(series.groups[number].tolist(), series.to_pages(rows), strict=True):
            if series.is_raw:
                series.map_page(page, "r+")[series.band(top, top + rows.shape[1])] = values
                continue
            stored = series.stored(page)
            if stored.offset not in self._pages:
                writer = PageWriter(self.tiff, stored.aspage(), series.segments, self._used_offsets)
                self._pages[stored.offset] = writer
            if self._pages[stored.offset].write(values, rows.shape[1]):
                del self._pages[stored.offset]


class PageWriter:
    """Encodes each strip or tile of a page as soon as all its rows are there.

    ``used_offsets`` are those that were written to already, by the writers of all pages.
    """

    def __init__(self, tiff: TiffFile, page: TiffPage, segments: Segments, used_offsets: set[int]) -> None:
        self.tiff, self.page, self.segments, self.used_offsets = tiff, page, segments, used_offsets
        self.dtype = np.dtype(page.dtype)
        self.compression = page.compression if page.compression in LOSSLESS else COMPRESSION.ADOBE_DEFLATE
        kept = self.compression == page.compression and page.predictor in PREDICTORS
        self.keeps_encoding = kept and page.bitspersample == self.dtype.itemsize * 8 and page.fillorder == 1
        self.offsets, self.counts = list(page.dataoffsets), list(page.databytecounts)
        self._waiting: list[Array] = []  # rows that do not fill a row of segments yet
        self._height, self._row = 0, 0  # of what is waiting; number of the next row of segments

    @property
    def _needed_rows(self) -> int:
        """Number of rows in the next row of segments; 0 when the page is complete."""
        return min(self.segments.height, self.segments.shape[2] - self._row * self.segments.height)

    def write(self, values: Array, rows: int) -> bool:
        """Take the next rows of the page, of its shape but for the height; return whether the page is complete."""
        planes, depth, _, width, samples = self.segments.shape
        self._waiting.append(values.reshape(planes, depth, rows, width, samples))
        self._height += rows
        if self._height >= self._needed_rows:
            waiting = np.concatenate(self._waiting, axis=2)
            while 0 < (needed := self._needed_rows) <= waiting.shape[2]:
                self._put_row(waiting[:, :, :needed])
                waiting = waiting[:, :, needed:]
                self._row += 1
            self._waiting, self._height = [waiting.copy()], waiting.shape[2]
        if self._needed_rows > 0:
            return False
        self._finish()
        return True

    def _put_row(self, rows: Array) -> None:
        segments = self.segments
        for (plane, deep, across), number in np.ndenumerate(segments.numbers(self._row)):
            left, front = across * segments.width, deep * segments.depth
            segment = rows[plane, front : front + segments.depth, :, left : left + segments.width]
            if self.page.is_tiled:  # a tile at the edge is stored in full size
                full = (segments.depth, segments.height, segments.width, segments.shape[4])
                segment = np.pad(segment, [(0, n - m) for n, m in zip(full, segment.shape, strict=True)], mode="edge")
            self._put(int(number), self._encode(np.ascontiguousarray(segment, self.dtype)))

    def _encode(self, segment: Array) -> Any:
        predictor = self.page.predictor if self.keeps_encoding else PREDICTOR.NONE
        if predictor != PREDICTOR.NONE:
            segment = TIFF.PREDICTORS[predictor](segment, axis=-2)
        if predictor != PREDICTOR.FLOATINGPOINT:  # which has put the bytes in order itself
            segment = np.ascontiguousarray(segment, self.dtype.newbyteorder(self.tiff.byteorder))
        compress = TIFF.COMPRESSORS[self.compression]
        if self.compression == COMPRESSION.PACKBITS:
            return compress(segment, axis=-2)  # row by row
        return compress(segment.tobytes())

    def _put(self, number: int, encoded: Any) -> None:
        """Write a segment over the old one, or at the end of the file where it is longer."""
        file = self.tiff.filehandle
        if len(encoded) > self.counts[number] or self.offsets[number] in self.used_offsets:
            end = file.seek(0, 2)
            self.offsets[number] = end + end % 2
            if not self.tiff.is_bigtiff and self.offsets[number] + len(encoded) > CLASSIC_LIMIT:
                raise ImageError("would grow beyond the 4 GB that a TIFF file can have; give --format npy")
        self.used_offsets.add(self.offsets[number])
        self.counts[number] = len(encoded)
        file.seek(self.offsets[number])
        file.write(encoded)

    def _finish(self) -> None:
        """Update the page's tags: where its segments are now, and how they are encoded."""
        integer = DATATYPE.LONG8 if self.tiff.is_bigtiff else DATATYPE.LONG
        tags = self.page.tags
        moved = {
            "Offsets": (self.page.dataoffsets, self.offsets),
            "ByteCounts": (self.page.databytecounts, self.counts),
        }
        for kind, (old, new) in moved.items():
            for name in (f"Strip{kind}", f"Tile{kind}"):
                if name in tags and new != list(old):
                    # emptied first, so that the new values go to the end: tifffile would put longer ones where the
                    # old ones were the end of the file as it was opened, over the segments that follow there by now
                    tags[name].overwrite(0, dtype=integer, erase=False).overwrite(new)
        if self.keeps_encoding:
            return
        was_jpeg = self.page.photometric == PHOTOMETRIC.YCBCR
        plain = {
            "BitsPerSample": (self.dtype.itemsize * 8,) * self.page.samplesperpixel,
            "Compression": self.compression,
            "PhotometricInterpretation": PHOTOMETRIC.RGB if was_jpeg else self.page.photometric,
            "FillOrder": 1,
            "Predictor": PREDICTOR.NONE,
            "YCbCrSubSampling": (1, 1),
        }
        for name, value in plain.items():
            if name in tags:
                tags[name].overwrite(value)
