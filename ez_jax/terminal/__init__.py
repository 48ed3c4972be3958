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
    _take_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the terminal may lack characters of a path
            stream.reconfigure(errors="backslashreplace")
    if {"-h", "--help"} & set(words):
        sys.exit(exits.guarded(lambda: _help(help_text)))
    sys.exit(exits.guarded(lambda: _somewhere(main, words)))


def _help(text: str | Callable[[], str]) -> None:
    sys.stdout.write(text if isinstance(text, str) else text())


def _take_closed_streams() -> None:
    """Have what is said go nowhere where its stream was closed (`>&-`): Python has None there.

    Else the next file that is opened would get the number of the stream, and all that is said.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 to the end


def _somewhere(main: Callable[[list[str]], int | None], words: list[str]) -> int | None:
    """Refuse to run in a folder that was deleted, where libraries abort or find nothing."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise BadInput(
            "the folder that this was started in is gone: `cd` into one that is there"
        ) from None
    return main(words)
