"""All images of a data set in a device's memory, so that crops are taken without files and without the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.crops import CropSampler, CropWindows
from n2n_lightning.data.pairs import to_device
from n2n_lightning.data.scenes import Scene, StackImage
from n2n_lightning.image_io.stack import in_threads
from n2n_lightning.image_io.value_range import Limits


class DeviceImages:
    """All images of a data set on a device, as one flat uint8 or float32 tensor.

    Args:
        images: of one pixel format; each is read once.
        device: the device that keeps them.
    """

    def __init__(self, images: Sequence[StackImage], device: torch.device) -> None:
        dtype = images[0].dtype
        ends = np.cumsum([image.nbytes // dtype.itemsize for image in images]).tolist()
        self.starts = dict(zip(images, [0, *ends], strict=False))
        self.values = torch.empty(ends[-1], dtype=dtype, device=device)

        def fill(number: int) -> None:
            image = images[number]
            pixels = torch.from_numpy(image.read(0, 0, *image.size).reshape(-1))
            start = self.starts[image]
            self.values[start : start + len(pixels)].copy_(pixels)

        in_threads(fill, len(images), f"moving {len(images)} images to {device}")

    def crops(self, images: Sequence[StackImage], windows: CropWindows) -> Tensor:
        """Return one window of each image, as ``read_crops`` does, on the device."""
        channels = images[0].stack.shape[3]
        columns = np.array([image.size[1] for image in images])
        corners: npt.NDArray[np.int64] = (windows.top * columns + windows.left) * channels
        corners += [self.starts[image] for image in images]
        device = self.values.device
        both = to_device(torch.from_numpy(np.stack([corners, columns * channels])), device)[:, :, None, None]
        rows = torch.arange(windows.height, device=device)[:, None]
        along = torch.arange(windows.width * channels, device=device)
        pixels = self.values[both[0] + rows * both[1] + along]
        return pixels.view(len(images), windows.height, windows.width, channels).permute(0, 3, 1, 2)


def read_crops(images: Sequence[StackImage], windows: CropWindows) -> Tensor:
    """Read one window of each image from its file: (B, C, height, width) uint8 or float32, channels_last."""
    corners = zip(images, windows.top.tolist(), windows.left.tolist(), strict=True)
    pixels = [image.read(top, left, windows.height, windows.width) for image, top, left in corners]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


class SceneSource:
    """Base of all sources that crop scenes, from files or, after ``to``, from a device's memory.

    Args:
        scenes: of one pixel format.
        crops: random crops for training, fixed ones for validation.
        cell_px: side of the square of input pixels behind each pixel of a pair.
    """

    has_clean = has_pairs = False
    device_images: DeviceImages | None = None
    bounds: Limits | None = None  # that values far out are clipped to, in stored values

    def __init__(self, scenes: Sequence[Scene], crops: CropSampler, cell_px: int = 1) -> None:
        self.scenes, self.crops = scenes, crops
        self.groups, self.one_size = crops.groups, crops.one_size
        self.images = list(dict.fromkeys(image for scene in scenes for image in scene.images))  # each once
        self.image_shape = (scenes[0].pixel_format[0], crops.height // cell_px, crops.width // cell_px)

    def __len__(self) -> int:
        return len(self.crops)

    def read(self, images: Sequence[StackImage], windows: CropWindows) -> Tensor:
        """Return one window of each image: (B, C, height, width) uint8 or float32, channels_last."""
        crops = self.device_images.crops(images, windows) if self.device_images else read_crops(images, windows)
        return crops if self.bounds is None else crops.clamp(*self.bounds)

    @property
    def nbytes(self) -> int:
        """Size of all images in memory, bytes."""
        return sum(image.nbytes for image in self.images)

    def to(self, device: torch.device) -> None:
        """Read all images and keep them on ``device``."""
        if self.device_images is None or self.device_images.values.device != device:
            self.device_images = DeviceImages(self.images, device)
