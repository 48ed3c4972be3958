"""A sweep: its runs are made here one after another, or where a launcher of Hydra starts them.

What a run comes to is noted in the folder of the sweep, which all machines have to see, and there
lies the file that stops them all. Launchers themselves know only results and exceptions, lose what
was printed elsewhere, and leave processes of other sessions alone when ctrl-C is pressed here.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ez_jax.storage import safe_files
from ez_jax.system import signals

STOP = "stop"
POLL = 0.5  # seconds between two looks for the file that stops all runs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    number: int  # from 1, as it is told
    code: int  # exit code
    reason: str  # a line
    words: str  # what sets it apart on the command line


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The folder of a sweep as every process of it sees it; handed to them by the launcher."""

    folder: Path
    parent: int = dataclasses.field(default_factory=os.getpid)  # the process of the command

    @classmethod
    def begin(cls, folder: str | Path = "") -> "Sweep":
        """A new one, in a folder of its own."""
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}"
        return cls(Path(folder or Path("runs/sweeps") / name).absolute())

    def stop(self) -> None:
        """End all runs: those at work save, the others do not begin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / STOP).touch()

    def is_stopped(self) -> bool:
        """Whether a signal has reached the command or a run."""
        return (self.folder / STOP).exists()

    def note(self, outcome: Outcome) -> None:
        """Keep what became of a run."""
        there = self.folder / "cells" / f"{outcome.number}.json"
        there.parent.mkdir(parents=True, exist_ok=True)
        safe_files.write_whole(there, json.dumps(dataclasses.asdict(outcome)) + "\n")

    def failures(self) -> list[Outcome]:
        """The runs that did not end well, in order."""
        found = [Outcome(**safe_files.read_json(path)) for path in self.folder.glob("cells/*.json")]
        return sorted((each for each in found if each.code), key=lambda each: each.number)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While a run is made: a signal, or the file, asks it to end."""
        if os.getppid() == self.parent:
            signals.end_with(self.parent)
        before = [signal.signal(signal.SIGTERM, _raise), signal.signal(signal.SIGINT, _raise)]
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            signal.signal(signal.SIGTERM, before[0])
            # A worker that has nothing to do must survive ctrl-C: joblib would kill the others.
            is_here = os.getpid() == self.parent
            signal.signal(signal.SIGINT, before[1] if is_here else signal.SIG_IGN)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(POLL):
            if self.is_stopped():
                os.kill(os.getpid(), signal.SIGTERM)
                return


def tell(failures: list[Outcome]) -> None:
    """Say on stderr which runs did not end well, wherever they were made."""
    for each in failures:
        reason = f": {each.reason}" if each.reason else ""
        which = f"run {each.number} ({each.words})" if each.words else f"run {each.number}"
        sys.stderr.write(f"sweep, {which}: exit code {each.code}{reason}\n")


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
