"""Freed memory given back to the system. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES = 1e8  # that the C library may keep of the memory that a thread has freed


def trim_heaps() -> None:
    """Give back what the C library keeps of freed memory, in a heap for each thread. Only glibc can do so."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
