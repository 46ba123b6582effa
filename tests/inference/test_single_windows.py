"""The windows of a file that ``denoise`` looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.inference.single_image import MOST_CHANNELS, read_windows


def test_of_many_channels_some_are_looked_at(tmp_path: Path):
    """They are the first, the last and some between, each with its own gain; the memory would grow with all."""
    channels = 40
    values = np.broadcast_to(np.arange(channels, dtype=np.float32), (32, 48, channels))
    np.save(tmp_path / "a.npy", values)
    gain = np.where(np.arange(channels) < 20, 2.0, 1.0).astype(np.float32)[None, None, None, None]
    with open_image_file(tmp_path / "a.npy", "YXC") as image:
        windows = read_windows(image, 32, Scale(64.0, 0.0, gain), None)
        few = read_windows(image, 32, Scale(64.0), (0.0, 16.0))
    assert windows.shape == few.shape == (1, 1, MOST_CHANNELS, 32, 48)
    first = np.linspace(0, channels - 1, MOST_CHANNELS).astype(int)
    np.testing.assert_array_equal(windows[0, 0, :, 0, 0] * 64, first * gain[0, 0, 0, 0, first])
    assert few.max() * 64 == 16
