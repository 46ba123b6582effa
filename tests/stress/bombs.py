"""Make hostile files: they claim or decompress to far more than they hold, or lead readers in circles or elsewhere."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np

from n2n_lightning.image_io.encoding import PNG_SIGNATURE, as_chunk
from stress.originals import photo, photos, pixels, tiff, tiffs

SIDE, HUGE = 5_000, 30_000  # px: side of images that decompress to it, and of images that only claim it
WIDTH, LENGTH, STRIPS, ROWS_PER_STRIP, COUNTS, SUBIFDS = 256, 257, 273, 278, 279, 330
GREY: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
OME = """<?xml version="1.0" encoding="UTF-8"?>{doctype}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0" Name="{name}"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="48" SizeY="40"
SizeC="1" SizeZ="{pages}" SizeT="1"><TiffData IFD="0" PlaneCount="1">{other}</TiffData></Pixels></Image></OME>"""


@functools.cache  # some take a second
def bombs() -> dict[str, bytes]:
    """Return the files' bytes by name."""
    return photo_bombs() | tiff_claims() | tiff_chains() | tiff_headers() | inner_bombs() | npy_headers()


def png_of(width: int, height: int, bits: int, data: bytes) -> bytes:
    header = as_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return PNG_SIGNATURE + header + as_chunk(b"IDAT", data) + as_chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """Return ``count`` zeros (at least), compressed."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(count // 2**20 + 1))
    return packed + packer.flush()


def packed_png(bits: int = 8) -> bytes:
    return png_of(SIDE, SIDE, bits, zeros(SIDE * (SIDE * 3 * bits // 8 + 1)))


def packed_webp() -> bytes:
    return photo(np.zeros((SIDE, SIDE, 3), np.uint8), "WEBP", lossless=True, method=0, quality=0)


def replaced(content: bytes, marker: bytes, skip: int, values: bytes) -> bytes:
    start = content.index(marker) + skip
    return content[:start] + values + content[start + len(values) :]


def photo_bombs() -> dict[str, bytes]:
    good, size = photos(), struct.pack(">HH", HUGE, HUGE)
    return {
        "unfolds.png": packed_png(),
        "unfolds_deep.png": packed_png(16),
        "unfolds.webp": packed_webp(),
        "claims.png": png_of(HUGE, HUGE, 8, zlib.compress(bytes(99))),
        "claims_deep.png": png_of(HUGE, HUGE, 16, zlib.compress(bytes(99))),
        "claims.jpg": replaced(good["colour.jpg"], b"\xff\xc0", 5, size),
        "claims_progressive.jpg": replaced(good["progressive.jpg"], b"\xff\xc2", 5, size),
        "claims.bmp": replaced(good["colour.bmp"], b"BM", 18, struct.pack("<ii", HUGE, HUGE)),
    }


def entries(content: bytes) -> dict[int, int]:
    """Return the position of each tag of a classic little-endian TIFF's first page, by code."""
    (ifd,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, ifd)
    places = range(ifd + 2, ifd + 2 + 12 * count, 12)
    return {struct.unpack_from("<H", content, place)[0]: place for place in places}


def retagged(content: bytes, **values: int) -> bytes:
    """Give tags of the first page other 32-bit values: ``t256=7``."""
    data, places = bytearray(content), entries(content)
    for name, value in values.items():
        struct.pack_into("<HII", data, places[int(name[1:])] + 2, 4, 1, value)
    return bytes(data)


def tiff_claims() -> dict[str, bytes]:
    good = tiffs()
    claims = {f"t{WIDTH}": HUGE, f"t{LENGTH}": HUGE}
    packed = {
        f"claims_{name}.tif": retagged(good[f"{name}.tif"], **claims, **{f"t{ROWS_PER_STRIP}": HUGE})
        for name in ("deflate", "lzma", "packbits", "jpeg2000", "webp", "png")
    }
    most = {f"t{WIDTH}": 2**31 - 1, f"t{LENGTH}": 2**31 - 1}
    many = {f"t{WIDTH}": 2**19, f"t{LENGTH}": 2**19}
    return packed | {
        "claims.tif": retagged(good["plain.tif"], **claims),
        "claims_tiles.tif": retagged(good["zstd_tiles.tif"], **most),
        "many_tiles.tif": retagged(good["zstd_tiles.tif"], **many),
        "many_strips.tif": retagged(good["lzw.tif"], **{f"t{LENGTH}": 2**31 - 1, f"t{ROWS_PER_STRIP}": 1}),
    }


