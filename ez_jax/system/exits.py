"""How a command ends: exit codes, and what is said of an error on the way out."""

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable

from ez_jax.config import BadInput
from ez_jax.config.errors import Fault

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


# The user's wish, read before `terminal.launch` tells Hydra to leave errors alone.
FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def guarded(action: Callable[[], int | None], *, full_errors: bool = FULL_ERRORS) -> int:
    """Do something and return its exit code, with what went wrong told on stderr."""
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
        traceback.print_exc()
        if _is_full_disk(error):
            sys.stderr.write(
                "error: the disk is full; make room and give the same command again: a run goes on "
                "from its last checkpoint\n"
            )
        return FAILED


def _nobody_reads() -> bool:
    """Whether the reader of our output is gone, as `| head` is; then what is left goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLERR)
    if is_gone := bool(poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, tells of no space or no quota left."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return _is_full_disk(error.__cause__ or error.__context__)
