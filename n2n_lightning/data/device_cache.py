"""Images as a whole in a device's memory, where crops are taken without files and without the processor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.crops import Places
from n2n_lightning.data.scenes import Frame, Scene, read_crops
from n2n_lightning.image_io.stack import in_threads


class Pool:
    """All images of a data set on a device, one after the other, uint8 or float32.

    Args:
        frames: the images, of one kind; each is read once.
        device: that holds them.
    """

    def __init__(self, frames: Sequence[Frame], device: torch.device) -> None:
        ends = np.cumsum([values_of(frame) for frame in frames]).tolist()
        self.starts = dict(zip(frames, [0, *ends], strict=False))
        self.values = torch.empty(ends[-1], dtype=(torch.uint8, torch.float32)[wide(frames[0])], device=device)

        def fill(number: int) -> None:
            frame = frames[number]
            _, height, width, _ = frame.stack.shape
            pixels = frame.stack.read(frame.number, 0, 0, height, width).reshape(-1)
            start = self.starts[frame]
            self.values[start : start + len(pixels)].copy_(
                torch.from_numpy(pixels.astype(np.float32) if wide(frame) else pixels)
            )

        in_threads(fill, len(frames), f"moving {len(frames)} images to {device}")

    def crops(self, frames: Sequence[Frame], places: Places) -> Tensor:
        """As ``read_crops``: (B, C, height, width), channels_last, on the pool's device."""
        channels = frames[0].stack.shape[3]
        columns = np.array([frame.stack.shape[2] for frame in frames])
        corners: npt.NDArray[np.int64] = (places.top * columns + places.left) * channels
        corners += [self.starts[frame] for frame in frames]
        device = self.values.device
        both = torch.from_numpy(np.stack([corners, columns * channels]))[:, :, None, None].to(device)
        rows = torch.arange(places.height, device=device)[:, None]
        along = torch.arange(places.width * channels, device=device)
        pixels = self.values[both[0] + rows * both[1] + along]
        return pixels.view(len(frames), places.height, places.width, channels).permute(0, 3, 1, 2)


class SceneSource:
    """What sources of crops share: their scenes, read from files or, after ``to``, from a device's memory."""

    scenes: Sequence[Scene]
    pool: Pool | None = None

    def read(self, frames: Sequence[Frame], places: Places) -> Tensor:
        """One window of each frame: (B, C, height, width), uint8 or float32, channels_last."""
        return read_crops(frames, places) if self.pool is None else self.pool.crops(frames, places)

    @property
    def nbytes(self) -> int:
        """What all images take in memory."""
        return sum(values_of(frame) * (4 if wide(frame) else 1) for frame in images_of(self.scenes))

    def to(self, device: torch.device) -> None:
        """Read all images, and keep them on ``device``."""
        if self.pool is None or self.pool.values.device != device:
            self.pool = Pool(images_of(self.scenes), device)


def images_of(scenes: Iterable[Scene]) -> list[Frame]:
    """Every image once."""
    return list(dict.fromkeys(frame for scene in scenes for frame in scene.images))


def values_of(frame: Frame) -> int:
    return math.prod(frame.stack.shape[1:])


def wide(frame: Frame) -> bool:
    """Whether its values become float32, as all but uint8 do."""
    return np.dtype(frame.stack.dtype) != np.uint8
