"""The axes of arrays in memory: which of them counts images and which one channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FEW_CHANNELS = 4  # a longer axis is none of channels, where nothing else tells
PIL_MODES = ("L", "RGB", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")  # whose numbers are the pixels' values
Pixels = npt.NDArray[Any]


def find_axes(shape: tuple[int, ...], channels: int | None = None) -> str:
    """Return the letters of an array's axes: "HW", "HWC", "CHW", "NHW", "NCHW" or "NHWC".

    Args:
        shape: of two to four axes. Where several readings fit, (N, C, H, W) and (H, W, C) win.
        channels: number of channels of the images; None if unknown, then 1 to 4.
    """

    def fits(count: int) -> bool:
        return count == channels if channels is not None else count <= FEW_CHANNELS

    if len(shape) == 2:
        return "HW"
    last_is_short = shape[-1] <= FEW_CHANNELS
    if len(shape) == 4:
        return "NHWC" if not fits(shape[1]) and (fits(shape[3]) or last_is_short) else "NCHW"
    if fits(shape[2]) or last_is_short:
        return "HWC"
    if fits(shape[0]):
        return "CHW"
    return "NHW" if channels in (1, None) else "HWC"


def to_numpy(images: Any) -> Pixels:
    """Return an array of numpy or a tensor of torch on any device as an array; bfloat16 becomes float32.

    Raises:
        ValueError: it is no array, or one whose numbers are not the values of its pixels.
    """
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        return np.asarray((images.float() if images.dtype == torch.bfloat16 else images).numpy())  # numpy has none
    if np.ma.is_masked(images):
        raise ValueError("images must not have masked values, which would count; give images.filled(VALUE)")
    mode = getattr(images, "mode", None)  # of an image of Pillow
    if isinstance(mode, str) and mode not in PIL_MODES:
        raise ValueError(f"images of Pillow must be of mode L, RGB, I or F, got {mode}; give image.convert('RGB')")
    values = np.asarray(images)
    if values.ndim == 0 and values.dtype.kind not in "uif":
        kind = type(images).__name__
        raise ValueError(
            f"images must be an array of numpy, a tensor of torch or a list of these, got {kind}; "
            "read files first, and make a list of what a generator gives"
        )
    return values


def as_nhwc(values: Pixels, axes: str) -> Pixels:
    """Return a view of shape (N, H, W, C) of an array with these axes."""
    order = [axes.index(letter) for letter in "NHWC" if letter in axes]
    missing = [place for place, letter in enumerate("NHWC") if letter not in axes]
    return np.expand_dims(values.transpose(order), missing)


def from_nhwc(values: Pixels, axes: str) -> Pixels:
    """Return a view with these axes of an array (N, H, W, C); the reverse of ``as_nhwc``."""
    present = [letter for letter in "NHWC" if letter in axes]
    missing = tuple(place for place, letter in enumerate("NHWC") if letter not in axes)
    return values.squeeze(missing).transpose([present.index(letter) for letter in axes])


def noisy_images(images: Any, name: str, channels: int | None = None) -> Pixels | list[Pixels]:
    """Return the images to train on as a view (N, H, W, C), or those of a list as (H, W, C) each.

    Args:
        images: (N, C, H, W), (N, H, W, C), (N, H, W), (H, W, C), (H, W) of numpy or torch; (C, H, W) if ``channels``
            is known; or a list of images of any sizes, (H, W), (H, W, C) or (C, H, W).
        name: their name in messages.
        channels: number of channels of the images; None if unknown, then 1 to 4.

    Raises:
        ValueError: they have another form, or one that can be read in two ways.
    """
    if isinstance(images, (list, tuple)):
        return [array_image(to_numpy(image), f"{name}[{number}]", channels) for number, image in enumerate(images)]
    values = to_numpy(images)
    if values.ndim not in (2, 3, 4) or 0 in values.shape:
        forms = "(N, C, H, W), (N, H, W, C), (N, H, W), (H, W, C) or (H, W)"
        raise ValueError(f"{name} must be {forms}, got {values.shape}; reshape it")
    axes = find_axes(values.shape, channels)
    if axes == "NCHW" and channels is None and min(values.shape[1], values.shape[3]) > FEW_CHANNELS:
        raise ValueError(
            f"{name} must not be ambiguous, got {values.shape}: give (N, C, H, W) or (N, H, W, C) of at most "
            f"{FEW_CHANNELS} channels, or a list of images (H, W, C)"
        )
    if axes == "CHW" and channels is None and values.shape[0] > 1:
        count = values.shape[0]
        raise ValueError(
            f"{name} must not be ambiguous, got {values.shape}: give {name}[:, None] for {count} images of one "
            f"channel, or {name}[None] for one image of {count} channels"
        )
    return as_nhwc(values, axes)


def array_image(values: Pixels, name: str, channels: int | None) -> Pixels:
    """Return an image (H, W), (H, W, C) or (C, H, W) as a view (H, W, C)."""
    axes = find_axes(values.shape, channels) if values.ndim in (2, 3) and 0 not in values.shape else None
    if axes not in ("HW", "HWC", "CHW"):
        raise ValueError(f"{name} must be (H, W), (H, W, C) or (C, H, W), got {values.shape}; reshape it")
    return np.asarray(as_nhwc(values, axes)[0])
