"""Requests to stop: ctrl-C, or SIGTERM from a cluster or the operating system."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ez_jax.config.errors import Fault

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Interrupt:
    """Turns ctrl-C and SIGTERM into a flag, so that the current step is finished first.

    A second ctrl-C does not wait.
    """

    def __init__(self, hand_on: Callable[[], object] = lambda: None) -> None:
        """Does not watch yet; `hand_on` passes the request on to other processes."""
        self.requested, self._hand_on = False, hand_on
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    @contextlib.contextmanager
    def unasked(self, game: str) -> Iterator[None]:
        """Take a KeyboardInterrupt for the game's fault, while signals are watched and none came.

        Raises:
          Fault: the game raised it.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            if self.requested or not self._handlers:
                raise
            what = "raised KeyboardInterrupt, which nobody asked for"
            raise Fault(f"'{game}' {what}") from error

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._hand_on()
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def end_with(parent: int) -> None:
    """Ask this process to stop (SIGTERM) when its parent ends, however it ends.

    On Linux only; elsewhere the process runs to its end.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if os.getppid() != parent:  # it ended before this was set up
        raise KeyboardInterrupt
