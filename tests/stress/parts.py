"""The parts of the stress tests by name; each must run in a process of its own."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from stress.figures import Figure

PARTS = ("kills", "ranks", "damage", "full_disk", "sweep", "inputs", "pickles", "sameness", "endurance")


def run_part(name: str, quick: bool, seed: int) -> list[Figure]:
    """Run a part in a temporary folder. Call this in a new process: some parts fork, and some measure memory."""
    with tempfile.TemporaryDirectory() as scratch:
        found: list[Figure] = importlib.import_module(f"stress.{name}").run(Path(scratch), quick=quick, seed=seed)
        return found
