"""Image files opened and checked: read as they are stored for ``predict``, upright and without alpha for training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tifffile import TiffFile

from n2n_lightning.image_io.image_file import ImageError, ImageReader, check_values, image_errors
from n2n_lightning.image_io.npy import NpyReader
from n2n_lightning.image_io.photo import PhotoReader, open_pillow
from n2n_lightning.image_io.tiff_reading import TiffReader


@contextmanager
def open_image_file(path: Path, axes: str | None = None) -> Iterator[ImageReader]:
    """Open an image file; raise an ImageError where its header shows that it cannot be used.

    ``axes`` are the letters of its dimensions, as ``parse_axes`` returns them; None takes the file's own.
    """
    with ExitStack() as opened:
        with image_errors(path):
            reader = make_reader(path, opened, axes)
            check_values((reader.count * reader.shape[0], *reader.colour_shape[1:]), reader.dtype)
        yield reader


def make_reader(path: Path, opened: ExitStack, axes: str | None) -> ImageReader:
    """Return the reader of a file by its suffix; what it needs open stays so until ``opened`` is closed."""
    if path.stat().st_size == 0:
        raise ImageError("is empty; remove it")
    match path.suffix.lower():
        case ".npy":
            return NpyReader(path, axes)
        case ".tif" | ".tiff":
            logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said once, by ImageError
            return TiffReader(opened.enter_context(TiffFile(path, _multifile=False)), path, axes)
    return PhotoReader(opened.enter_context(open_pillow(path)), path, axes)
