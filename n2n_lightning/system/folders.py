"""Folders that come with the package, and folders that cannot be written."""

from __future__ import annotations

import difflib
import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def bundled(name: str) -> Path:
    """Return the folder ``conf`` or ``weights``. A wheel has it inside the package, a checkout beside it."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def config_folder() -> Path:
    """Return the folder of the Hydra configs."""
    return bundled("conf")


def weights_folder() -> Path:
    """Return the folder of the trained models."""
    return bundled("weights")


def suggest_path(path: Path) -> str:
    """Return the hint "; did you mean 'x'?" for a path that does not exist, or an empty string if no name is near."""
    parts = [part for part in (*reversed(path.parents), path) if not part.exists()]
    try:
        names = os.listdir(parts[0].parent)
    except (IndexError, OSError):
        return ""
    near = difflib.get_close_matches(parts[0].name, names, n=1, cutoff=0.7)
    return f"; did you mean '{parts[0].with_name(near[0]) / path.relative_to(parts[0])}'?" if near else ""


def write_fault(path: Path) -> str | None:
    """Return why no file could be written at ``path``; None if one could. Nothing is left behind.

    The nearest folder that exists is tried with a temporary file, because permissions alone do not tell: the root user
    has all of them, and a file system may be read-only.
    """
    if path.is_dir():
        return "it is a folder"
    try:
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return error.strerror or str(error)
