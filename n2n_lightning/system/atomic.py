"""Atomic writes: a file is complete and on the disk before it gets its name."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # OSError.errno when there is no room for a file
UNWRITABLE = (  # OSError.errno when a folder cannot be written, or a file stands where a folder is needed
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR),
)


@contextmanager
def atomic_path(
    path: Path, part: Path, *, durable: bool = True, last_step: Callable[[], None] | None = None
) -> Iterator[Path]:
    """Rename a file that is written under another name, once it is complete; until then ``path`` stays as it was.

    Args:
        path: the final name; its folder is made.
        part: the name to write to. A leftover of that name is removed first: it could be a link to another file.
        durable: flush the file to the disk first, so that it outlasts a power failure.
        last_step: called between flushing and renaming.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        yield part
        if durable:
            with part.open("r+b") as file:  # Windows flushes no file that is open for reading alone
                os.fsync(file.fileno())
        if last_step is not None:
            last_step()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Write a file that replaces ``path`` when it is complete. If writing fails, the old file stays.

    Args:
        path: the file. Its folder is created.
        shared: several processes may write the file at the same time. Such a file can be computed again, so it is not
            flushed to the disk.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part" if shared else f"{path.name}.part")
    with atomic_path(path, part, durable=not shared), part.open("wb") as file:
        yield file


def write_json(path: Path, content: Any) -> None:
    """Write plain types as indented JSON, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return what ``write_json`` wrote; an empty dict if the file is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def link_or_copy(file: Path, path: Path) -> None:
    """Make ``path`` a second name of ``file``: a hard link, or a copy where the file system has no links."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(file, part)
    except OSError:
        with file.open("rb") as source, atomic_write(path) as target:
            shutil.copyfileobj(source, target)
    else:
        os.replace(part, path)
        part.unlink(missing_ok=True)  # replacing does nothing when both are already names of one file
