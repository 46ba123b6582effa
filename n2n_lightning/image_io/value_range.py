"""The values of images: whether they are finite, and which of them is 1 to the net.

255 is 1 for 8 bits; else the training's range where the kind of type is the same; else a range that the values fit.
A few values far out do not count. A known range is only used for values of about the same size as the training's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from n2n_lightning.image_io.image_file import Array

SAMPLED_VALUES = 2**16  # of each piece
KEPT_EXTREMES = 64  # values on each side that may be outliers
OUTLIER_SHARE = 1e-5  # of all values
FEW_VALUES = 8000  # of so few, even one that lies far out may be meant
MOST_BRIGHTER, MOST_DARKER = 4.0, 8.0  # images may be so many times brighter or darker than those of the training
MOST_BELOW_RANGE = 64.0  # and darker than the range, where nothing else is known of the training
Limits = tuple[float, float]  # the least and the greatest value
FLOAT32_MAX = float(np.finfo(np.float32).max)  # beyond it a float64 value is infinite to the net


def finite_limits(values: Array | Tensor) -> tuple[float, float] | None:
    """Return the least and the greatest of integers or floats; None where some are NaN or infinite in float32."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if max(-low, high) <= FLOAT32_MAX else None  # NaN passes through min and max, and is not <=


def image_limits(images: Array) -> Array:
    """Return the least and the greatest value of each image and channel: (N, H, W, C) -> (2, N, C) float64."""
    return np.stack([images.min(axis=(1, 2)), images.max(axis=(1, 2))]).astype(np.float64)


def non_finite_pixels(pixels: Array) -> npt.NDArray[np.bool_]:
    """Return which pixels of (..., C) have values that are NaN or infinite in float32: (...)."""
    finite: npt.NDArray[np.bool_] = np.abs(pixels) <= FLOAT32_MAX
    return ~np.asarray(finite.all(axis=-1))


class ValueSpan(NamedTuple):
    """What was found in the values of images."""

    low: float  # least value, outliers left out
    high: float  # greatest value, outliers left out
    outliers: int = 0  # number of values far out
    offset: float = 0.0  # value that is 0 to the net: see ``net_scale.OffsetSurvey``

    @property
    def reach(self) -> float:
        """The largest distance from the offset, outliers left out."""
        return max(self.offset - self.low, self.high - self.offset)


