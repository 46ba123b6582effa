"""Images encoded as PNG, JPEG, WebP or BMP, with their metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, PngImagePlugin

from n2n_lightning.image_io.image_file import Array, ImageError, Metadata

JPEG_QUALITY = 95
FULL_CHROMA = 0  # Pillow's number for 4:4:4
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"hIST", b"tRNS", b"IDAT", b"IEND")  # PNG's chunks that belong to an encoding
PIXEL_LAYOUTS = {  # by format: bytes a sample at most; by number of channels, whether alpha is among them
    "bmp": (1, {1: False, 3: False}),
    "jpeg": (1, {1: False, 3: False}),
    "png": (2, {1: False, 2: True, 3: False, 4: True}),
    "webp": (1, {3: False, 4: True}),
}
MAX_SIDE_PX = {"jpeg": 65500, "webp": 16383}  # of their libraries
DPI_LIMITS = {"bmp": (0, 5e7), "jpeg": (1, 65535), "png": (1, 1e8)}  # that can be written
METADATA_KEPT = {  # by format
    "bmp": ("dpi",),
    "jpeg": ("exif", "icc_profile", "xmp", "dpi", "comment"),
    "png": ("exif", "icc_profile", "xmp", "dpi"),
    "webp": ("exif", "icc_profile", "xmp"),
}


def check_layout(form: str, dtype: np.dtype[Any], channels: int, has_alpha: bool) -> None:
    """Refuse an image whose type or channels a format cannot hold."""
    itemsize, layouts = PIXEL_LAYOUTS[form]
    if dtype.kind != "u" or dtype.itemsize > itemsize:
        raise ImageError(f"has {dtype.name} values, which {form} does not hold; give --format tiff or npy")
    if layouts.get(channels) is not has_alpha:
        alpha = " with alpha" if has_alpha else ""
        raise ImageError(f"has {channels} channels{alpha}, which {form} does not hold; give --format png, tiff or npy")


def encode(pixels: Array, form: str, metadata: Metadata, *, png: bytes | None = None, subsampling: int = -1) -> bytes:
    """Encode (H, W, C): JPEG at quality 95, the others without loss.

    Args:
        pixels: an image that passes ``check_layout``.
        form: a key of ``PIXEL_LAYOUTS``.
        metadata: what the format cannot hold is left out.
        png: a PNG file whose own chunks are kept instead of ``metadata``.
        subsampling: of JPEG's colours, Pillow's number; -1 for none.
    """
    pixels = np.ascontiguousarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
    kept = {key: metadata[key] for key in METADATA_KEPT[form] if metadata.get(key)}
    if "dpi" in kept and not all(DPI_LIMITS[form][0] <= value <= DPI_LIMITS[form][1] for value in kept["dpi"]):
        del kept["dpi"]
    if form == "png":
        # a quarter of deflate's time for the same size, within 5 %; but 12 % more where alpha stands beside colours
        fast = {"strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.ALL}
        encoded = imagecodecs.png_encode(pixels, **({} if pixels.ndim == 3 and pixels.shape[2] != 3 else fast))
        return with_chunks_of(png or png_with(kept), bytes(encoded))
    options: dict[str, dict[str, Any]] = {
        "bmp": {"dpi": (0, 0)},  # zero: unknown; Pillow would say 96
        "jpeg": {"quality": JPEG_QUALITY, "subsampling": subsampling if subsampling >= 0 else FULL_CHROMA},
        "webp": {"lossless": True, "exact": True},  # exact: else colours under full transparency are changed
    }
    return pillow_bytes(Image.fromarray(pixels), form.upper(), options[form] | kept)


def pillow_bytes(image: Image.Image, form: str, options: dict[str, Any]) -> bytes:
    """Return the file that Pillow writes."""
    file = io.BytesIO()
    try:
        image.save(file, form, **options)
    except (OSError, ValueError) as error:  # what the format has no room for, such as 64 KB of EXIF in JPEG
        raise ImageError(f"cannot be written as {form} ({error}); give --format tiff or npy") from error
    return file.getvalue()


def png_with(metadata: Metadata) -> bytes:
    """Return a PNG of one pixel that has the metadata."""
    text = PngImagePlugin.PngInfo()
    if "xmp" in metadata:
        text.add_itxt("XML:com.adobe.xmp", metadata["xmp"].decode(errors="replace"))
    return pillow_bytes(Image.new("L", (1, 1)), "PNG", metadata | {"pnginfo": text})


def with_chunks_of(donor: bytes, encoded: bytes) -> bytes:
    """Return a PNG with the pixels of ``encoded`` and all else of ``donor``: text, time, profiles, resolution."""
    header, *_, end = own = list(png_chunks(encoded))
    pixels = [chunk for chunk in own if chunk[0] == b"IDAT"]
    before: list[tuple[bytes, bytes]] = []
    after: list[tuple[bytes, bytes]] = []
    place = before
    for kind, data in png_chunks(donor):
        if kind == b"IDAT":
            place = after
        elif kind not in PIXEL_CHUNKS:
            place.append((kind, data))
    return PNG_SIGNATURE + b"".join(as_chunk(*chunk) for chunk in [header, *before, *pixels, *after, end])


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and data of each chunk up to the last one, which some files lack."""
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND" and start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        yield kind, content[start + 8 : start + 8 + length]
        start += 12 + length


def as_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG's chunk with its length and checksum."""
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
