"""A lock among the processes of a machine, by a file. It ends with the process that holds it, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path, wait: bool = True, remove: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made if need be; False if it is another's and `wait` is off. Threads of one process keep
    each other out as well. Where a machine or file system has no locks, everybody gets it. `remove`: the file goes with the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _taken(handle, wait):
                yield False
                return
            if not _there(handle, path):
                continue  # removed by the one who had it
            try:
                yield True
            finally:
                if remove:
                    path.unlink(missing_ok=True)
                _given_back(handle)  # a process that was forked meanwhile has the file open too
            return
        finally:
            os.close(handle)


def _taken(handle: int, wait: bool) -> bool:
    try:
        import fcntl  # on Unix alone

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def _given_back(handle: int) -> None:
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)


def _there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
