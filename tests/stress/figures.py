"""``Figure``: one measurement of the stress tests."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A measurement and the bar that it is compared with."""

    measure: str  # what was done
    bar: str  # what must come out, in words
    measured: str  # what came out, in words
    met: bool