def tiff_chains() -> dict[str, bytes]:
    """Make chains of pages that lead back, and tags with far too many values."""
    content = tiffs()["packed_pages.tif"]
    offsets, place = [], 4
    while offset := struct.unpack_from("<I", content, place)[0]:
        offsets.append(offset)
        place = offset + 2 + 12 * struct.unpack_from("<H", content, offset)[0]
    made = {}
    for number, target in enumerate(offsets):
        data = bytearray(content)
        struct.pack_into("<I", data, place, target)
        made[f"chain_{number}.tif"] = bytes(data)
    pyramid = tiffs()["pyramid.tif"]
    made["chain_below.tif"] = retagged(pyramid, **{f"t{SUBIFDS}": struct.unpack_from("<I", pyramid, 4)[0]})
    plain = tiffs()["plain.tif"]
    for code, place in entries(plain).items():
        data = bytearray(plain)
        struct.pack_into("<I", data, place + 4, 2**32 - 1)
        made[f"count_{code}.tif"] = bytes(data)
    return made


def tiff_headers() -> dict[str, bytes]:
    """Make descriptions that claim far too many pages, name other files, or expand without end."""

    def described(text: str) -> bytes:
        return tiff(pixels(40, 48, dtype="u2"), description=text, **GREY)

    def ome(pages: int = 1, name: str = "", doctype: str = "", other: str = "") -> bytes:
        return described(OME.format(pages=pages, name=name, doctype=doctype, other=other))

    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    uuid = '<UUID FileName="{}">urn:uuid:1</UUID>'
    return {
        "ome_laughs.tif": ome(name="&l9;", doctype=f'<!DOCTYPE l [<!ENTITY l0 "laughter">{laughs}]>'),
        "ome_counts.tif": ome(pages=10**8),
        "ome_other.tif": ome(pages=2, other=uuid.format("../../../../other.tif")),
        "ome_device.tif": ome(pages=2, other=uuid.format("/dev/tty")),
        "imagej_counts.tif": described("ImageJ=1.11a\nimages=100000000\nslices=100000000\n"),
        "json_counts.tif": described('{"shape": [100000000, 40, 48]}'),
        "json_nested.tif": described(f'{{"shape": {"[" * 90_000}{"]" * 90_000}}}'),
    }


def inner_bombs() -> dict[str, bytes]:
    """Make strips whose streams decompress to far more than the strip can hold."""
    black = np.zeros((SIDE, SIDE), np.uint8)
    streams = {
        "deflate": zeros(5 * 10**7),
        "zstd": imagecodecs.zstd_encode(bytes(5 * 10**7)),
        "lzma": imagecodecs.lzma_encode(bytes(5 * 10**7)),
        "png": packed_png(),
        "webp": packed_webp(),
        "jpeg": photo(np.zeros((SIDE, SIDE, 3), np.uint8), "JPEG"),
        "jpeg2000": imagecodecs.jpeg2k_encode(black[:4000, :4000]),
        "jpegxl": imagecodecs.jpegxl_encode(black[:4000]),
    }
    made = {}
    for name, stream in streams.items():
        content = tiff(pixels(40, 48, 3), photometric="rgb", compression=name)
        strip = {f"t{STRIPS}": len(content), f"t{COUNTS}": len(stream)}
        made[f"inner_{name}.tif"] = retagged(content, **strip) + stream
    return made


def npy_headers() -> dict[str, bytes]:
    shapes = (
        *("(4294967296, 4294967296, 1)", "(18446744073709551616, 2)", "(-4, -10)", "(-1, 40, 40)", "(1e3, 3)"),
        *("(100000000000, 0, 3)", "(10**9, 3)", "(2, 2, 100000)", "()", "(" * 900, "[" * 60_000, " " * 9_000),
    )
    made = {f"shape_{number}.npy": npy_of(shape) for number, shape in enumerate(shapes)}
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    return made | {
        "objects.npy": objects.getvalue(),
        "records.npy": npy_of("(10, 10)", "[('a', '<f4', (1000, 1000))]"),
        "long.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
    }


def npy_of(shape: str, descr: str = "'|u1'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(1000)
