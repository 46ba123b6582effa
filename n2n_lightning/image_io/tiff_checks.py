"""Whether a TIFF file has what its headers say, asked before memory is taken for it."""

from __future__ import annotations

import math
from xml.etree import ElementTree  # tifffile's parser too; its expat ends entities that grow

from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

from n2n_lightning.image_io.image_file import ImageError, check_packing


def check_ome(tiff: TiffFile) -> None:
    """See that an OME header counts no pages that are elsewhere: tifffile makes room for any number of them.

    The files are to be opened with ``_multifile=False``, for a header can name a pipe, or another's file, to be read.
    """
    try:
        header = ElementTree.fromstring(tiff.ome_metadata or "<none/>")
    except ElementTree.ParseError:  # then tifffile does without
        return
    counts = [
        math.prod(int(pixels.attrib.get(f"Size{axis}", 1)) for axis in "CZT")
        for pixels in header.iter()
        if pixels.tag.endswith("Pixels")
    ]
    if not counts:
        return
    planes = len(tiff.pages) * tiff.pages.first.samplesperpixel  # a channel each
    if max(counts) > planes or tiff.series[0].kind != "ome":
        raise ImageError("has a header that counts pages of other files; save it as one file")


def check_pages(tiff: TiffFile) -> None:
    """See that the chain of pages has an end: of a file that was cut off tifffile gives the pages before the cut."""
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)  # zero in the last page
    misfit = tiff.is_imagej and tiff.series[0].kind == "generic"  # ImageJ's header counts images that are not there
    if misfit or len(pointer) < tiff.tiff.offsetsize or any(pointer):
        raise ImageError(f"is cut off after page {len(tiff.pages)}; mend or remove it")


def check_room(tiff: TiffFile, series: TiffPageSeries) -> None:
    """See that the file is as large as its header says."""
    page, size, offset = series.keyframe, tiff.filehandle.size, series.dataoffset
    assert page.dtype is not None
    claimed = math.prod(series.shape) * page.dtype.itemsize
    if offset is None:
        check_segments(page, size)
        check_packing(claimed, size)
    elif offset + claimed > size:
        raise ImageError(f"is cut off, {offset + claimed - size} bytes of pixels are missing; mend or remove it")


def check_segments(page: TiffPage | TiffFrame, file_size: int) -> None:
    """See that every strip or tile is there: tifffile fills up what is missing."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True) if count]
    if not page.is_contiguous and (len(ends) != math.prod(page.chunked) or max(ends) > file_size):
        raise ImageError(f"lacks strips or tiles of page {page.index}; mend or remove it")
