"""One process at a time: a lock on a file that the operating system frees when its holder dies, in whatever way."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from n2n_lightning.system import errors

try:
    import fcntl
except ImportError:  # Windows, where two processes in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

UNLOCKED = (  # where nothing can be written, and file systems that have no locks
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP),
)
_held: set[int] = set()  # descriptors of this process's locks


@contextmanager
def file_lock(path: Path, refusal: str | None, *, remove: bool = False) -> Iterator[None]:
    """Keep other processes that hold the same path out. Where nothing can be written, nobody has to be.

    Args:
        path: the file; it is made where there is none, in a folder that may be missing too.
        refusal: the message for who comes second; None lets them wait for their turn.
        remove: the file is for the lock alone, and goes when the lock does.

    Raises:
        errors.InputError: another process holds it; it notices nothing.
    """
    try:
        descriptor = None if fcntl is None else _take(path, wait=False)
    except BlockingIOError as error:
        if refusal is not None:
            raise errors.InputError(refusal) from error
        print("waiting for another process that makes the same data set", file=sys.stderr, flush=True)
        descriptor = _take(path, wait=True)
    except OSError as error:
        if error.errno not in UNLOCKED:
            raise
        descriptor = None
    try:
        yield
    finally:
        if descriptor is not None:
            if remove:
                path.unlink(missing_ok=True)
            _held.discard(descriptor)
            os.close(descriptor)


def exclusive_build(key: Path) -> AbstractContextManager[None]:
    """Processes of this machine that want to make the file or folder ``key`` do so one after the other."""
    name = hashlib.sha256(os.fspath(key.absolute()).encode()).hexdigest()[:16]
    return file_lock(Path(tempfile.gettempdir()) / f"n2n_lightning-{name}.lock", None, remove=True)


def _take(path: Path, *, wait: bool) -> int:
    """The descriptor of the locked file, which is the one that has the name: its last holder may have removed it."""
    _free_in_children()
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except FileNotFoundError:  # the folder has just gone
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            same = _names(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if same:
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@functools.cache
def _free_in_children() -> None:
    """A forked child, such as a loader's worker, may outlive a parent that was killed, and must not keep its locks."""
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    while _held:
        os.close(_held.pop())
