"""Checks of a TIFF file that ``predict`` wrote: read back by tifffile and by libtiff."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from known_nets import Array, denoised, fresh, replaced

from n2n_lightning.image_io.decoding import open_image_file

H, W = 37, 45
PLACES = {273, 279, 324, 325}  # tags: offsets and byte counts of strips and tiles
ENCODING = {258, 259, 262, 266, 317, 530}  # bits, compression, colours, fill order, predictor, subsampling
LAYOUTS = {"strip": {}, "strips": {"rowsperstrip": 7}, "tiles": {"tile": (16, 32)}}
RGB = {"photometric": "rgb"}
GREY = {"photometric": "minisblack"}


def by_libtiff(path: Path) -> Array:
    found: Array = imagecodecs.tiff_decode(path.read_bytes(), index=None)
    return found


def pages_of(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    """Yield all pages, each one before those of its SubIFDs."""
    for page in tiff.pages:
        yield page.aspage()
        yield from page.aspage().pages or ()


def renumber(tiff: tifffile.TiffFile, tag: tifffile.TiffTag, code: int) -> None:
    """Give a tag another number."""
    tiff.filehandle.seek(tag.offset)
    tiff.filehandle.write(struct.pack("<H", code))


def assert_kept(before: Path, after: Path, but: set[int] = PLACES) -> None:
    """Check that all that a file has beside pixels is the same."""
    with tifffile.TiffFile(before) as old, tifffile.TiffFile(after) as new:
        assert (new.byteorder, new.is_bigtiff) == (old.byteorder, old.is_bigtiff)
        assert (new.imagej_metadata, new.ome_metadata) == (old.imagej_metadata, old.ome_metadata)
        assert [(s.axes, s.shape, s.kind) for s in new.series] == [(s.axes, s.shape, s.kind) for s in old.series]
        tags = [[page.tags for page in pages_of(tiff)] for tiff in (old, new)]
        kept = [[{t.code: (t.dtype, t.count, t.value) for t in page if t.code not in but} for page in f] for f in tags]
        assert kept[0] == kept[1] and kept[0]


def assert_rewritten(path: Path, values: Array, *, but: set[int] = PLACES) -> None:
    """Check that a net that changes nothing gives the same values, and that other, longer ones can be written."""
    same = denoised(path)
    found = tifffile.imread(same)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    assert_kept(path, same, but)
    with open_image_file(path) as image:  # axes in the order that ``replaced`` takes
        shape = (image.count * image.shape[0], *image.shape[1:])
    others = fresh(*shape, dtype=values.dtype.str)
    other = replaced(path, others)
    with open_image_file(other) as image:
        found = np.concatenate([image.read(group, 0, shape[1]) for group in range(image.count)])
    np.testing.assert_array_equal(found, others)
    assert np.array_equal(np.sort(tifffile.imread(other), axis=None), np.sort(others, axis=None))
    np.testing.assert_array_equal(by_libtiff(other).ravel(), tifffile.imread(other).ravel())
    assert_kept(path, other, but)
