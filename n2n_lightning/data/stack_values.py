"""The values of all files of a data set: their span and their range, and whether they suit a net."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from n2n_lightning.image_io.stack import ImageStack
from n2n_lightning.image_io.value_range import Limits, ValueSpan, covering_range, join_spans, scale_fault

SHOWN_FILES = 5


class StackValues:
    """What was found in the values of files of one kind."""

    def __init__(self, stacks: Sequence[ImageStack]) -> None:
        self.stacks = stacks

    @cached_property
    def span(self) -> ValueSpan:
        """The least and the greatest value of all files, and the number of values far out."""
        return join_spans([stack.values for stack in self.stacks])

    @cached_property
    def reach(self) -> Limits:
        """The largest absolute value of the darkest and of the brightest file, outliers left out."""
        each = [stack.values.reach for stack in self.stacks]
        return min(each), max(each)

    def find_range(self) -> float:
        """Return 255 for 8-bit images, else the ``covering_range``; raise a ValueError if all values are 0."""
        dtype = np.dtype(self.stacks[0].dtype)
        if dtype == np.uint8:
            return 255.0
        if not self.span.reach:
            raise ValueError(
                f"all values are 0, the first in {self.stacks[0].name}; remove the images, or set data.range"
            )
        return covering_range(self.span, dtype)

    @property
    def outlier_files(self) -> list[str]:
        """Names of the files with values far out, at most five."""
        return [stack.name for stack in self.stacks if stack.outliers][:SHOWN_FILES]

    def outlier_warning(self) -> str | None:
        """Return a warning about values far out, if there are any and they could set the range."""
        count = self.span.outliers
        if not count or np.dtype(self.stacks[0].dtype) == np.uint8:
            return None
        return (
            f"{count} value{'s' if count > 1 else ''} far out, in {', '.join(self.outlier_files)}: not counted for the "
            "range, and clipped to it; set data.range to the largest value if these are no faults of the camera"
        )

    def check_scale(self, peak: float, trained: Limits | None) -> None:
        """Refuse files on another scale than a training's; see ``value_range.scale_fault``."""
        fault = scale_fault(self.span, peak, trained, "data.range=")
        if fault is None:
            return
        brightest = max(self.stacks, key=lambda stack: stack.values.reach)
        text = f"{brightest.name}{' and others' * (len(self.stacks) > 1)}: {fault.text}"
        if trained is not None or not fault.dark:
            raise ValueError(text)
        print(f"warning: {text}", file=sys.stderr, flush=True)
