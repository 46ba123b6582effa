"""Folders that come with the package, and the names of run folders."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

UNNAMED_OVERRIDES = (  # overrides that the name of a run's folder leaves out
    *("model", "study", "resume", "experiment", "size", "debug", "plugins"),
    *("save_minutes", "save_steps"),
)
MAX_RUN_NAME = 180  # characters
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


def run_name(model: str, overrides: Sequence[str]) -> str:
    """Return the folder name of a run: the model, then the other overrides, sorted. Of a path, take the last part.

    >>> run_name("unet", ["model=unet", "seed=1", "optimizer=sgd"])
    'unet,optimizer=sgd,seed=1'
    """
    named = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key not in UNNAMED_OVERRIDES and not key.startswith("hydra."):
            value = value.strip("'\"").rstrip("/").rpartition("/")[2] if "/" in value else value
            named.append(f"{key}={re.sub(r'[^A-Za-z0-9_.+=,-]', '', value)}")
    name = ",".join([model, *sorted(named)])
    if len(name) <= MAX_RUN_NAME:
        return name
    return f"{name[:MAX_RUN_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
