"""Which value is 1 to the net: 255 for 8 bits, else the training's where the kind is the same, else found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.image_io.image_file import Array


def known_range(dtype: np.dtype[Any], peak: float, sample_type: str) -> float | None:
    """The range of images of ``dtype`` to a net whose training had ``peak`` for ``sample_type``; None: to be found."""
    if dtype == np.uint8:
        return 255.0
    alike = sample_type != "uint8" and (dtype.kind == "f") == sample_type.startswith("float")
    return peak if alike else None


def covering_range(low: float, high: float, dtype: np.dtype[Any]) -> float:
    """The least 2^k - 1 (whole numbers) or 2^k (floats) that no value exceeds.

    Raises:
        ValueError: the values cannot be an image's whose black is 0.
    """
    if high <= 0 or low < -high / 2:
        raise ValueError(f"values go from {low:g} to {high:g}, but black is taken to be 0")
    whole = dtype.kind != "f"
    return 2.0 ** math.ceil(math.log2(high + whole)) - whole


def found_range(low: float, high: float, dtype: np.dtype[Any]) -> float:
    """``covering_range``; 1 for black images, to which any will do."""
    return covering_range(low, high, dtype) if low or high else 1.0


def to_net(values: Array, peak: float) -> Tensor:
    """(N, H, W, C) of any number type -> (N, C, H, W) float32 in channels_last, ``peak`` becomes 1."""
    scaled = torch.from_numpy(values.astype(np.float32, order="C"))  # always a copy
    return scaled.div_(peak).permute(0, 3, 1, 2)


def from_net(estimate: Tensor, peak: float, dtype: np.dtype[Any]) -> Array:
    """(N, C, H, W) float -> (N, H, W, C) of ``dtype``; whole numbers are rounded and clipped to what it holds."""
    values: Array = (estimate.permute(0, 2, 3, 1) * peak).numpy()
    if dtype == np.float16:  # the one float that a net's output may be too large for
        values = np.clip(values, np.finfo(dtype).min, np.finfo(dtype).max)
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    if dtype.itemsize > 2:
        values = values.astype(np.float64)  # float32 cannot hold the limits
    high = float(limits.max)
    high = high if int(high) <= limits.max else float(np.nextafter(high, 0))  # nor float64 those of 64 bits
    return np.clip(np.rint(values, out=values), limits.min, high).astype(dtype)
