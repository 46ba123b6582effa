"""Files that are never half there: written aside, flushed to the disk, renamed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """A file that gets its name once it is whole and on the disk; until then what had the name before stays.

    Args:
        path: its name; the folder is made.
        shared: other processes may write the same at the same time; such files can be made again, so that they need
            not outlast a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part" if shared else f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            if not shared:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """What ``write_json`` wrote; empty where there is none that can be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def link_or_copy(file: Path, path: Path) -> None:
    """Give a file a second name, in place of what had it before: a hard link, or a copy where there are none."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(file, part)
    except OSError:
        with file.open("rb") as source, atomic_write(path) as target:
            shutil.copyfileobj(source, target)
    else:
        os.replace(part, path)
        part.unlink(missing_ok=True)  # it stays where both were names of one file already
