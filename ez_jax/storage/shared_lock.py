"""One process at a time among all machines that see a folder, with or without working locks.

If all machines see the locks of a file, `take` returns a `FileLock`. If the file system has none,
or keeps them on one machine, a file that only one machine can create (`<name>.machine`) gives the
name to that machine, and its kernel gives it to one process, by an abstract socket, until the
process ends. So the lock of a dead process on this machine is free at once. If a machine died, a
person has to delete the file. There is no timeout, because a machine that is only slow or
disconnected could come back as a second holder.
"""

import errno
import fcntl
import hashlib
import os
import re
import socket
import tempfile
from pathlib import Path

from ez_jax.config import BadInput
from ez_jax.storage import lock, safe_files
from ez_jax.storage.lock import Busy, FileLock

# File systems whose locks, with one of these options, work on this machine only.
_LOCAL = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
}


class MachineLock(FileLock):
    """Holds a name if machines do not see each other's locks."""

    def __init__(self, path: Path):
        """Take it.

        Raises:
          Busy: another process has it, or may have it.
          BadInput: the file cannot be created.
        """
        super().__init__(_machine_file(path), _refuse)

    def _acquire(self) -> None:
        try:
            self._file = _ask_kernel(self._path)
            # An existing file of this machine may be from a process that has ended.
            self._is_locked = self._file is not None and (
                _create(self._path) or self._is_in_place()
            )
        except OSError as error:
            self._let_go()
            raise BadInput(
                f"{self._path.parent} has no locks that other machines see, and "
                f"{self._path.name} cannot be created there ({error.strerror}); choose another dir="
            ) from error
        if not self._is_locked:
            self._let_go()
            host = _read(self._path).partition(" ")[0]
            known = re.fullmatch(r"[\w.-]{1,255}", host)
            raise Busy(
                f"{self._path.parent} is in use by a process on {host if known else 'a machine'}; "
                f"if that process no longer exists, delete {self._path.name} there"
            )

    def _is_in_place(self) -> bool:
        return _read(self._path) == _here(self._path)


def take(path: Path) -> FileLock:
    """Hold a name among all machines that see its folder.

    Raises:
      Busy: another process has it, or may have it.
    """
    if not locks_are_shared(path.parent):
        return MachineLock(path)
    return FileLock(path, _refuse)


def is_taken(path: Path) -> bool:
    """Whether a process holds a name, or may hold it."""
    file = _machine_file(path)
    if not file.exists():
        return lock.is_held(path)
    asked = _ask_kernel(file) if _read(file) == _here(file) else None
    if asked is not None:
        os.close(asked)
    return asked is None


def locks_are_shared(folder: Path) -> bool:
    """Whether files of a folder can be locked, for all machines that see them."""
    kind, options = _mount(folder)
    if options & _LOCAL.get(kind, set()):
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in lock.UNSUPPORTED:
            return False
        raise BadInput(f"{folder} cannot be written ({error.strerror})") from error
    return True


def _refuse(reason: str) -> None:
    raise BadInput(reason)  # it had locks just before


def _mount(folder: Path, table: str = "/proc/self/mountinfo") -> tuple[str, set[str]]:
    """Type and options of the file system of a folder, as far as this machine knows."""
    try:
        lines = Path(table).read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return "", set()
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for fields in map(str.split, lines):
        if fields[2] == wanted:
            kind, _, options = fields[fields.index("-") + 1 :][:3]
            return kind, {*fields[5].split(","), *options.split(",")}
    return "", set()


def _machine_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.machine")


def _here(file: Path) -> str:
    """The content of a file of this machine, and the address of the name in its kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    network = os.readlink("/proc/self/ns/net")  # abstract sockets belong to a network namespace
    return f"{socket.gethostname()} {boot} {network} {file.resolve()}\n"


def _create(file: Path) -> bool:
    """Create the file of this machine; returns whether it was missing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(file, flags, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as opened:
        opened.write(_here(file))
        opened.flush()
        os.fsync(descriptor)  # then NFS shows it to others
    return True


def _read(file: Path) -> str:
    try:
        return safe_files.read_bytes(file, safe_files.SMALL).decode(errors="replace")
    except (OSError, BadInput):  # removed in the meantime, or not ours
        return ""


def _ask_kernel(file: Path) -> int | None:
    """An open socket with this address; None if another process of this machine has it."""
    name = "\0ez_jax " + hashlib.sha256(_here(file).encode()).hexdigest()
    asking = socket.socket(socket.AF_UNIX)
    try:
        asking.bind(name)
    except OSError as error:
        asking.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return asking.detach()
