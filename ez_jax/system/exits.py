"""How a command ends: exit codes, and messages about errors."""

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable

from ez_jax.config import BadInput
from ez_jax.config.errors import Fault, one_line

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


# The user's wish, read before `terminal.launch` tells Hydra to leave errors alone.
FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def guarded(action: Callable[[], int | None], *, full_errors: bool = FULL_ERRORS) -> int:
    """Run an action and return its exit code; errors are reported on stderr."""
    try:
        code = action() or DONE
        sys.stdout.flush()
        return code
    except BadInput as error:
        if full_errors:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT
    except Fault as error:
        if full_errors:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 the outermost frame: told in full, then the exit code
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return FAILED
        full = _full_disk(error)
        if full is None or full_errors:
            traceback.print_exc()
        if full is not None:
            sys.stderr.write(
                f"error: {full} and give the same command again: a run goes on from its last "
                "checkpoint\n"
            )
        return FAILED


def _nobody_reads() -> bool:
    """Whether the reader of our output has ended, like `| head`; then the rest is discarded."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLERR)
    if is_gone := bool(poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


_FULL = {  # what is told of the disk, and what fixes it
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the quota of the disk is used up", "make room"),
    errno.EFBIG: ("a file may not grow any more", "allow larger ones (`ulimit -f`)"),
    errno.EROFS: ("the disk can only be read", "have it mounted for writing"),
}


def _full_disk(error: BaseException | None) -> str | None:
    """What an exception, or one that led to it, tells of a disk that takes no more; else None.

    TensorStore, which writes the arrays, has exceptions of other kinds, with the system's words.
    """
    if error is None:
        return None
    for number, (said, fix) in _FULL.items():
        of_system = isinstance(error, OSError) and error.errno == number
        if of_system or f"{os.strerror(number)} [os_error_code='{number}']" in str(error):
            where = getattr(error, "filename", None)
            return one_line(f"{said} ({where}); {fix}" if where else f"{said}; {fix}")
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        # Of Python's `tempfile`, which tries to write into each.
        return "no folder for temporary files can be written; make room in /tmp or set TMPDIR"
    return _full_disk(error.__cause__ or error.__context__)
