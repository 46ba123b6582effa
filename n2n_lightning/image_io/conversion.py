"""Denoised images written to a file: of the same format with all else as it was, or of another one."""

from __future__ import annotations

import math
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2n_lightning.image_io.encoding import MAX_SIDE_PX, check_layout, encode
from n2n_lightning.image_io.image_file import (
    ORIENTATION_TAG,
    Array,
    ImageError,
    ImageReader,
    Metadata,
    name_file,
    turned,
    upright,
)
from n2n_lightning.image_io.npy import as_images, load_npy, one_image
from n2n_lightning.image_io.photo import PhotoReader
from n2n_lightning.image_io.tiff_reading import XMP_TAG, TiffReader
from n2n_lightning.image_io.tiff_rewriting import TiffRewriter

EXIF_START = b"Exif\0\0"
MAX_CLASSIC_TIFF = 4e9  # bytes
WriteRows = Callable[[int, int, Array], None]  # group of images, first row, (images, rows, W, C)
WriteImage = Callable[[Array], object]  # the next image, (H, W, C)
Shape = tuple[int, int, int, int]  # (N, H, W, C)


def check_convertible(image: ImageReader, form: str) -> None:
    """Refuse a file whose images a format cannot hold: too many, too large, or of another type."""
    if form in ("npy", "tiff") or (form == image.form and not image.alphas):
        return
    count, (stacked, height, width, channels) = image.count, image.shape
    if count * stacked > 1:
        raise ImageError(f"holds {count * stacked} images, {form} one; give --format tiff or npy")
    check_layout(form, image.dtype, channels, bool(image.alphas))
    most = MAX_SIDE_PX.get(form, math.inf)
    if max(height, width) > most:
        raise ImageError(f"has {width}x{height} px, {form} at most {most} a side; give --format tiff or npy")


def open_output(image: ImageReader, form: str, path: Path) -> AbstractContextManager[WriteRows]:
    """Open a file for denoised images, whose rows are written group by group from the top down.

    Args:
        image: the file that the images come from.
        form: a key of ``FORMAT_SUFFIXES``. The image's own keeps all but the pixels as it is. Another gives upright
            images, with the metadata that it can hold.
        path: of the new file.
    """
    if form == image.form and form in ("npy", "tiff"):
        return rewritten(image, path)
    return encoded(image, form, path)


@contextmanager
def rewritten(image: ImageReader, path: Path) -> Iterator[WriteRows]:
    """Copy an NPY or TIFF file, and write rows into the copy."""
    shutil.copyfile(image.path, path)
    if image.form == "npy":
        yield lambda group, top, rows: write_npy_rows(path, group, top, rows, image.given_axes)
        return
    with tifffile.TiffFile(path, mode="r+", _multifile=False) as copy:
        yield name_file(image.path)(TiffRewriter(copy, TiffReader(copy, image.path, image.given_axes)).write)


def write_npy_rows(path: Path, group: int, top: int, rows: Array, axes: str | None) -> None:
    """Write rows into an array's file, which is mapped anew for each band, so that memory does not grow with them."""
    one_image(as_images(load_npy(path, "r+"), axes), group)[top : top + rows.shape[1]] = rows[0]


@contextmanager
def encoded(image: ImageReader, form: str, path: Path) -> Iterator[WriteRows]:
    """Collect the rows of each group, and write its images once they are complete."""
    _, height, width, channels = image.shape
    kept = form == image.form
    orientation = 1 if kept else image.orientation
    options = image.encoding() if kept and isinstance(image, PhotoReader) else {}
    metadata = {} if "png" in options else image.metadata()
    metadata = metadata if kept else without_orientation(metadata)
    group_rows = np.empty(image.shape, image.dtype.newbyteorder("="))
    shape = (image.count * image.shape[0], *turned(height, width, orientation), channels)
    writer: AbstractContextManager[WriteImage]
    match form:
        case "npy":
            writer = npy_writer(path, shape, group_rows.dtype)
        case "tiff":
            writer = tiff_writer(path, shape, group_rows.dtype, image.alphas, metadata)
        case _:
            writer = nullcontext(lambda pixels: path.write_bytes(encode(pixels, form, metadata, **options)))
    with writer as write_image:

        def write(group: int, top: int, rows: Array) -> None:
            group_rows[:, top : top + rows.shape[1]] = rows
            if top + rows.shape[1] == height:
                for pixels in group_rows:
                    write_image(upright(pixels, orientation))

        yield name_file(image.path)(write)


def without_orientation(metadata: Metadata) -> Metadata:
    """Return the metadata of images that have been turned upright."""
    exif, xmp = metadata.get("exif"), metadata.get("xmp")
    upright_exif = {"exif": exif_upright(exif)} if exif else {}
    upright_xmp = {"xmp": re.sub(rb'(tiff:Orientation(?:="|>))[2-8]', rb"\g<1>1", xmp)} if xmp else {}
    return metadata | upright_exif | upright_xmp


def exif_upright(exif: bytes) -> bytes:
    """Return the same bytes with 1 for the orientation: makers' notes are of no use once they lie elsewhere."""
    data = bytearray(exif.removeprefix(EXIF_START))
    order = "<" if data.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            code, kind = struct.unpack_from(f"{order}HH", data, entry)
            if code == ORIENTATION_TAG:
                struct.pack_into(f"{order}{'I' if kind == tifffile.DATATYPE.LONG else 'H'}", data, entry + 8, 1)
    except struct.error:  # no EXIF, or a damaged one, in which readers find no orientation either
        pass
    return EXIF_START + bytes(data)


@contextmanager
def npy_writer(path: Path, shape: Shape, dtype: np.dtype[Any]) -> Iterator[WriteImage]:
    """Write one array: (H, W), (H, W, C) or (N, H, W) where it would be read as such, else (N, H, W, C)."""
    count, height, width, channels = shape
    stored = (*([count] if count > 1 else []), height, width, *([channels] if channels > 1 else []))
    if as_images(np.broadcast_to(0, stored)).shape != shape:
        stored = shape
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": stored}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda image: file.write(np.ascontiguousarray(image).data)


@contextmanager
def tiff_writer(
    path: Path, shape: Shape, dtype: np.dtype[Any], alphas: list[int], metadata: Metadata
) -> Iterator[WriteImage]:
    """Write a page for each image."""
    channels, dpi, xmp = shape[3], metadata.get("dpi"), metadata.get("xmp")
    rgb = channels - len(alphas) == 3
    extra = [2 if channel in alphas else 0 for channel in range(3 if rgb else 1, channels)]
    settings: dict[str, Any] = {
        "photometric": "rgb" if rgb else "minisblack",
        "extrasamples": extra or None,
        "planarconfig": "contig" if channels > 1 else None,
        "iccprofile": metadata.get("icc_profile"),
        "resolution": dpi,
        "resolutionunit": "inch" if dpi else None,
        "extratags": [(XMP_TAG, tifffile.DATATYPE.BYTE, len(xmp), xmp, True)] if xmp else None,
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=math.prod(shape) * dtype.itemsize > MAX_CLASSIC_TIFF) as tiff:
        yield lambda image: tiff.write(image.squeeze(-1) if channels == 1 else image, **settings)
