"""Scenes: images of one thing, in register, and how their files make them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.crops import Places
from n2n_lightning.image_io.stack import ImageError


class WindowedImages(Protocol):
    """Images of one size that are read in windows: ``images.Stack``, or arrays in memory."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        ...

    @property
    def dtype(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def digest(self) -> str: ...

    def read(self, number: int, top: int, left: int, height: int, width: int) -> npt.NDArray[Any]: ...


class Frame(NamedTuple):
    """One image of a stack."""

    stack: WindowedImages
    number: int


@dataclass(frozen=True)
class Scene:
    """Images of one thing, in register and of one size: any number of noisy ones, and a clean one where there is."""

    frames: tuple[Frame, ...]
    clean: Frame | None = None

    @property
    def images(self) -> tuple[Frame, ...]:
        return self.frames if self.clean is None else (*self.frames, self.clean)

    @property
    def name(self) -> str:
        return self.images[0].stack.name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        _, height, width, _ = self.images[0].stack.shape
        return height, width

    @property
    def identity(self) -> tuple[tuple[str, int], ...]:
        """The same for copies of the same files."""
        return tuple((frame.stack.digest, frame.number) for frame in self.images)

    @property
    def kind(self) -> tuple[int, str]:
        """Channels and sample type, which all images of a data set have in common."""
        stack = self.images[0].stack
        return stack.shape[3], sample_type(stack)


@dataclass(frozen=True)
class Listing:
    """Files that belong together: a burst, or images of the same scenes, page by page as many as the files have.

    Args:
        frames: files of noisy images.
        clean: file of the clean image.
        burst: the files are one scene's frames; or, where each has several pages, a scene each.
    """

    frames: tuple[Path, ...]
    clean: Path | None = None
    burst: bool = False

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.frames if self.clean is None else (*self.frames, self.clean)

    def without_bad_frames(self, stacks: dict[Path, WindowedImages], faults: list[str]) -> Listing:
        """What is left of a burst's frames that could be read and are like most; others need all of their files."""
        frames = [path for path in self.frames if path in stacks]
        if not self.burst or not frames or all(stacks[path].shape[0] > 1 for path in frames):
            return replace(self, frames=tuple(frames)) if self.burst else self
        usual = Counter(like(stacks[path]) for path in frames).most_common(1)[0][0]
        other = next(stacks[path] for path in frames if like(stacks[path]) == usual)
        for path in frames:
            if like(stacks[path]) != usual:
                faults.append(unlike(stacks[path], other))
        return replace(self, frames=tuple(path for path in frames if like(stacks[path]) == usual))

    def scenes(self, stacks: dict[Path, WindowedImages]) -> list[Scene]:
        """Raises ImageError where the files do not fit together."""
        opened = [stacks[path] for path in self.paths]
        if self.burst and all(stack.shape[0] > 1 for stack in opened):
            return [Scene(tuple(Frame(stack, page) for page in range(stack.shape[0]))) for stack in opened]
        first = opened[0]
        for other in opened[1:]:
            if like(other) != like(first):
                raise ImageError(unlike(other, first))
        digests = [stack.digest for stack in opened]
        if len(set(digests)) < len(digests):
            copies = [stack.name for stack in opened if digests.count(stack.digest) > 1]
            raise ImageError(f"{' and '.join(copies[:2])} are the same image; give images with noise of their own")
        if self.burst and len(opened) == 1:
            raise ImageError(f"{first.name} is a burst of one frame; a burst needs 2 or more: add one or remove it")
        known = len(self.frames)
        pages = [[Frame(stack, page) for stack in opened] for page in range(first.shape[0])]
        return [Scene(tuple(page[:known]), None if self.clean is None else page[known]) for page in pages]


def read_crops(frames: Iterable[Frame], places: Places) -> Tensor:
    """One window of each frame: (B, C, height, width), uint8 or float32, channels_last."""
    windows = [
        frame.stack.read(frame.number, int(top), int(left), places.height, places.width)
        for frame, top, left in zip(frames, places.top, places.left, strict=True)
    ]
    pixels = np.stack(windows)
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def by(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"  # width first, as people say it


def kind_in_words(kind: tuple[int, str]) -> str:
    channels, dtype = kind
    return f"{channels} channel{'s' if channels > 1 else ''} of {dtype}"


def sample_type(stack: WindowedImages) -> str:
    dtype = np.dtype(stack.dtype)
    return "float" if dtype.kind == "f" else dtype.name


def like(stack: WindowedImages) -> tuple[object, ...]:
    """What the images of one scene have in common."""
    return stack.shape, sample_type(stack)


def unlike(stack: WindowedImages, other: WindowedImages) -> str:
    return (
        f"{stack.name} holds {in_words(stack)}, {other.name} {in_words(other)}; images of one scene must be alike: "
        "crop, convert or remove one"
    )


def in_words(stack: WindowedImages) -> str:
    pages = f"{stack.shape[0]} images of " if stack.shape[0] > 1 else ""
    return f"{pages}{by(stack.shape[1:3])} px, {kind_in_words((stack.shape[3], sample_type(stack)))}"
