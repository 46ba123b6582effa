"""Denoised images written as files of another format than they came in."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.image_io.banded import XMP, BandedImage, Write
from n2n_lightning.image_io.decoding import as_images
from n2n_lightning.image_io.encoding import MAX_SIDE, Metadata, check_holds, encode
from n2n_lightning.image_io.image_file import ORIENTATION, Array, ImageError, naming, upright

FORMATS = {"bmp": ".bmp", "jpeg": ".jpg", "npy": ".npy", "png": ".png", "tiff": ".tif", "webp": ".webp"}
BYTES, LONG = 1, 4  # types of TIFF's and EXIF's tags
EXIF_START = b"Exif\0\0"
MAX_CLASSIC_TIFF = 4e9  # bytes
Shape = tuple[int, int, int, int]
Take = Callable[[Array], object]  # the next image, (H, W, C)


def check_convertible(picture: BandedImage, form: str) -> None:
    """Raises ImageError where the format cannot hold what the file holds."""
    if form in ("npy", "tiff"):
        return
    count, (stacked, height, width, channels) = picture.count, picture.shape
    if count * stacked > 1:
        raise ImageError(f"holds {count * stacked} images, {form} one; give --format tiff or npy")
    check_holds(form, picture.dtype, channels, bool(picture.alphas))
    if max(height, width) > MAX_SIDE.get(form, math.inf):
        raise ImageError(f"has {width}x{height} px, {form} at most {MAX_SIDE[form]} a side; give --format tiff or npy")


@contextmanager
def converted(picture: BandedImage, form: str, path: Path) -> Iterator[Write]:
    """A context in which a file of another format is written: upright images, with the metadata that it can hold."""
    _, height, width, channels = picture.shape
    group_rows = np.empty(picture.shape, picture.dtype.newbyteorder("="))
    turned = (width, height) if 5 <= picture.orientation <= 8 else (height, width)
    shape = (picture.count * picture.shape[0], *turned, channels)
    metadata = without_orientation(picture.metadata())
    writer: Callable[..., Any] = {"npy": as_npy, "tiff": as_tiff}.get(form) or as_photo(form)
    with writer(path, shape, group_rows.dtype, picture.alphas, metadata) as take:

        def write(group: int, top: int, rows: Array) -> None:
            group_rows[:, top : top + rows.shape[1]] = rows
            if top + rows.shape[1] == height:
                for image in group_rows:
                    take(upright(image, picture.orientation))

        yield naming(picture.path)(write)


def without_orientation(metadata: Metadata) -> Metadata:
    """The same for images that have been turned upright."""
    exif, xmp = metadata.get("exif"), metadata.get("xmp")
    upright_exif = {"exif": exif_upright(exif)} if exif else {}
    upright_xmp = {"xmp": re.sub(rb'(tiff:Orientation(?:="|>))[2-8]', rb"\g<1>1", xmp)} if xmp else {}
    return metadata | upright_exif | upright_xmp


def exif_upright(exif: bytes) -> bytes:
    """The same bytes, with 1 for the orientation: makers' notes are of no use once they are somewhere else."""
    data = bytearray(exif.removeprefix(EXIF_START))
    order = "<" if data.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            code, kind = struct.unpack_from(f"{order}HH", data, entry)
            if code == ORIENTATION:
                struct.pack_into(f"{order}{'I' if kind == LONG else 'H'}", data, entry + 8, 1)
    except struct.error:  # no EXIF, or a damaged one, in which readers find no orientation either
        pass
    return EXIF_START + bytes(data)


@contextmanager
def as_npy(path: Path, shape: Shape, dtype: np.dtype[Any], alphas: list[int], metadata: Metadata) -> Iterator[Take]:
    """One array: (H, W), (H, W, C) or (N, H, W) where it would be read as such, else (N, H, W, C)."""
    count, height, width, channels = shape
    stored = (*([count] if count > 1 else []), height, width, *([channels] if channels > 1 else []))
    if as_images(np.broadcast_to(0, stored)).shape != shape:
        stored = shape
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": stored}
        )
        yield lambda image: file.write(np.ascontiguousarray(image).data)


@contextmanager
def as_tiff(path: Path, shape: Shape, dtype: np.dtype[Any], alphas: list[int], metadata: Metadata) -> Iterator[Take]:
    """A page for each image."""
    channels, dpi = shape[3], metadata.get("dpi")
    rgb = channels - len(alphas) == 3
    extra = [2 if channel in alphas else 0 for channel in range(3 if rgb else 1, channels)]
    settings: dict[str, Any] = {
        "photometric": "rgb" if rgb else "minisblack",
        "extrasamples": extra or None,
        "planarconfig": "contig" if channels > 1 else None,
        "iccprofile": metadata.get("icc_profile"),
        "resolution": dpi,
        "resolutionunit": "inch" if dpi else None,
        "extratags": [(XMP, BYTES, len(metadata["xmp"]), metadata["xmp"], True)] if metadata.get("xmp") else None,
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=math.prod(shape) * dtype.itemsize > MAX_CLASSIC_TIFF) as tiff:
        yield lambda image: tiff.write(image.squeeze(-1) if channels == 1 else image, **settings)


def as_photo(form: str) -> Callable[..., Any]:
    """PNG, JPEG, WebP or BMP: one image."""

    @contextmanager
    def writer(path: Path, shape: Shape, dtype: np.dtype[Any], alphas: list[int], metadata: Metadata) -> Iterator[Take]:
        yield lambda image: path.write_bytes(encode(image, form, metadata))

    return writer
