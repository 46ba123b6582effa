"""``Figure``: what one measurement of the stress tests came to."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A measurement and the bar it is held against."""

    measure: str  # what was done
    bar: str  # what must come out, in words
    measured: str  # what came out, in words
    met: bool
