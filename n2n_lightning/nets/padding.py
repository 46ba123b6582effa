"""Padding that lets a net with a stride take any image size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by reflection up to the next multiple of ``multiple`` px.

    (N, C, H, W), H and W at least 1 -> (N, C, H', W'). A reflection adds fewer pixels than the image has, so a small
    image is reflected several times. A side of one pixel has nothing to reflect and is replicated.
    """
    height, width = images.shape[-2:]
    missing_h, missing_w = -height % multiple, -width % multiple
    if torch.compiler.is_compiling():  # an exported net needs one code path for all sizes
        return reflect(images, height + missing_h, width + missing_w)
    if not missing_h and not missing_w:
        return images
    if missing_h < height and missing_w < width:
        return F.pad(images, (0, missing_w, 0, missing_h), mode="reflect")  # ten times as fast
    padded = reflect(images, height + missing_h, width + missing_w)
    channels_last = images.stride(1) < images.stride(3)  # keep the layout, as F.pad does: it changes how results round
    return padded.contiguous(memory_format=torch.channels_last) if channels_last else padded


def reflect(images: Tensor, height: int, width: int) -> Tensor:
    """Mirror images at their right and bottom edges as often as needed: (N, C, H, W) -> (N, C, height, width)."""

    def pixels(side: int, padded: int) -> Tensor:
        """Return the index of the source pixel for each padded pixel: 0 1 2 1 0 1 for 3 px padded to 6."""
        # the period is a tensor because ONNX does not support a size as modulus
        last = torch.full((1,), side - 1, dtype=torch.int64, device=images.device)
        period = (2 * last).clamp(min=1)
        return last - (torch.arange(padded, device=images.device) % period - last).abs()

    rows, columns = pixels(images.shape[-2], height), pixels(images.shape[-1], width)
    return images.index_select(-2, rows).index_select(-1, columns)


def crop_to(images: Tensor, like: Tensor) -> Tensor:
    """Undo ``pad_to_multiple``: crop (N, C, H', W') to the height and width of ``like``, without a copy."""
    return images[..., : like.shape[-2], : like.shape[-1]]
