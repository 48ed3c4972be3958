"""Being asked to stop: ctrl-C, or SIGTERM from a cluster or an operating system."""

import signal
from types import FrameType
from typing import Any


class Interrupt:
    """Turns ctrl-C and SIGTERM into a flag, so that the step at hand is finished first.

    A second ctrl-C does not wait.
    """

    def __init__(self) -> None:
        """Not watching yet."""
        self.requested = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        """Watch."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
