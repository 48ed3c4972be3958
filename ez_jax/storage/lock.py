"""One process at a time in a run folder, with a lock that ends with its process.

The kernel keeps the lock on an open file (`<run>/lock`) and releases it when the process ends,
however it ends. The content of the file only names the holder, for the message of a refusal.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ez_jax.config import BadInput

FILE_NAME = "lock"
PATIENCE = 60.0  # seconds for which `patiently` waits
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HOLDER = re.compile(r"process \d{1,10} on [\w.-]{1,255}")
Held = TypeVar("Held")
_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


class Busy(BadInput):
    """Another process holds a lock."""


class FileLock(contextlib.AbstractContextManager["FileLock"]):
    """Holds a file until `close`; child processes do not inherit it unless asked."""

    fix = "stop it"

    def __init__(self, path: Path, warn: Callable[[str], None]):
        """Take a lock in an existing folder; call `warn` if the file system has no locks.

        Raises:
          Busy: another process has it.
          BadInput: the file cannot be opened.
        """
        self._path, self._warn = path, warn
        self._file: int | None = None
        self._is_locked = False
        self._acquire()
        _held.add(self)

    def close(self) -> None:
        """Release the folder."""
        if self._is_locked and self._is_in_place():
            self._path.unlink()
        self._let_go()

    def descriptor(self) -> int:
        """The open file, for a child process that continues to hold it (`hold_inherited`)."""
        if self._file is None:
            raise ValueError(f"{self._path} is not held any more")
        return self._file

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        """A forgotten lock is released."""
        self._let_go()

    def _acquire(self) -> None:
        # A process that ends removes the file, so the file just opened may no longer be the lock.
        file = None
        while file is None or not self._is_in_place():
            self._let_go()
            file = self._file = self._open()
            self._is_locked = self._lock(file)
        if self._is_locked:
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._path, flags, 0o666)
        except OSError as error:
            reason = error.strerror
            raise BadInput(f"{self._path} cannot be opened ({reason}); delete it") from error

    def _lock(self, file: int) -> bool:
        """Lock the open file; returns whether its file system has locks."""
        folder = self._path.parent
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                self._warn(
                    f"the file system of {folder} has no locks ({error.strerror}): "
                    "make sure that no other process works in it"
                )
                return False
            holder = _holder(file)
            self._let_go()
            raise Busy(f"{folder} is in use by {holder}; {self.fix}") from error
        return True

    def _is_in_place(self) -> bool:
        """Whether other processes would open the same file."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        file, self._file = getattr(self, "_file", None), None
        if file is not None:
            os.close(file)


def patiently(take: Callable[[], Held]) -> Held:
    """The result of `take`, with retries, for a lock that nobody holds for long.

    Raises:
      Busy: it was held too long.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return take()
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


class RunLock(FileLock):
    """Holds a run folder."""

    fix = "stop it, or choose another name= or run_dir="

    def __init__(self, folder: str | Path, warn: Callable[[str], None]):
        """Take the lock of an existing folder, as `FileLock` does."""
        super().__init__(Path(folder) / FILE_NAME, warn)


def hold_inherited(file: int) -> None:
    """Share a lock that the parent took: it is held until both processes have ended."""
    os.set_inheritable(file, False)
    os.register_at_fork(after_in_child=lambda: os.close(file))


def is_held(path: Path) -> bool:
    """Whether a process holds a lock; the check itself holds a free lock for a moment."""
    try:
        file = os.open(path, _READ)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in UNSUPPORTED
    finally:
        os.close(file)
    return False


def holder(path: Path) -> str:
    """The holder of a lock, or the last one, by the content of its file."""
    try:
        file = os.open(path, _READ)
    except OSError:
        return "another process"
    try:
        return _holder(file)
    finally:
        os.close(file)


def _holder(file: int) -> str:
    """The holder of the lock, by the content of the file."""
    text = os.pread(file, 300, 0).decode(errors="replace").strip()
    return text if _HOLDER.fullmatch(text) else "another process"


def _close_in_child() -> None:
    """A forked child would keep the lock when its parent dies."""
    for lock in list(_held):
        lock._let_go()


os.register_at_fork(after_in_child=_close_in_child)
