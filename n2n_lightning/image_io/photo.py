"""PNG, JPEG, WebP and BMP files: one image each, decoded by Pillow, or by imagecodecs where a PNG has 16 bits."""

from __future__ import annotations

import math
import threading
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
from PIL import Image, JpegImagePlugin, MpoImagePlugin

from n2n_lightning.image_io.image_file import (
    ORIENTATION_TAG,
    Array,
    ImageError,
    ImageReader,
    Metadata,
    check_packing,
    check_size,
    image_errors,
)

PILLOW_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # named, because some of Pillow's others run programs
PILLOW_MODES = ("L", "LA", "RGB", "RGBA")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour in the header
_pillow_limit = threading.Lock()


class PhotoReader(ImageReader):
    """Reads one image, which stays in memory from the first band on."""

    count, offset, image_axes = 1, None, ()

    def __init__(self, image: Image.Image, path: Path, axes: str | None = None) -> None:
        self.image, self.path, self.given_axes = image, path, axes
        self.form = "jpeg" if image.format == "MPO" else str(image.format).lower()
        self.bits, png_channels = png_samples(path) if self.form == "png" else (8, 0)
        self.has_16_bits = self.bits == 16  # which Pillow cuts down to 8, and grey with alpha to RGBA
        self.check()
        channels = png_channels if self.has_16_bits else len(image.getbands())
        self.shape = (1, image.height, image.width, channels)
        self.dtype = np.dtype(np.uint16 if self.has_16_bits else np.uint8)
        self.axes = "YXC"
        self.alphas = [channels - 1] if channels in (2, 4) and axes != self.axes else []  # other axes are for stacks
        self.held_bytes = 3 * math.prod(self.shape) * self.dtype.itemsize  # read, to be written, and encoded
        self._pixels: Array | None = None

    def check(self) -> None:
        """Refuse a file of several images, or of a kind that cannot be read."""
        image = self.image
        check_size(*image.size)
        decoded = math.prod(image.size) * len(image.getbands()) * (2 if self.has_16_bits else 1)
        check_packing(decoded, self.path.stat().st_size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG, whose other images are previews or gain maps
            raise ImageError(f"holds {frames} frames; give single images")
        if "transparency" in image.info:
            raise ImageError("has transparent pixels; save it without transparency")
        if image.mode not in PILLOW_MODES and not self.has_16_bits:
            raise ImageError(mode_fault(image.mode, self.path))

    def decode(self, group: int, top: int, bottom: int) -> Array:
        if self._pixels is None:
            read = self.decode_png() if self.form == "png" else np.asarray(self.image)
            self._pixels = read.reshape(*read.shape[:2], -1)
        return self._pixels[None, top:bottom]

    def decode_png(self) -> Array:
        """Decode by imagecodecs, which is faster than Pillow and keeps 16 bits; by Pillow what only that can read."""
        if self.bits < 8 or (self.bits == 8 and "orientation" in self.__dict__):  # Pillow has decoded it to find that
            return np.asarray(self.image)
        try:
            read: Array = imagecodecs.png_decode(self.path.read_bytes())
        except Exception:
            if self.bits > 8:
                raise
            return np.asarray(self.image)
        return read

    @cached_property
    def orientation(self) -> int:  # type: ignore[override]  # found when asked for: a PNG's may follow its pixels
        """EXIF's number, 1 to 8; 1 is upright."""
        with image_errors(self.path):
            return int(self.image.getexif().get(ORIENTATION_TAG, 1))

    def metadata(self) -> Metadata:
        self.image.load()  # a PNG's may follow its pixels
        return {key: self.image.info.get(key) for key in ("exif", "icc_profile", "xmp", "dpi", "comment")}

    def encoding(self) -> dict[str, Any]:
        """Return the options of ``encode`` that keep what the file's own format has beside metadata."""
        if self.form == "png":
            return {"png": self.path.read_bytes()}
        is_jpeg = isinstance(self.image, (JpegImagePlugin.JpegImageFile, MpoImagePlugin.MpoImageFile))
        return {"subsampling": JpegImagePlugin.get_sampling(self.image)} if is_jpeg else {}


def mode_fault(mode: str, path: Path) -> str:
    """Return why an image of one of Pillow's modes is refused, with a command that converts it."""
    if mode == "1":
        return "has black and white pixels only, 1 bit each; give the image that it was made from, with its grey levels"
    what = {"P": "a palette of colours instead of RGB", "CMYK": "colours for printing (CMYK) instead of RGB"}
    converted = path.with_name(f"{path.stem}_rgb.png")
    code = f"from PIL import Image; Image.open({str(path)!r}).convert('RGB').save({str(converted)!r})"
    return f'has {what.get(mode, f"colours of the kind {mode}")}; convert it: python -c "{code}"'


def open_pillow(file: Path | IO[bytes], formats: tuple[str, ...] = PILLOW_FORMATS) -> Image.Image:
    """Read a header without Pillow's limit of pixels: a global, which warns and raises long before ours."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def png_samples(path: Path) -> tuple[int, int]:
    """Return a PNG's bits per channel and its number of channels, as stored."""
    with path.open("rb") as file:
        bits, colour_type = file.read(26)[24:]  # after the signature, the start of IHDR, width and height
    return bits, PNG_CHANNELS[colour_type]
