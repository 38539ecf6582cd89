"""Locks between processes that no crash or reboot leaves behind: `flock` on a file of its own."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable
from pathlib import Path


class FileLock:
    """A lock held until it is released or this process ends, however it ends.

    It is closed on exec and in forked children: a child that lives on does not hold it.
    It is not reentrant, and is not safe to share between threads.

    Args:
        path: The file, created when first locked. Nothing removes it; whoever removes it
            splits those who hold it from those who come later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        call_in_forked_child(self.release)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock, on the file that now has the path."""
        return self._fd is not None and self._is_at_path(self._fd)

    def try_shared(self) -> bool:
        """Take the lock together with others, or return False if one holds it alone.

        Raises:
            OSError: The file cannot be opened, or its file system has no locks.
        """
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Take the lock alone, or return False if anyone holds it.

        Raises:
            OSError: The file cannot be opened, or its file system has no locks.
        """
        return self._try(fcntl.LOCK_EX)

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        # Closing, never LOCK_UN: unlocking in a forked child would unlock its parent.
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def fileno(self) -> int:
        """Descriptor of the open file; a process that inherits it holds the lock too."""
        if self._fd is None:
            raise ValueError(f"the lock {str(self.path)!r} is not held")
        return self._fd

    def _try(self, how: int) -> bool:
        self.release()
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, how | fcntl.LOCK_NB)
            locked = self._is_at_path(self._fd)  # else the file was replaced between open and lock
        except BlockingIOError:
            locked = False
        except OSError:
            self.release()
            raise
        if not locked:
            self.release()
        return locked

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return False


def call_in_forked_child(method: Callable[[], None]) -> None:
    """Have a bound method called in every child forked while its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive()

    os.register_at_fork(after_in_child=call)