class ValueSurvey:
    """Finds the span of all values without a few that lie far out, such as the mark of a cosmic ray.

    Fed in pieces. A value is an outlier if it lies beyond the middle 99.8 % of a sample of the values by more than
    twice their span, and if such values are rare: at most ``OUTLIER_SHARE`` of all values, ``KEPT_EXTREMES`` a side.
    """

    def __init__(self) -> None:
        self.count = 0
        self._samples: list[Array] = []
        self._lowest, self._highest = np.empty(0), np.empty(0)

    def add(self, values: Array) -> None:
        """Take finite values of any shape."""
        flat = values.reshape(-1)
        step = max(flat.size // SAMPLED_VALUES, 1)
        self._samples.append(flat[self.count % step :: step].astype(np.float64))
        self.count += flat.size
        for part in (flat[:SAMPLED_VALUES], flat[SAMPLED_VALUES:]):  # the first part leaves little of the second
            self._add_extremes(part)

    def _add_extremes(self, flat: Array) -> None:
        """Keep the least and the greatest of what was kept and of new values, (n,)."""
        lower, higher = flat, flat
        if self._lowest.size > KEPT_EXTREMES:  # others than these cannot be among them; a plain number keeps the type
            number = float if flat.dtype.kind == "f" else int
            lower, higher = flat[flat < number(self._lowest[-1])], flat[flat > number(self._highest[0])]
        kept = KEPT_EXTREMES + 1
        least = np.partition(lower, kept - 1)[:kept] if lower.size > kept else lower
        greatest = np.partition(higher, -kept)[-kept:] if higher.size > kept else higher
        self._lowest = np.sort(np.append(self._lowest, least.astype(np.float64)))[:kept]
        self._highest = np.sort(np.append(self._highest, greatest.astype(np.float64)))[-kept:]

    def limits(self) -> ValueSpan:
        """Return the least and the greatest value without outliers, and the number of outliers."""
        low, high = np.quantile(np.concatenate(self._samples), (0.001, 0.999))
        reach = 2 * (high - low)
        allowed = min(KEPT_EXTREMES, max(3, OUTLIER_SHARE * self.count))
        below, above = self._lowest < low - reach, self._highest > high + reach
        below &= below.sum() <= allowed  # more than a few are no outliers
        above &= above.sum() <= allowed
        if reach == 0 or self.count < FEW_VALUES:  # of an image with one value almost everywhere, nothing can be said
            below, above = np.zeros_like(below), np.zeros_like(above)
        least, greatest = self._lowest[~below], self._highest[~above]
        found = int(below.sum() + above.sum())
        return ValueSpan(
            float(least[0]) if least.size else float(low),
            float(greatest[-1]) if greatest.size else float(high),
            found,
        )


def find_span(values: Array) -> ValueSpan:
    """Return the span of finite values of any shape."""
    if values.size < FEW_VALUES:
        return ValueSpan(float(values.min()), float(values.max()))
    survey = ValueSurvey()
    survey.add(values)
    return survey.limits()


def join_spans(spans: Sequence[ValueSpan]) -> ValueSpan:
    """Return the span of all values of several images."""
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    offset = min(span.offset for span in spans)
    return ValueSpan(low, high, sum(span.outliers for span in spans), offset)


def clipping_text(span: ValueSpan, bounds: Limits) -> str:
    """Return what happens to the outliers, as text."""
    count = f"{span.outliers} value{'s' if span.outliers > 1 else ''}"
    return f"{count} far out, beyond {span.low:.6g} to {span.high:.6g}: clipped to {bounds[0]:.6g} to {bounds[1]:.6g}"


def clip_bounds(span: ValueSpan, peak: float) -> Limits | None:
    """Return what the outliers are clipped to: the range, and all of ``span``; None if there are no outliers."""
    if not span.outliers:
        return None
    least = span.offset or (-peak if span.low < 0 else 0.0)
    return min(span.low, least), max(span.high, span.offset + peak)


def range_text(span: ValueSpan, peak: float) -> str:
    """Return the range as text: "0 to 255"; with values below 0 "-1024 to 3071" or "-10 to 1400, 1 stands for 2047"."""
    if span.low >= 0 or span.offset:
        return f"{span.offset:.15g} to {span.offset + peak:.15g}"
    return f"{span.low:.6g} to {span.high:.6g}, 1 stands for {peak:.15g}"


def known_range(dtype: np.dtype[Any], peak: float, sample_type: str) -> float | None:
    """Return the range of images of ``dtype`` to a net whose training had ``peak`` for ``sample_type``.

    None: the training does not tell it.
    """
    if dtype == np.uint8:
        return 255.0
    alike = sample_type != "uint8" and (dtype.kind == "f") == sample_type.startswith("float")
    return peak if alike else None


def covering_range(span: ValueSpan, dtype: np.dtype[Any]) -> float:
    """Return the least 2^k - 1 (integers) or 2^k (floats) that no distance from the offset exceeds.

    1 for images that are 0 everywhere, to which any range will do.
    """
    if not span.reach:
        return 1.0
    is_integer = dtype.kind != "f"
    return 2.0 ** math.ceil(math.log2(span.reach + is_integer)) - is_integer


class ScaleFault(NamedTuple):
    """Why values do not suit a net."""

    text: str  # with the fix
    dark: bool  # they are too small; otherwise too large


def scale_fault(span: ValueSpan, peak: float, trained: Limits | None, setting: str) -> ScaleFault | None:
    """Compare values with those of the training, in case they are on another scale, such as 0..255 instead of 0..1.

    Args:
        span: of the images.
        peak: the value that would be 1 to the net.
        trained: the reach of the training's darkest and of its brightest file; None if the checkpoint does not tell.
        setting: how the user sets the range, such as "data.range=".
    """
    least, greatest = trained or (peak * MOST_DARKER / MOST_BELOW_RANGE, peak)
    known = f"those of the training reach {greatest:.6g}, and its range is" if trained else "the training's range is"
    if not span.reach or least / MOST_DARKER <= span.reach <= greatest * MOST_BRIGHTER:
        return None
    dark = span.reach < least
    fitting = peak * 2.0 ** round(math.log2(span.reach / greatest))  # by a power of two, exact for floats
    return ScaleFault(
        f"values go from {span.low:.6g} to {span.high:.6g}, {known} {peak:.6g}; they may be on another scale: give "
        f"{setting}{fitting:.15g}, or {setting}{peak:.15g} for the training's range",
        dark,
    )
