"""Locks between processes. The operating system frees a lock when its holder dies, however it dies."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from n2n_lightning.system import errors
from n2n_lightning.system.atomic import UNWRITABLE

UNLOCKABLE = (  # read-only folders, and file systems without locks
    *UNWRITABLE,
    *(errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP),
)
RETRY_SECONDS = 0.1  # before a lock counts as held: its last holder may be removing the file at this moment


@contextmanager
def file_lock(path: Path, refusal: str | None) -> Iterator[None]:
    """Keep out every other process that locks the same path. Continue unlocked where no file can be locked.

    Args:
        path: a file for the lock alone. It is created with its folder, and removed when the lock is released.
        refusal: the error message when another process holds the lock; None waits until the lock is free.

    Raises:
        errors.InputError: another process holds the lock.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(RETRY_SECONDS)
    except Timeout as error:
        if refusal is not None:
            raise errors.InputError(refusal) from error
        print("waiting for another process that makes the same data set", file=sys.stderr, flush=True)
        lock.acquire()
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(PermissionError):  # Windows cannot remove an open file: there, release removes it
                path.unlink(missing_ok=True)
            lock.release()


def exclusive_build(key: Path) -> AbstractContextManager[None]:
    """Let the processes of this machine that build the file or folder ``key`` do so one after the other."""
    name = hashlib.sha256(os.fspath(key.absolute()).encode()).hexdigest()[:16]
    return file_lock(Path(tempfile.gettempdir()) / f"n2n_lightning-{name}.lock", None)
