"""Names and suffixes of the image formats; imports nothing, so that a command can list them at once."""

from __future__ import annotations

FORMAT_SUFFIXES = {"bmp": ".bmp", "jpeg": ".jpg", "npy": ".npy", "png": ".png", "tiff": ".tif", "webp": ".webp"}
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")  # of the files that are read
# images that are not read: photographs and cameras' raw files; files of microscopes, scanners and telescopes
UNREAD_PHOTO_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".psd", ".exr", ".hdr", ".ppm", ".pgm", ".arw", ".cr2"),
    *(".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw"),
)
INSTRUMENT_SUFFIXES = (
    *(".czi", ".dcm", ".dv", ".fit", ".fits", ".ims", ".lei", ".lif", ".lsm", ".mha", ".mrc", ".nd2", ".ndpi"),
    *(".nii", ".nrrd", ".obf", ".oib", ".oif", ".scn", ".sif", ".spe", ".stk", ".svs", ".vsi", ".zvi"),
)
