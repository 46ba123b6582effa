"""The values of images: whether they are finite, and which of them is 1 to the net.

255 is 1 for 8 bits; else the training's range where the kind of type is the same; else a range that the values fit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.image_io.image_file import Array

FLOAT32_MAX = float(np.finfo(np.float32).max)  # beyond it a float64 value is infinite to the net


def finite_limits(values: Array | Tensor) -> tuple[float, float] | None:
    """Return the least and the greatest of integers or floats; None where some are NaN or infinite in float32."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if max(-low, high) <= FLOAT32_MAX else None  # NaN passes through min and max, and is not <=


def non_finite_pixels(pixels: Array) -> npt.NDArray[np.bool_]:
    """Return which pixels of (..., C) have values that are NaN or infinite in float32: (...)."""
    finite: npt.NDArray[np.bool_] = np.abs(pixels) <= FLOAT32_MAX
    return ~np.asarray(finite.all(axis=-1))


def known_range(dtype: np.dtype[Any], peak: float, sample_type: str) -> float | None:
    """Return the range of images of ``dtype`` to a net whose training had ``peak`` for ``sample_type``.

    None: the training does not tell it.
    """
    if dtype == np.uint8:
        return 255.0
    alike = sample_type != "uint8" and (dtype.kind == "f") == sample_type.startswith("float")
    return peak if alike else None


def covering_range(low: float, high: float, dtype: np.dtype[Any]) -> float:
    """Return the least 2^k - 1 (integers) or 2^k (floats) that no value exceeds.

    Raises:
        ValueError: the values cannot be an image's whose black is 0.
    """
    if high <= 0 or low < -high / 2:
        raise ValueError(f"values go from {low:g} to {high:g}, but black is taken to be 0")
    is_integer = dtype.kind != "f"
    return 2.0 ** math.ceil(math.log2(high + is_integer)) - is_integer


def found_range(low: float, high: float, dtype: np.dtype[Any]) -> float:
    """Return ``covering_range``; 1 for images that are black everywhere, to which any range will do."""
    return covering_range(low, high, dtype) if low or high else 1.0


def to_net(values: Array, peak: float) -> Tensor:
    """Scale (N, H, W, C) of any number type to (N, C, H, W) float32 in channels_last; ``peak`` becomes 1."""
    scaled = torch.from_numpy(values.astype(np.float32, order="C"))  # always a copy
    return scaled.div_(peak).permute(0, 3, 1, 2)


def from_net(estimate: Tensor, peak: float, dtype: np.dtype[Any]) -> Array:
    """Scale (N, C, H, W) float to (N, H, W, C) of ``dtype``; integers are rounded and clipped to what it holds."""
    values: Array = (estimate.permute(0, 2, 3, 1) * peak).numpy()
    if dtype == np.float16:  # the one float type that can be too small for a net's output
        values = np.clip(values, np.finfo(dtype).min, np.finfo(dtype).max)
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    if dtype.itemsize > 2:
        values = values.astype(np.float64)  # float32 cannot hold the limits
    high = float(limits.max)
    high = high if int(high) <= limits.max else float(np.nextafter(high, 0))  # float64 cannot hold those of 64 bits
    return np.clip(np.rint(values, out=values), limits.min, high).astype(dtype)
