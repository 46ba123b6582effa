"""Names and suffixes of the image formats; imports nothing, so that a command can list them at once."""

from __future__ import annotations

FORMAT_SUFFIXES = {"bmp": ".bmp", "jpeg": ".jpg", "npy": ".npy", "png": ".png", "tiff": ".tif", "webp": ".webp"}
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")  # of the files that are read
