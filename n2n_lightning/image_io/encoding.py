"""Whole images encoded as PNG, JPEG, WebP or BMP, with what is known of them beside the pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, PngImagePlugin

from n2n_lightning.image_io.image_file import Array, ImageError

JPEG_QUALITY = 95
FULL_CHROMA = 0  # Pillow's number for 4:4:4
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
OF_THE_PIXELS = (b"IHDR", b"PLTE", b"hIST", b"tRNS", b"IDAT", b"IEND")  # PNG's chunks that belong to an encoding
Metadata = dict[str, Any]  # Pillow's names: exif, icc_profile, xmp (bytes), dpi (a pair), comment
HOLDS = {  # format: bytes a sample at most, channels with alpha
    "bmp": (1, {1: False, 3: False}),
    "jpeg": (1, {1: False, 3: False}),
    "png": (2, {1: False, 2: True, 3: False, 4: True}),
    "webp": (1, {3: False, 4: True}),
}
MAX_SIDE = {"jpeg": 65500, "webp": 16383}  # px, of their libraries
DPI = {"bmp": (0, 5e7), "jpeg": (1, 65535), "png": (1, 1e8)}  # that can be written
TAKES = {  # which metadata each can hold
    "bmp": ("dpi",),
    "jpeg": ("exif", "icc_profile", "xmp", "dpi", "comment"),
    "png": ("exif", "icc_profile", "xmp", "dpi"),
    "webp": ("exif", "icc_profile", "xmp"),
}


def check_holds(form: str, dtype: np.dtype[Any], channels: int, has_alpha: bool) -> None:
    """See that a format can hold such an image.

    Raises:
        ImageError: it cannot.
    """
    itemsize, kinds = HOLDS[form]
    if dtype.kind != "u" or dtype.itemsize > itemsize:
        raise ImageError(f"has {dtype.name} values, which {form} does not hold; give --format tiff or npy")
    if kinds.get(channels) is not has_alpha:
        alpha = " with alpha" if has_alpha else ""
        raise ImageError(f"has {channels} channels{alpha}, which {form} does not hold; give --format png, tiff or npy")


def encode(pixels: Array, form: str, metadata: Metadata, *, png: bytes | None = None, subsampling: int = -1) -> bytes:
    """(H, W, C) -> a file's bytes: JPEG at quality 95, the others without loss.

    Args:
        pixels: as ``check_holds`` wants them.
        form: a key of ``HOLDS``.
        metadata: what the format cannot hold is left out.
        png: a PNG file whose own chunks are kept instead of ``metadata``.
        subsampling: of JPEG's colours, Pillow's number; -1 for none.
    """
    pixels = np.ascontiguousarray(pixels)
    kept = {key: metadata[key] for key in TAKES[form] if metadata.get(key)}
    if "dpi" in kept and not all(DPI[form][0] <= value <= DPI[form][1] for value in kept["dpi"]):
        del kept["dpi"]
    if form == "png":
        encoded = imagecodecs.png_encode(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
        return with_chunks_of(png or png_donor(kept), bytes(encoded))
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
    match form:
        case "jpeg":
            chroma = subsampling if subsampling >= 0 else FULL_CHROMA
            return pillow(image, "JPEG", kept | {"quality": JPEG_QUALITY, "subsampling": chroma})
        case "webp":  # exact: else colours under full transparency are changed
            return pillow(image, "WEBP", kept | {"lossless": True, "exact": True})
    return pillow(image, "BMP", {"dpi": (0, 0)} | kept)  # zero: unknown; Pillow would say 96


def pillow(image: Image.Image, form: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    try:
        image.save(file, form, **options)
    except (OSError, ValueError) as error:  # what the format has no room for, such as 64 KB of EXIF in JPEG
        raise ImageError(f"cannot be written as {form} ({error}); give --format tiff or npy") from error
    return file.getvalue()


def png_donor(metadata: Metadata) -> bytes:
    """A PNG that has the metadata, to take its chunks from."""
    text = PngImagePlugin.PngInfo()
    if "xmp" in metadata:
        text.add_itxt("XML:com.adobe.xmp", metadata["xmp"].decode(errors="replace"))
    return pillow(Image.new("L", (1, 1)), "PNG", metadata | {"pnginfo": text})


def with_chunks_of(donor: bytes, encoded: bytes) -> bytes:
    """A PNG with the pixels of ``encoded`` and all else, text and time and profiles and resolution, of ``donor``."""
    header, *_, end = own = list(png_chunks(encoded))
    pixels = [chunk for chunk in own if chunk[0] == b"IDAT"]
    before: list[tuple[bytes, bytes]] = []
    after: list[tuple[bytes, bytes]] = []
    place = before
    for kind, data in png_chunks(donor):
        if kind == b"IDAT":
            place = after
        elif kind not in OF_THE_PIXELS:
            place.append((kind, data))
    return PNG_SIGNATURE + b"".join(as_chunk(*chunk) for chunk in [header, *before, *pixels, *after, end])


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk up to the last, which some files lack."""
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND" and start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        yield kind, content[start + 8 : start + 8 + length]
        start += 12 + length


def as_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
