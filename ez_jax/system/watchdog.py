"""Ends a run that hangs and says where, so that a cluster job does not hang forever.

Code that may wait says so: `with watchdog.at("waiting for ..."):`, or as a decorator. That,
`beat()` and every expected result of the device are signs of life. After too long, the stacks
of all threads go to stderr and to `<run>/hang.txt`, and the process ends with exit code 1; the same
command resumes from the last checkpoint.
"""

import collections
import contextlib
import datetime
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TextIO

HANG_FILE = "hang.txt"
AT_START = "waiting for the environments"  # if nothing else was said
TICKS = 40  # checks per limit
LATE = 3  # ticks; after a longer gap, the whole process was asleep
LAST_WORDS = 60.0  # seconds to report it, because the disk may be what hangs


class _Pulse:
    """Signs of life of this process, which has one main loop."""

    doing = AT_START
    beats = 0
    is_watched = False
    # Asked of the device, oldest first.
    results: ClassVar[collections.deque[Any]] = collections.deque()


def beat() -> None:
    """Give a sign of life."""
    _Pulse.beats += 1


@contextlib.contextmanager
def at(doing: str) -> Iterator[None]:
    """Say what the process is doing; beginning and end are signs of life."""
    before, _Pulse.doing = _Pulse.doing, doing
    beat()
    try:
        yield
    finally:
        _Pulse.doing = before
        beat()


def expect(result: Any) -> None:
    """Count the arrival of an array as a sign of life: a device that works on a queue is alive.

    The array must not be donated afterwards.
    """
    if _Pulse.is_watched:
        _Pulse.results.append(result)


class Watchdog:
    """Watches during its `with` block; everything in it has to show signs of life."""

    def __init__(
        self, run_dir: str | Path, limit: float, end: Callable[[int], None] = os._exit
    ) -> None:
        """`limit` is in seconds, 0 for never; there is a warning at half of it."""
        self._file = Path(run_dir) / HANG_FILE
        self._limit, self._end = limit, end
        self._interval = min(limit / TICKS, 10.0)
        self._is_over = threading.Event()
        self._beats, self._silent, self._is_warned = -1, 0.0, False
        self._looked = time.monotonic()

    def __enter__(self) -> "Watchdog":
        if self._limit:
            _Pulse.is_watched = True
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        _Pulse.is_watched = False
        _Pulse.results.clear()

    def silence(self, now: float) -> float:
        """Seconds without a sign of life until `now` (monotonic) while this process was awake.

        A check that is late itself counts nothing: no sign could have been given.
        """
        passed, self._looked = now - self._looked, now
        while _Pulse.results and _Pulse.results[0].is_ready():
            _Pulse.results.popleft()
            beat()
        if self._beats != _Pulse.beats:
            self._beats, self._silent, self._is_warned = _Pulse.beats, 0.0, False
        elif passed <= LATE * self._interval:
            self._silent += passed
        return self._silent

    def _watch(self) -> None:
        self._looked = time.monotonic()
        while not self._is_over.wait(self._interval):
            silent = self.silence(time.monotonic())
            if silent >= self._limit:
                self._give_up(silent)
                return
            if silent >= self._limit / 2 and not self._is_warned:
                self._is_warned = True
                sys.stderr.write(f"warning: {_sentence(silent)}; log.watchdog={self._limit:g}\n")

    def _give_up(self, silent: float) -> None:
        """Report where it hangs, and end the process even if reporting hangs as well."""
        stderr = sys.__stderr__ or sys.stderr
        faulthandler.dump_traceback_later(LAST_WORDS, exit=True, file=stderr)
        told = (
            f"error: {_sentence(silent)}; the run is ended (log.watchdog={self._limit:g} s); "
            f"the stacks of its threads are below and in {self._file}; the same command resumes "
            "from the last checkpoint\n"
        )
        try:
            _dump(told, stderr)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("w", encoding="utf-8") as file:
                _dump(told, file)
            sys.stdout.flush()
        finally:
            self._end(1)
            faulthandler.cancel_dump_traceback_later()


def _sentence(silent: float) -> str:
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=silent)
    return f"no sign of life for {silent:.0f} s, since {since:%F %H:%M:%S} UTC, {_Pulse.doing}"


def _dump(told: str, file: TextIO) -> None:
    file.write(told)
    file.flush()
    faulthandler.dump_traceback(file)
