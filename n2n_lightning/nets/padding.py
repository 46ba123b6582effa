"""Padding that lets a net with a stride take any image size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by reflection up to the next multiple of ``multiple`` px.

    (N, C, H, W), H and W at least 1 -> (N, C, H', W'). Reflection needs more pixels than it adds, so a small image is
    reflected again and again; a side of one pixel, which has nothing to reflect, is replicated.
    """
    height, width = images.shape[-2:]
    missing = [-height % multiple, -width % multiple]
    while any(missing):
        height, width = images.shape[-2:]
        step_h, step_w = (min(m, max(side - 1, 1)) for m, side in zip(missing, (height, width), strict=True))
        if height == 1 or width == 1:  # one side at a time: the other may still be reflected
            step_h, step_w = (step_h, 0) if step_h else (0, step_w)
        mode = "replicate" if (step_h and height == 1) or (step_w and width == 1) else "reflect"
        images = F.pad(images, (0, step_w, 0, step_h), mode=mode)
        missing = [missing[0] - step_h, missing[1] - step_w]
    return images


def crop_to(images: Tensor, like: Tensor) -> Tensor:
    """Undo ``pad_to_multiple``: (N, C, H', W') -> height and width of ``like``, no copy."""
    return images[..., : like.shape[-2], : like.shape[-1]]
