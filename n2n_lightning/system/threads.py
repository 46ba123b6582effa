"""How torch's threads wait for each other. Imports nothing heavy."""

from __future__ import annotations

import os
import sys

SPIN_COUNT = "GOMP_SPINCOUNT"  # environment: how often a thread of libgomp looks for work before it sleeps
WAIT_POLICY = "OMP_WAIT_POLICY"  # environment: the same in words, PASSIVE or ACTIVE
SPINS = 3000  # costs nothing on an idle machine, and leaves the cores to others on a busy one


def limit_spinning() -> None:
    """Let waiting threads sleep soon, unless the user has chosen how they wait.

    libgomp's default keeps the cores busy while threads wait, which slows down every program on a busy machine. It
    reads the environment when torch is imported, so afterwards this does nothing.
    """
    if "torch" not in sys.modules and not {SPIN_COUNT, WAIT_POLICY} & set(os.environ):
        os.environ[SPIN_COUNT] = str(SPINS)
