"""The picture of ``denoise``: each file's crops as a viewer shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from n2n_lightning.image_io.image_file import ORIENTATION_TAG
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.reporting.single_pictures import CROP_PX, read_row

HEIGHT, WIDTH = CROP_PX + 1, CROP_PX + 4  # cut off by an odd number of rows
UPRIGHT = np.add.outer(np.linspace(0, 150, HEIGHT), np.linspace(0, 90, WIDTH)).astype(np.uint8)  # dark at the top left
TURNS = {1: UPRIGHT, 3: UPRIGHT[::-1, ::-1], 6: np.rot90(UPRIGHT), 8: np.rot90(UPRIGHT, -1)}  # as EXIF defines them


def write(path: Path, orientation: int) -> Path:
    """Write the image turned, with the EXIF orientation that turns it back."""
    stored = np.ascontiguousarray(TURNS[orientation])
    if path.suffix == ".tif":
        tifffile.imwrite(path, stored, extratags=[(ORIENTATION_TAG, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        Image.fromarray(stored).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("written", [1, None])
def test_crops_are_upright(tmp_path: Path, suffix: str, orientation: int, written: int | None):
    """The denoised file is turned as its input is, or it was made upright by ``--format``."""
    noisy = write(tmp_path / f"noisy{suffix}", orientation)
    denoised = write(tmp_path / "denoised.png", written or orientation)
    row = read_row(FileJob(noisy, denoised), None)
    assert row is not None
    (before, _), (after, _), (removed, _) = row
    assert before.shape == after.shape == removed.shape == (CROP_PX - 1, CROP_PX, 1)
    np.testing.assert_array_equal(before, after)
    assert before[0, 0] < before[0, -1] < before[-1, 0]
    assert np.ptp(removed) == 0
