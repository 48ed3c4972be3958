"""Notices when a process of a run is gone, and ends the others, which would wait forever.

Each holds the lock of a file in the run folder, and the kernel releases a process's locks however
it ends. If a whole machine is gone, `jax.distributed` (`processes.py`) notices and ends the others;
it calls processes "tasks".
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from ez_jax.storage import lock, run_folder, shared_lock
from ez_jax.system import exits, processes

FOLDER = "processes"  # in the run folder
LOOK = 1.0  # seconds between checks
LAST_WORDS = 2.0  # seconds to print the error that the end of another process causes here


@contextlib.contextmanager
def ending_together(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Within the block, be one of the processes of a run that share its folder.

    If the block fails or another process is gone, this one ends at once, because JAX's shutdown
    would wait for the others. All of them have to leave the block.
    """
    if jax.process_count() == 1:
        yield
        return
    files = [folder / FOLDER / f"{number}.lock" for number in range(jax.process_count())]
    own = files[jax.process_index()]
    run_folder.make_run_dir(own.parent)
    held, is_over = lock.patiently(lambda: lock.FileLock(own, warn)), threading.Event()
    processes.agreed()  # now all hold their locks
    others = [file for file in files if file != own]
    others = others if shared_lock.locks_are_shared(own.parent) else []
    watcher = threading.Thread(target=_watch, args=(others, is_over), daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:  # noqa: BLE001 reported as by the commands, then the exit code
        # Did another process's end cause it? Then JAX may abort this one at any moment.
        is_told = _tell(others)
        code = exits.guarded(functools.partial(_again, error))
        watcher.join(0 if is_told else 2 * (LOOK + LAST_WORDS))
        _end(code)
    processes.agreed()
    is_over.set()
    watcher.join()
    processes.agreed()  # nobody checks any more
    held.close()


def _again(error: BaseException) -> None:
    """Report an error as if it had not been caught."""
    raise error


def _watch(others: list[Path], is_over: threading.Event) -> None:
    while not is_over.wait(LOOK):
        if _tell(others, unless=is_over.is_set):
            time.sleep(LAST_WORDS)
            _end(exits.FAILED)


def _tell(others: list[Path], unless: Callable[[], bool] = lambda: False) -> bool:
    """Report which process is gone, if any; returns whether one is."""
    gone = [file for file in others if not lock.is_held(file)]
    if not gone or unless():
        return False
    sys.stderr.write(_sentence(gone[0]))
    sys.stderr.flush()
    return True


def _sentence(file: Path) -> str:
    return (
        f"error: process {file.stem} of {jax.process_count()} ({lock.holder(file)}) is gone, its "
        "own output says why; this one ends, too; the same command for all of them resumes "
        "from the last checkpoint\n"
    )


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
