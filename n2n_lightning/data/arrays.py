"""Arrays in memory, numpy's or torch's, for use from Python: ``ArrayData``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from n2n_lightning.data.crops import Crops
from n2n_lightning.data.paired import FramePairs
from n2n_lightning.data.pairs import PairSource, Stage
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Frame, Scene, like, unlike
from n2n_lightning.data.single import SingleImages

Arrays = npt.NDArray[Any] | Tensor | Sequence[npt.NDArray[Any] | Tensor]


class ArrayStack:
    """One image in memory, read in windows as ``images.Stack`` is.

    Args:
        image: (H, W) or (H, W, C) of numpy, (H, W) or (C, H, W) of torch.
        name: for messages.

    Raises:
        ValueError: it is of another form, or holds NaN or infinite values.
    """

    def __init__(self, image: npt.NDArray[Any] | Tensor, name: str) -> None:
        if isinstance(image, Tensor):
            image = image.detach().cpu().movedim(0, -1).numpy() if image.ndim == 3 else image.detach().cpu().numpy()
        if image.ndim not in (2, 3) or 0 in image.shape or image.dtype.kind not in "uif":
            raise ValueError(
                f"{name} must be (H, W) or (H, W, C) of numpy, (C, H, W) of torch, whole numbers or floats, got "
                f"{image.shape} of {image.dtype}"
            )
        self.pixels = image if image.ndim == 3 else image[:, :, None]
        if not np.isfinite(self.pixels).all():
            raise ValueError(f"{name} holds NaN or infinite values; mend or remove it")
        height, width, channels = self.pixels.shape
        self.name, self.shape, self.dtype = name, (1, height, width, channels), self.pixels.dtype.str
        self.low, self.high = float(self.pixels.min()), float(self.pixels.max())

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()

    def read(self, number: int, top: int, left: int, height: int, width: int) -> npt.NDArray[Any]:
        return self.pixels[top : top + height, left : left + width]


@dataclass(kw_only=True)
class ArrayData(SceneData):
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

    def find_scenes(self, stage: Stage, faults: list[str]) -> list[Scene] | None:
        if stage == "val":
            return None
        sets = {"source": self.source, "target": self.target, "clean": self.clean}
        counts = {name: len(images) for name, images in sets.items() if images is not None}
        if len(set(counts.values())) != 1:
            raise ValueError(f"source, target and clean must have as many images each, got {counts}")
        frames = {
            name: [Frame(ArrayStack(images[n], f"{name}[{n}]"), 0) for n in range(counts[name])]
            for name, images in sets.items()
            if images is not None
        }
        for others in frames.values():
            for one, other in zip(frames["source"], others, strict=True):
                if like(one.stack) != like(other.stack):
                    raise ValueError(unlike(other.stack, one.stack))
        noisy = [frames[name] for name in ("source", "target") if name in frames]
        clean = frames.get("clean", [None] * counts["source"])
        return [Scene(images, known) for images, known in zip(zip(*noisy, strict=True), clean, strict=True)]

    def make_source(self, scenes: list[Scene], crops: Crops, stage: Stage) -> PairSource:
        if self.target is None and not (stage == "val" and self.clean is not None):
            return SingleImages(scenes, crops, seed=self.seed)
        return FramePairs(scenes, crops, any_order=False)
