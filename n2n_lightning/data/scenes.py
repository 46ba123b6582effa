"""Scenes: aligned images of one thing, and how files make them up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from n2n_lightning.image_io.axes import scene_frames
from n2n_lightning.image_io.stack import ImageStack

PixelFormat = tuple[int, str]  # number of channels, and sample type: "uint8", "uint16", ..., or "float"


class StackImage(NamedTuple):
    """One image of a stack, or a window of it, with its values as stored or at another level."""

    stack: ImageStack
    number: int
    window: tuple[int, int, int, int] | None = None  # top, left, height, width, px; None for the whole image
    level: tuple[float, float] | None = None  # factor and summand of the values

    @property
    def name(self) -> str:
        """Name of the file, and the page (counted from 1) where it has several."""
        return self.stack.name if self.stack.shape[0] == 1 else f"{self.stack.name} page {self.number + 1}"

    @property
    def digest(self) -> str:
        """Hash of the pixels, equal for copies."""
        return self.stack.image_digests[self.number]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.stack.shape[1:3] if self.window is None else self.window[2:]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values in memory: uint8 stays if its level does, every other type becomes float32."""
        kept = np.dtype(self.stack.dtype) == np.uint8 and self.level is None
        return torch.uint8 if kept else torch.float32

    @property
    def nbytes(self) -> int:
        """Size in memory, bytes."""
        return math.prod(self.size) * self.stack.shape[3] * self.dtype.itemsize

    def read(self, top: int, left: int, height: int, width: int) -> npt.NDArray[Any]:
        """Return a window of the image: (height, width, C) uint8 or float32."""
        if self.window is not None:
            top, left = top + self.window[0], left + self.window[1]
        pixels = self.stack.read(self.number, top, left, height, width)
        if self.level is not None:
            factor, summand = map(np.float32, self.level)
            return pixels.astype(np.float32) * factor + summand
        return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """Aligned images of one thing and of one size: any number of noisy ones, and perhaps a clean one."""

    noisy: tuple[StackImage, ...]
    clean: StackImage | None = None

    @property
    def images(self) -> tuple[StackImage, ...]:
        return self.noisy if self.clean is None else (*self.noisy, self.clean)

    @property
    def name(self) -> str:
        return self.images[0].stack.name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.images[0].size

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for scenes of the same pixels."""
        return tuple(image.digest for image in self.images)

    @property
    def pixel_format(self) -> PixelFormat:
        return pixel_format(self.images[0].stack)


@dataclass(frozen=True)
class SceneFiles:
    """Files of one scene; where they have several pages, of one scene for each page.

    Args:
        noisy: files of noisy images.
        clean: file of the clean image.
        burst: the noisy files are frames of one scene; if all of them have several pages, each file is a scene, or
            several of them, and its pages over time are the frames.
        axes: those that the user gave, if any; without a T that counts pages, the files are the frames in any case.
    """

    noisy: tuple[Path, ...]
    clean: Path | None = None
    burst: bool = False
    axes: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.noisy if self.clean is None else (*self.noisy, self.clean)

    def open(self, stacks: dict[Path, ImageStack]) -> tuple[list[Scene], list[str]]:
        """Return the scenes, and what is wrong with files that do not fit together.

        A burst can do without some of its frames; other scenes need all of their files. ``stacks`` holds the files
        that could be opened.
        """
        opened = [stacks[path] for path in self.paths if path in stacks]
        if not opened or (len(opened) < len(self.paths) and not self.burst):
            return [], []
        faults: list[str] = []
        if not self._are_scenes(opened):
            formats = [stack_format(stack) for stack in opened]
            usual = Counter(formats).most_common(1)[0][0] if self.burst else formats[0]
            first = opened[formats.index(usual)]
            faults = [describe_mismatch(stack, first) for stack in opened if stack_format(stack) != usual]
            if faults and not self.burst:
                return [], faults
            opened = [stack for stack in opened if stack_format(stack) == usual]
        pages = [[StackImage(stack, page) for page in range(stack.shape[0])] for stack in opened]
        if self._are_scenes(opened):
            scenes, untold = scenes_over_time(opened)
            return scenes, [*faults, *untold]
        if self.burst and len(opened) == 1:
            axes = opened[0].axes
            frames = f", or set data.axes={axes.replace('C', 'T')} if its channels are frames" if axes[0] == "C" else ""
            more = f"a burst needs 2 or more: add one or remove it{frames}"
            faults.append(f"{opened[0].name} is a burst of one frame; {more}")
        else:
            noisy = len(opened) if self.clean is None else len(opened) - 1
            return [Scene(page[:noisy], *page[noisy:]) for page in zip(*pages, strict=True)], faults
        return [], faults

    def _are_scenes(self, opened: Sequence[ImageStack]) -> bool:
        """Return whether each file is a scene of its own, and its pages are the frames."""
        over_time = self.axes is None or any(axis == "T" for stack in opened for axis, _ in stack.image_axes)
        return self.burst and over_time and all(stack.shape[0] > 1 for stack in opened)


def scenes_over_time(stacks: Sequence[ImageStack]) -> tuple[list[Scene], list[str]]:
    """Return the scenes of files whose pages are frames, and what is wrong with the files that do not tell them."""
    scenes, faults = [], []
    for stack in stacks:
        try:
            found = scene_frames(stack.image_axes, stack.axes)
        except ValueError as error:
            faults.append(f"{stack.name} {error}")
        else:
            scenes += [Scene(tuple(StackImage(stack, number) for number in frames)) for frames in found]
    return scenes, faults


def pixel_format(stack: ImageStack) -> PixelFormat:
    """Return what all images of a data set must have in common."""
    dtype = np.dtype(stack.dtype)
    return stack.shape[3], "float" if dtype.kind == "f" else dtype.name


def stack_format(stack: ImageStack) -> tuple[object, ...]:
    """Return what all files of a scene must have in common."""
    return stack.shape, pixel_format(stack)


def size_text(size: tuple[int, ...]) -> str:
    """Return height and width as text, width first."""
    return f"{size[1]}x{size[0]}"


def format_text(pixels: PixelFormat) -> str:
    """Return a pixel format as text, such as "3 channels of uint8"."""
    channels, sample_type = pixels
    return f"{channels} channel{'s' if channels > 1 else ''} of {sample_type}"


def describe_mismatch(stack: ImageStack, other: ImageStack) -> str:
    """Return the message for two files of one scene that differ in ``stack_format``."""

    def describe(stack: ImageStack) -> str:
        pages = f"{stack.shape[0]} images of " if stack.shape[0] > 1 else ""
        return f"{pages}{size_text(stack.shape[1:3])} px, {format_text(pixel_format(stack))}"

    return (
        f"{stack.name} holds {describe(stack)}, {other.name} {describe(other)}; images of one scene must be alike: "
        "crop, convert or remove one"
    )
