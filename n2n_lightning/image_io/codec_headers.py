"""The size that a picture inside a TIFF file's segment claims, before anything makes room for it."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

from n2n_lightning.image_io.encoding import PNG_SIGNATURE
from n2n_lightning.image_io.image_file import ImageError

SMALL_PX = 2**16  # that do no harm; what does not fit is the decoder's to refuse
CODESTREAM = b"\xff\x4f\xff\x51"  # JPEG 2000: its start, and the marker of its size
NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG: markers among those of frames that are none
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
FORMS = {  # TIFF's compressions that are pictures of their own
    **dict.fromkeys((6, 7, 33007, 34892), "jpeg"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "jpeg2000"),
    **dict.fromkeys((50002, 52546), "jpegxl"),
    34933: "png",
    50001: "webp",
}
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # JPEG XL: width by height


def check_embedded(data: bytes, compression: int, expected: Sequence[int]) -> None:
    """See that a segment's picture is not larger than the segment.

    Args:
        data: the segment as it is stored.
        compression: TIFF's number, one of those that stand for pictures.
        expected: (depth, height, width, samples).

    Raises:
        ImageError: it is larger, or of a kind that does not tell in a way known here.
    """
    form = FORMS.get(compression)
    if form is None:
        raise ImageError(f"is compressed by TIFF's method {compression}; save it by deflate, LZW, or uncompressed")
    try:
        width, height = SIZES[form](data)
    except (struct.error, IndexError, ValueError) as error:
        raise ImageError(f"holds a damaged {form} picture in a strip or tile; mend or remove it") from error
    depth, rows, columns, _ = expected
    if width * height > max(depth * rows * columns, SMALL_PX):
        raise ImageError(
            f"holds a {form} picture of {width}x{height} px where {columns}x{rows} are due; mend or remove it"
        )


def jpeg_size(data: bytes) -> tuple[int, int]:
    start = 2
    while True:
        if data[start] != 0xFF:
            raise ValueError("no marker")
        kind = data[start + 1]
        if kind == 0xFF:  # filling
            start += 1
        elif kind in WITHOUT_LENGTH:
            start += 2
        elif 0xC0 <= kind <= 0xCF and kind not in NO_FRAME:
            height, width = struct.unpack_from(">HH", data, start + 5)
            return width, height
        else:
            start += 2 + struct.unpack_from(">H", data, start + 2)[0]


def jpeg2000_size(data: bytes) -> tuple[int, int]:
    """The largest of all that there are: the decoder takes one of them."""
    starts = [match.start() for match in re.finditer(re.escape(CODESTREAM), data)]
    areas = [struct.unpack_from(">IIII", data, start + 8) for start in starts]
    return max(((right - left, bottom - top) for right, bottom, left, top in areas), key=math.prod)


def png_size(data: bytes) -> tuple[int, int]:
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError("no signature")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise ValueError("no known chunk")


def jpegxl_size(data: bytes) -> tuple[int, int]:
    """Source: ISO/IEC 18181-1, SizeHeader, and 18181-2, boxes."""
    start = 0
    while not data.startswith(b"\xff\x0a", start):
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind in (b"jxlc", b"jxlp"):
            start += 8 if kind == b"jxlc" else 12
            break
        if length < 8:
            raise ValueError("no codestream")
        start += length
    bits = int.from_bytes(data[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        taken, bits = bits & (1 << count) - 1, bits >> count
        return taken

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    across, down = RATIOS.get(ratio, (1, 1))
    return (height * across // down if ratio else side()), height


SIZES = {"jpegxl": jpegxl_size, "jpeg": jpeg_size, "jpeg2000": jpeg2000_size, "png": png_size, "webp": webp_size}
