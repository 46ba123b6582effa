"""Make good files of every kind that can be read, small enough to be damaged by the thousand."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image, PngImagePlugin

from n2n_lightning.image_io.image_file import Array
from n2n_lightning.system.folders import weights_folder

HEIGHT, WIDTH = 40, 48
TIFFS: dict[str, dict[str, Any]] = {  # name: tifffile's options; the pixels are RGB of 8 bits
    "plain": {},
    "strips": {"rowsperstrip": 7},
    "big_endian": {"byteorder": ">"},
    "tiles": {"tile": (16, 16)},
    "planes": {"planarconfig": "separate", "rowsperstrip": 16},
    "bigtiff": {"bigtiff": True, "compression": "zlib", "rowsperstrip": 9},
    "deflate": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw", "rowsperstrip": 16},
    "zstd_tiles": {"compression": "zstd", "tile": (16, 32)},
    "lzma": {"compression": "lzma"},
    "packbits": {"compression": "packbits"},
    "jpeg": {"compression": "jpeg", "tile": (16, 16)},
    "jpeg2000": {"compression": "jpeg2000"},
    "webp": {"compression": "webp"},
    "png": {"compression": "png"},
    "pyramid": {"compression": "zlib", "subifds": 1},
}


def originals() -> dict[str, bytes]:
    """Return the files' bytes by name; the suffix says how they are read."""
    return photos() | tiffs() | arrays() | tensors()


def pixels(*shape: int, dtype: str = "u1", most: float = 255) -> Array:
    """Make an image of slopes with noise: (H, W) or more axes, in 0..most."""
    rng = np.random.default_rng(len(shape))
    slopes = np.indices(shape).sum(0) * (most / 2 / sum(shape))
    values: Array = np.clip(slopes + rng.uniform(0, most / 4, shape), 0, most).astype(dtype)
    return values


def photo(values: Array, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, form, **options)
    return file.getvalue()


def photos() -> dict[str, bytes]:
    colour, grey = pixels(HEIGHT, WIDTH, 3), pixels(HEIGHT, WIDTH)
    opaque = np.dstack([colour, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    exif = Image.Exif()
    exif[274], exif[305] = 6, "stress test"  # orientation, software
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "slopes" * 40, zip=True)
    return {
        "colour.png": photo(colour, "PNG", pnginfo=text, exif=exif, dpi=(300, 300)),
        "grey.png": photo(grey, "PNG"),
        "opaque.png": photo(opaque, "PNG"),
        "deep.png": photo(pixels(HEIGHT, WIDTH, dtype="u2", most=65535), "PNG"),
        "colour.jpg": photo(colour, "JPEG", exif=exif, comment="slopes"),
        "progressive.jpg": photo(colour, "JPEG", progressive=True, subsampling=0),
        "grey.jpg": photo(grey, "JPEG"),
        "lossless.webp": photo(colour, "WEBP", lossless=True, exif=exif),
        "lossy.webp": photo(colour, "WEBP"),
        "opaque.webp": photo(opaque, "WEBP", lossless=True),
        "colour.bmp": photo(colour, "BMP"),
        "grey.bmp": photo(grey, "BMP"),
    }


def tiff(values: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    writing = {key: options.pop(key) for key in ("bigtiff", "byteorder", "imagej", "ome") if key in options}
    levels = options.pop("subifds", 0)
    with tifffile.TiffWriter(file, **writing) as writer:
        writer.write(values, subifds=levels or None, **options)
        for _ in range(levels):
            writer.write(values[::2, ::2], subfiletype=1, **options)
    return file.getvalue()


def tiffs() -> dict[str, bytes]:
    colour = pixels(HEIGHT, WIDTH, 3)
    made = {f"{name}.tif": tiff(colour, photometric="rgb", **options) for name, options in TIFFS.items()}
    pages = pixels(4, HEIGHT, WIDTH, dtype="u2", most=4095)
    floats = pixels(HEIGHT, WIDTH, dtype="f4", most=1)
    grey = {"photometric": "minisblack"}
    return made | {
        "pages.tif": tiff(pages, **grey),
        "packed_pages.tif": tiff(pages, compression="zlib", **grey),
        "floats.tif": tiff(floats, compression="zlib", predictor=3, rowsperstrip=8, **grey),
        "imagej.tif": tiff(pages, imagej=True),
        "ome.tif": tiff(pages, ome=True, metadata={"axes": "ZYX"}, **grey),
    }


def arrays() -> dict[str, bytes]:
    made = {
        "colour.npy": pixels(HEIGHT, WIDTH, 3),
        "stack.npy": pixels(3, HEIGHT, WIDTH, dtype="f4", most=1),
        "big_endian.npy": pixels(HEIGHT, WIDTH, dtype=">u2", most=4095),
        "fortran.npy": np.asfortranarray(pixels(HEIGHT, WIDTH, dtype="f8", most=1)),
    }
    return {name: array_bytes(values) for name, values in made.items()}


def array_bytes(values: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, **options)
    return file.getvalue()


def saved(content: object) -> bytes:
    """Return what ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def tensors() -> dict[str, bytes]:
    images = torch.from_numpy(pixels(4, 3, 16, 16))
    checkpoint = weights_folder() / "five_models" / "convtrans_relu" / "best.ckpt"
    return {"course.pkl": saved((images, images.flip(0))), "net.ckpt": checkpoint.read_bytes()}
