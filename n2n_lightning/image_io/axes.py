"""Axes of image files: what each dimension counts, as the metadata names it or as the user gives it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from n2n_lightning.image_io.image_file import ImageError

CHANNEL_AXES = "CS"  # S: samples of a pixel, TIFF's name for channels that are stored together
AXES = "TZCYX"  # letters of data.axes: time, depth, channel, row, column
NamedAxes = tuple[tuple[str, int], ...]  # axis and length, slowest first; "?" is an axis of unknown meaning


def parse_axes(text: str) -> str:
    """Return the letters of ``data.axes`` in capitals, with C for S; raise a ValueError where they name no axes."""
    axes = text.upper().replace("S", "C")
    if not set("YX") <= set(axes) <= set(AXES) or len(set(axes)) < len(axes):
        raise ValueError(
            f"axes must be letters of T, Z, C, Y, X (S is C), each at most once, with Y and X, in the order of the "
            f"file's dimensions, slowest first, got {text!r}; set data.axes=TYX for frames (predict: --axes TYX)"
        )
    return axes


def name_dimensions(shape: Sequence[int], axes: str) -> list[tuple[str, int]]:
    """Return letter and length of each dimension of a file.

    Args:
        shape: of the file's values.
        axes: a letter for each dimension, or for each one that is longer than 1.
    """
    longer = [n for n in shape if n > 1]
    sizes = list(shape) if len(axes) == len(shape) else longer
    if len(axes) != len(sizes):
        text = "x".join(map(str, shape))
        raise ImageError(
            f"has {len(shape)} dimensions ({text}), data.axes={axes} names {len(axes)}; give one letter for each, "
            "slowest first"
        )
    return list(zip(axes, sizes, strict=True))


def image_axes_order(axes: Sequence[str]) -> list[int]:
    """Return the order in which ``axes`` become (images..., Y, X, channels...)."""
    return sorted(range(len(axes)), key=lambda i: {"Y": 1, "X": 2, "C": 3, "S": 3}.get(axes[i], 0))


def plain_axes(axes: Sequence[str]) -> str:
    """Return axes that a file names in the letters of ``data.axes``, with "?" for those of unknown meaning."""
    return "".join("C" if axis in CHANNEL_AXES else axis if axis in AXES else "?" for axis in axes)


def suggest_axes(axes: str) -> str:
    """Return letters to suggest for ``data.axes``: T and Z take the places of "?", where they are free."""
    for letter in "TZ":
        if letter not in axes:
            axes = axes.replace("?", letter, 1)
    return axes


def scene_frames(image_axes: NamedAxes, axes: str) -> list[list[int]]:
    """Return the numbers of the images that are frames of one scene, a list for each scene.

    Frames are counted by T, or by the only axis if its meaning is unknown. All other axes count scenes.

    Args:
        image_axes: what counts the images, such as (("T", 5), ("Z", 4)).
        axes: all letters of the file, "?" for unknown ones; for the message.

    Raises:
        ValueError: what counts the frames cannot be told.
    """
    letters, lengths = [axis for axis, _ in image_axes], [n for _, n in image_axes]
    if letters == ["Z"]:
        raise ValueError(
            f"holds {lengths[0]} images that its metadata calls slices (Z), and time series are often saved so; set "
            f"data.axes={axes.replace('Z', 'T')} if they are frames of one scene, data.axes={axes} if they are slices "
            "and the files of the folder are frames, or data=single if each is an image of its own"
        )
    if "T" not in letters and letters != ["?"]:
        sizes = " x ".join(f"{n} of {'slices' if axis == 'Z' else 'unknown meaning'}" for axis, n in image_axes)
        raise ValueError(
            f"holds {sizes}, and nothing says which are frames of one scene; set data.axes={suggest_axes(axes)} with T "
            "for the frames and Z for slices, a letter for each dimension in the file's order"
        )
    frames = letters.index("T") if "T" in letters else 0
    numbers = np.moveaxis(np.arange(np.prod(lengths, dtype=int)).reshape(lengths), frames, -1)
    scenes: list[list[int]] = numbers.reshape(-1, lengths[frames]).tolist()
    return scenes
