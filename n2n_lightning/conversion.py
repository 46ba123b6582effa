"""Denoised images written as files of another format than they came in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from n2n_lightning.contents import ORIENTATION, Array, ImageError, upright
from n2n_lightning.encoding import Metadata, check_holds, encode
from n2n_lightning.pictures import Picture, Write

FORMATS = {"bmp": ".bmp", "jpeg": ".jpg", "npy": ".npy", "png": ".png", "tiff": ".tif", "webp": ".webp"}
MAX_CLASSIC_TIFF = 4e9  # bytes
Shape = tuple[int, int, int, int]
Take = Callable[[Array], object]  # the next image, (H, W, C)


def check_convertible(picture: Picture, form: str) -> None:
    """Raises ImageError where the format cannot hold what the file holds."""
    if form in ("npy", "tiff"):
        return
    count, (stacked, _, _, channels) = picture.count, picture.shape
    if count * stacked > 1:
        raise ImageError(f"holds {count * stacked} images, {form} one; give --format tiff or npy")
    check_holds(form, picture.dtype, channels, bool(picture.alphas))


@contextmanager
def converted(picture: Picture, form: str, path: Path) -> Iterator[Write]:
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

        yield write


def without_orientation(metadata: Metadata) -> Metadata:
    """The same for images that have been turned upright."""
    if not metadata.get("exif"):
        return metadata
    exif = Image.Exif()
    exif.load(metadata["exif"])
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return metadata | {"exif": exif.tobytes()}


@contextmanager
def as_npy(path: Path, shape: Shape, dtype: np.dtype[Any], alphas: list[int], metadata: Metadata) -> Iterator[Take]:
    """One array: (H, W), (H, W, C), (N, H, W) or (N, H, W, C)."""
    count, height, width, channels = shape
    stored = (*([count] if count > 1 else []), height, width, *([channels] if channels > 1 else []))
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
