"""Arrays in memory, numpy's or torch's, for use from Python: ``ArrayData``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from n2n_lightning.data.array_forms import to_numpy
from n2n_lightning.data.crops import CropSampler
from n2n_lightning.data.frame_data import FrameData
from n2n_lightning.data.paired import FramePairs
from n2n_lightning.data.pairs import PairSource, Stage
from n2n_lightning.data.scenes import Scene, StackImage, describe_mismatch, stack_format
from n2n_lightning.data.single import SingleImages
from n2n_lightning.image_io.stack import ImageStack, pixel_hash
from n2n_lightning.image_io.value_range import find_span, finite_limits
from n2n_lightning.self_supervised.r2r import Line

OneArray = npt.NDArray[Any] | Tensor
Arrays = OneArray | Sequence[OneArray]


@dataclass(frozen=True, eq=False)  # equality by the digest, as for files
class ArrayStack(ImageStack):
    """One image in memory in the place of a file's images."""

    pixels: npt.NDArray[Any]  # (H, W, C)

    def read(self, number: int, top: int, left: int, height: int, width: int) -> npt.NDArray[Any]:
        return self.pixels[top : top + height, left : left + width]


def array_stack(image: OneArray, name: str) -> ArrayStack:
    """Check an image in memory, and return it without a copy.

    Args:
        image: (H, W) or (H, W, C) of numpy, (H, W) or (C, H, W) of torch; integers or floats.
        name: its name in messages.

    Raises:
        ValueError: the image has another form, or holds NaN or infinite values.
    """
    values = to_numpy(image)
    if isinstance(image, Tensor) and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "uif":
        raise ValueError(
            f"{name} must be (H, W) or (H, W, C) of numpy, (C, H, W) of torch, integers or floats, got "
            f"{values.shape} of {values.dtype}"
        )
    pixels = values if values.ndim == 3 else values[:, :, None]
    if finite_limits(pixels) is None:
        raise ValueError(f"{name} holds NaN or infinite values; fix or remove it")
    of_pixels = pixel_hash(pixels.shape, pixels.dtype)
    of_pixels.update(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data)
    digest = of_pixels.hexdigest()
    span = find_span(pixels)
    found = (span.low, span.high, digest, span.outliers, (digest,), (), "YXC")
    return ArrayStack(Path(name), Path(), 0, (1, *pixels.shape), pixels.dtype.str, *found, pixels)


@dataclass(kw_only=True)
class ArrayData(FrameData):
    """Noisy images in memory; nothing is copied.

    Each set of images is one array, (N, H, W) or (N, H, W, C) of numpy, (N, H, W) or (N, C, H, W) of torch, or a list
    of images of any sizes, (H, W) or (H, W, C) of numpy, (H, W) or (C, H, W) of torch.

    Args:
        source: noisy images.
        target: second noisy images of the same scenes; without them training is by Neighbor2Neighbor.
        clean: clean images of the same scenes, for validation.
    """

    source: Arrays
    target: Arrays | None = None
    clean: Arrays | None = None
    variance: Line | None = field(init=False, default=None)  # of the noise of single images, as training has measured
    variance_is_trusted: bool = field(init=False, default=False)

    spare_validation = True
    correction_advice = "ArrayData(..., {}=True) corrects it"
    skip_advice = "fix or remove them; ArrayData(..., skip_bad=True) goes on without them"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axes is not None:
            raise ValueError(f"axes are for files, got {self.axes!r}; move the axes of the arrays instead")

    def find_scenes(self, stage: Stage) -> tuple[list[Scene], list[str]] | None:
        if stage == "val":
            return None
        given = {"source": self.source, "target": self.target, "clean": self.clean}
        sets = {name: arrays for name, arrays in given.items() if arrays is not None}
        counts = {name: len(arrays) for name, arrays in sets.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"source, target and clean must have the same number of images, got {counts}")
        stacks = {name: [array_stack(a, f"{name}[{n}]") for n, a in enumerate(arrays)] for name, arrays in sets.items()}
        for others in stacks.values():
            for first, other in zip(stacks["source"], others, strict=True):
                if stack_format(first) != stack_format(other):
                    raise ValueError(describe_mismatch(other, first))
        images = zip(*([StackImage(stack, 0) for stack in one] for one in stacks.values()), strict=True)
        if self.clean is None:
            return [Scene(noisy) for noisy in images], []
        return [Scene(tuple(noisy), clean) for *noisy, clean in images], []

    def make_source(self, scenes: list[Scene], crops: CropSampler, stage: Stage) -> PairSource:
        if self.target is None and not (stage == "val" and self.clean is not None):
            return SingleImages(scenes, crops, seed=self.seed)
        return FramePairs(scenes, crops, any_order=False)
