"""The command line and its output: launching, arguments, sweeps, the help page, progress."""

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from ez_jax.config import BadInput
from ez_jax.system import exits


def start(main: Callable[[list[str]], int | None], help_text: str | Callable[[], str]) -> NoReturn:
    """Run a command and end the process with its exit code; `--help` prints the help instead."""
    words = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the terminal may lack characters of a path
            stream.reconfigure(errors="backslashreplace")
    if {"-h", "--help"} & set(words):
        sys.stdout.write(help_text if isinstance(help_text, str) else help_text())
        sys.exit(exits.DONE)
    sys.exit(exits.guarded(lambda: _somewhere(main, words)))


def _somewhere(main: Callable[[list[str]], int | None], words: list[str]) -> int | None:
    """Refuse to run in a folder that was deleted, where libraries abort or find nothing."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise BadInput(
            "the folder that this was started in is gone: `cd` into one that is there"
        ) from None
    return main(words)
