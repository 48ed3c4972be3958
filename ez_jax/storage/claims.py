"""Cells of a ledger are taken where a file system has no locks, or none that other machines see.

A claim is a file that only one process can create, `<name>.claim-<n>`, with a line for every
process that works under it. Who ends lets go by a last line; then, and when all of them are known
to be dead, the next process claims `<n + 1>`. Nothing is ever deleted or taken over by a clock:
a process that is only slow, or cut off, would come back and be the second one in its cell. So of a
machine that died with a claim a person has to say so, by deleting the file.
"""

import errno
import fcntl
import os
import re
import socket
import tempfile
from pathlib import Path

from ez_jax.config import BadInput
from ez_jax.storage import lock
from ez_jax.storage.lock import Busy, FileLock

_FREE = "free"
_PROC = Path("/proc")
_LONGEST = 2**16  # bytes of a claim
# File systems whose locks, with one of these options, are those of this machine alone.
_LOCAL = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
}


class Claim:
    """Holds a name among processes that see the same files; used as a `FileLock` is."""

    def __init__(self, path: Path):
        """Claim it.

        Raises:
          Busy: another process has it, or may have it.
          BadInput: the file cannot be created.
        """
        newest = _newest(path)
        if newest and not _is_free(_numbered(path, newest)):
            raise Busy(_told(_numbered(path, newest)))
        file = _numbered(path, newest + 1)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file: int | None = os.open(file, flags, 0o666)
        except FileExistsError:  # another one was quicker
            raise Busy(_told(file)) from None
        except OSError as error:
            raise BadInput(f"{file} cannot be created ({error.strerror})") from error
        join(self._file)

    def close(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            _append(self._file, _FREE)
            os.close(self._file)
            self._file = None

    def descriptor(self) -> int:
        """The open file, for a program that works under the same claim (`lock.hold_inherited`)."""
        if self._file is None:
            raise ValueError("the claim is not held any more")
        return self._file

    def __enter__(self) -> "Claim":
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the next one have it."""
        self.close()


def take(path: Path) -> FileLock | Claim:
    """Hold a name by a lock that a dead process does not keep, or else by a claim.

    Raises:
      Busy: another process has it, or may have it.
    """
    if not locks_are_shared(path.parent):
        return Claim(path)
    return FileLock(path, _refuse)


def is_taken(path: Path) -> bool:
    """Whether a process holds a name, by a lock or a claim."""
    newest = _newest(path)
    return lock.is_held(path) or bool(newest and not _is_free(_numbered(path, newest)))


def join(file: int) -> None:
    """Work under the claim of an open file, as well."""
    _append(file, _identity(os.getpid()))


def locks_are_shared(folder: Path) -> bool:
    """Whether the kernel locks files of a folder, and for all machines that see them."""
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
    raise BadInput(reason)  # it had locks a moment ago


def _mount(folder: Path, table: str = "/proc/self/mountinfo") -> tuple[str, set[str]]:
    """Kind and options of the file system of a folder, as far as this machine tells."""
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


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.claim-{number}")


def _newest(path: Path) -> int:
    """The number of the last claim; 0 where there is none."""
    pattern = re.compile(re.escape(path.name) + r"\.claim-([1-9]\d{0,8})")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return 0
    return max((int(found[1]) for found in map(pattern.fullmatch, names) if found), default=0)


def _read(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST).decode(errors="replace").splitlines()
    except OSError as error:
        # Gone meanwhile, or (NFS) not to be seen yet: whoever made it has it.
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return []
        raise


def _is_free(file: Path) -> bool:
    """Whether nobody works under a claim any more; who may be alive is."""
    lines = _read(file)
    return _FREE in lines or (bool(lines) and all(map(_is_dead, lines)))


def _identity(process: int) -> str:
    """Tells a process from all others that there ever are, on any machine."""
    words = [str(process), socket.gethostname()]
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink(_PROC / "self/ns/pid")
        started = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:  # not Linux, or it has ended
        return " ".join(words)
    return " ".join([*words, boot, space, started])


def _is_dead(identity: str) -> bool:
    """Whether a process is known to have ended: one of this machine and its process numbers."""
    process, *there = identity.split(" ")
    here = _identity(os.getpid()).split(" ")[1:]
    if not process.isdecimal() or len(there) != 4 or there[:3] != here[:3]:
        return False
    return _identity(int(process)) != identity


def _told(file: Path) -> str:
    process, host, *_ = [*" ".join(_read(file)[:1]).split(" "), "?", "?"]
    known = process.isdecimal() and re.fullmatch(r"[\w.-]{1,255}", host)
    who = f"process {process} on {host}" if known else "another process"
    return f"{file.parent} is in use by {who}; if that has ended, delete {file.name} there"


def _append(file: int, line: str) -> None:
    os.write(file, f"{line}\n".encode())
    os.fsync(file)  # NFS shows it to others then
