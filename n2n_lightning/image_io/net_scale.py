"""How the values of images become numbers for a net, and the offset of images whose values lie below 0.

A net whose training had no values below 0 denoises them badly. So a level from which nearly all of the image lies
upwards is subtracted first and added again afterwards. Noise around a background of 0 needs none.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.image_io.image_file import Array
from n2n_lightning.image_io.value_range import ValueSpan, covering_range

PATCH_PX = 16  # side of the squares whose means tell structure from noise
LOWEST_SHARE = 0.002  # of the patches may lie below the offset
LEAST_GAIN = 4.0  # images that are darker by less have none
MOST_GAIN = 2.0**64  # so that float32 holds it
OFFSET_STEPS = 32  # of the contrast: offsets are multiples of a power of two, so that frames of one kind share theirs


class Scale(NamedTuple):
    """Which value is 1 to the net and which is 0."""

    peak: float  # 1 stands for ``offset + peak`` where the gain is 1
    offset: float = 0.0  # the value that is 0
    gain: Array | None = None  # that dark images and channels are multiplied by, (..., images, 1, 1, C); None is 1

    def part(self, index: Any) -> Scale:
        """Return the scale of some images or channels; the gain is indexed by ``index``."""
        return self if self.gain is None else self._replace(gain=self.gain[index])

    def to_net(self, values: Array) -> Tensor:
        """Scale (N, H, W, C) of any number type to (N, C, H, W) float32 in channels_last."""
        if self.offset:  # in double precision where float32 does not hold the values
            values = values.astype(np.result_type(values, np.float32)) - self.offset
        scaled = torch.from_numpy(values.astype(np.float32, order="C"))  # always a copy
        scaled.div_(self.peak)
        if self.gain is not None:
            scaled.mul_(torch.from_numpy(self.gain))
        return scaled.permute(0, 3, 1, 2)

    def from_net(self, estimate: Tensor, dtype: np.dtype[Any]) -> Array:
        """Scale (N, C, H, W) float on any device to (N, H, W, C) of ``dtype``.

        Integers are rounded and clipped to what the type holds.
        """
        values = estimate.permute(0, 2, 3, 1) * self.peak
        if self.gain is not None:
            values = values / torch.from_numpy(self.gain).to(values.device)
        if self.offset:
            is_wide = np.result_type(dtype, np.float32) == np.float64  # as in ``to_net``
            values = (values.double() if is_wide else values) + self.offset
        if dtype.kind == "f":
            if dtype == np.float16:  # the one float type that can be too small for a net's output
                values = values.clamp_(torch.finfo(torch.float16).min, torch.finfo(torch.float16).max)
            return values.cpu().numpy().astype(dtype, copy=False)
        limits = np.iinfo(dtype)
        if dtype.itemsize > 2:
            values = values.double()  # float32 cannot hold the limits
        high = float(limits.max)
        high = high if int(high) <= limits.max else float(np.nextafter(high, 0))  # float64 cannot hold those of 64 bits
        values = values.round_().clamp_(limits.min, high)
        values = values.float() if dtype.itemsize <= 2 else values  # which holds them all, and is sooner copied
        return values.cpu().numpy().astype(dtype)


def find_scale(span: ValueSpan, limits: Array, dtype: np.dtype[Any], *, by_channel: bool) -> Scale:
    """Return the scale of images whose range is not known; arguments as for ``find_gain``."""
    peak = covering_range(span, dtype)
    return Scale(peak, span.offset, find_gain(limits, span, peak, by_channel=by_channel) if limits.size else None)


def find_gain(limits: Array, span: ValueSpan, peak: float, *, by_channel: bool) -> Array | None:
    """Return the gain of images that are much darker than the brightest one; None if there are none.

    A net has errors of its own, of about 0.2 % of the range, which hide what is in a dark image or channel.

    Args:
        limits: the least and the greatest value of each image and channel, (2, ..., C).
        span: of all.
        peak: the range of all.
        by_channel: each channel goes through the net by itself.

    Returns:
        Powers of two, so that floats stay exact, (..., 1, 1, C); 1 for images that need none.
    """
    low, high = limits.clip(span.low, span.high)
    reaches = np.maximum(span.offset - low, high - span.offset)
    if not by_channel:
        reaches = np.broadcast_to(reaches.max(-1, keepdims=True), reaches.shape)
    ratio = peak / np.where(reaches > 0, reaches, peak).clip(peak / MOST_GAIN)
    gain = np.where(ratio >= LEAST_GAIN, 2.0 ** np.floor(np.log2(ratio)), 1.0).astype(np.float32)
    return gain[..., None, None, :] if (gain > 1).any() else None


class OffsetSurvey:
    """Finds the level from which the structure of images starts, where it lies below 0 by more than the noise.

    Fed in pieces. Of each patch the mean and its standard deviation are taken; a patch lies below 0 if their sum does.
    Zero-mean noise has no such patches, even if it is correlated over a few px.
    """

    def __init__(self) -> None:
        self._means: list[Array] = []
        self._tops: list[Array] = []  # mean + standard deviation where the mean is below 0; else the mean

    def add(self, values: Array) -> None:
        """Take finite values of some whole rows, (images, rows, W, C)."""
        if values.dtype.kind == "u":
            return
        images, rows, width, channels = values.shape
        tall, wide = min(rows, PATCH_PX), min(width, PATCH_PX)
        cut = values[:, : rows // tall * tall, : width // wide * wide]
        patches = cut.reshape(images, rows // tall, tall, width // wide, wide, channels)
        means = patches.mean(axis=(2, 4), dtype=np.float64)
        below, tops = means < 0, means.copy()
        tops[below] += patches.transpose(0, 1, 3, 5, 2, 4)[below].std(axis=(1, 2), dtype=np.float64)
        self._means.append(means.ravel())
        self._tops.append(tops.ravel())

    def offset(self) -> float:
        """Return the offset, a multiple of a power of two at or below the level; 0 where none is needed."""
        if not self._means or np.quantile(np.concatenate(self._tops), LOWEST_SHARE) >= 0:
            return 0.0
        low, high = np.quantile(np.concatenate(self._means), (LOWEST_SHARE, 1 - LOWEST_SHARE))
        step = 2.0 ** math.floor(math.log2((high - low) or -low)) / OFFSET_STEPS
        return float(math.floor(low / step) * step)


def find_offset(images: Array) -> float:
    """Return the offset of finite images, (N, H, W, C); see ``OffsetSurvey``."""
    survey = OffsetSurvey()
    survey.add(images)
    return survey.offset()
