"""Checks that a TIFF file has what its headers say, made before memory is taken for it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from xml.etree import ElementTree  # tifffile's parser too; its expat refuses entities that grow

from tifffile import COMPRESSION, PHOTOMETRIC, TIFF, TiffFile, TiffFrame, TiffPage, TiffPageSeries

from n2n_lightning.image_io.image_file import ImageError, check_packing
from n2n_lightning.image_io.photo import open_pillow

JPEG_COMPRESSIONS = (6, 7)  # which tifffile decodes from YCbCr to RGB
SMALL_PX = 2**16  # an embedded image of this size does no harm; the decoder refuses it if it does not fit
PILLOW_CODECS = {  # compressions whose segments are images of a format that Pillow knows
    **dict.fromkeys((6, 7, 33007, 34892), "JPEG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG2000"),
    34933: "PNG",
    50001: "WEBP",
}
JPEG2000_START = b"\xff\x4f\xff\x51"  # of the codestream, which tells its size
PHOTOMETRIC_FAULTS: dict[int | None, str] = {  # kinds of colours that are not read
    PHOTOMETRIC.MINISWHITE: "has values other than unsigned integers where 0 is white",
    PHOTOMETRIC.PALETTE: "has a palette of colours instead of RGB",
    PHOTOMETRIC.SEPARATED: "has colours for printing (CMYK) instead of RGB",
}
SAVE_OTHERWISE = "save it by deflate, LZW, or uncompressed"


def check_ome(tiff: TiffFile) -> None:
    """Refuse an OME header that counts pages of other files: tifffile makes room for any number of them.

    Open the file with ``_multifile=False``, because a header can name a pipe, or any other file, to be read.
    """
    try:
        header = ElementTree.fromstring(tiff.ome_metadata or "<none/>")
    except ElementTree.ParseError:  # then tifffile ignores the header
        return
    counts = [
        math.prod(int(pixels.attrib.get(f"Size{axis}", 1)) for axis in "CZT")
        for pixels in header.iter()
        if pixels.tag.endswith("Pixels")
    ]
    if not counts:
        return
    planes = len(tiff.pages) * tiff.pages.first.samplesperpixel  # one channel each
    if max(counts) > planes or tiff.series[0].kind != "ome":
        raise ImageError("has a header that counts pages of other files; save it as one file")


def check_pages(tiff: TiffFile) -> None:
    """Refuse a file whose chain of pages has no end: of a file that was cut off tifffile gives the first pages."""
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)  # zero in the last page
    misfit = tiff.is_imagej and tiff.series[0].kind == "generic"  # ImageJ's header counts images that are not there
    if misfit or len(pointer) < tiff.tiff.offsetsize or any(pointer):
        raise ImageError(f"is cut off after page {len(tiff.pages)}; fix or remove it")


def check_length(tiff: TiffFile, series: TiffPageSeries) -> None:
    """Refuse a file that is shorter than its header says."""
    page, size, offset = series.keyframe, tiff.filehandle.size, series.dataoffset
    assert page.dtype is not None
    claimed = math.prod(series.shape) * page.dtype.itemsize
    if offset is None:
        check_segments(page, size)
        check_packing(claimed, size)
    elif offset + claimed > size:
        raise ImageError(f"is cut off, {offset + claimed - size} bytes of pixels are missing; fix or remove it")


def check_segments(page: TiffPage | TiffFrame, file_size: int) -> None:
    """Refuse a page that lacks strips or tiles: tifffile fills them in."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True) if count]
    if not page.is_contiguous and (len(ends) != math.prod(page.chunked) or max(ends) > file_size):
        raise ImageError(f"lacks strips or tiles of page {page.index + 1}; fix or remove it")


def check_colours(page: TiffPage) -> None:
    """Refuse samples that are neither grey nor RGB; grey where 0 is white must be of unsigned integers."""
    decoded = page.photometric == PHOTOMETRIC.YCBCR and page.compression in JPEG_COMPRESSIONS
    if is_inverted(page) and page.dtype is not None and page.dtype.kind == "u":
        return
    if page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB) and not decoded:
        name = getattr(page.photometric, "name", page.photometric)
        what = PHOTOMETRIC_FAULTS.get(page.photometric, f"has colours of the kind {name}")
        raise ImageError(f"{what}; save it as RGB or grey with 0 as black (in Fiji: Image > Type > RGB Color or 8-bit)")
    if page.dtype is None:
        raise ImageError(f"has samples of {page.bitspersample} bits; convert them to 8, 16 or 32")


def is_inverted(page: TiffPage) -> bool:
    """Return whether 0 is white."""
    return page.photometric == PHOTOMETRIC.MINISWHITE


def check_compression(page: TiffPage) -> None:
    """Refuse strips and tiles that are images of a format whose size cannot be checked before it is decoded."""
    if page.compression in TIFF.IMAGE_COMPRESSIONS and page.compression not in PILLOW_CODECS:
        name = COMPRESSION(page.compression).name
        raise ImageError(f"is compressed by {name}, which is not supported inside TIFF; {SAVE_OTHERWISE}")


def check_embedded(data: bytes, compression: int, expected: Sequence[int]) -> None:
    """Refuse a strip or tile that holds an image larger than itself.

    Args:
        data: the strip or tile as it is stored.
        compression: TIFF's number, a key of ``PILLOW_CODECS``.
        expected: (depth, height, width) of the strip or tile, px.
    """
    width, height = embedded_size(data, PILLOW_CODECS[compression])
    if width * height > max(math.prod(expected), SMALL_PX):
        raise ImageError(
            f"holds a {PILLOW_CODECS[compression]} image of {width}x{height} px in a strip or tile of "
            f"{expected[2]}x{expected[1]} px; fix or remove it"
        )


def embedded_size(data: bytes, codec: str) -> tuple[int, int]:
    """Return width and height of an encoded image from its header."""
    try:
        if codec == "JPEG2000":  # a box around the codestream could claim another size
            _, codestream = data.split(JPEG2000_START)
            data = JPEG2000_START + codestream
        with open_pillow(io.BytesIO(data), (codec,)) as image:
            return image.size
    except Exception as error:  # damaged bytes make Pillow raise anything
        raise ImageError(f"holds a damaged or unusual {codec} image in a strip or tile; {SAVE_OTHERWISE}") from error
