"""A sweep: its runs are made here one after another, or wherever a Hydra launcher starts them.

The outcome of a run is recorded in the folder of the sweep, which all machines have to see; a file
there stops them all. This is needed because launchers only know results and exceptions, lose
output of other processes, and do not pass ctrl-C on to processes of other sessions.
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
POLL = 0.5  # seconds between checks for the file that stops all runs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one run."""

    number: int  # from 1
    code: int  # exit code
    reason: str  # a line
    words: str  # its settings in the sweep, as on the command line


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The folder of a sweep; the launcher passes it to every process."""

    folder: Path
    parent: int = dataclasses.field(default_factory=os.getpid)  # the process of the command

    @classmethod
    def begin(cls, folder: str | Path = "") -> "Sweep":
        """Create a sweep in a new folder."""
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}"
        return cls(Path(folder or Path("runs/sweeps") / name).absolute())

    def stop(self) -> None:
        """End all runs: running ones save, the others do not start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / STOP).touch()

    def is_stopped(self) -> bool:
        """Whether a signal has reached the command or a run."""
        return (self.folder / STOP).exists()

    def note(self, outcome: Outcome) -> None:
        """Record the outcome of a run."""
        there = self.folder / "cells" / f"{outcome.number}.json"
        there.parent.mkdir(parents=True, exist_ok=True)
        safe_files.write_whole(there, json.dumps(dataclasses.asdict(outcome)) + "\n")

    def failures(self) -> list[Outcome]:
        """The runs that failed, in order."""
        found = [Outcome(**safe_files.read_json(path)) for path in self.folder.glob("cells/*.json")]
        return sorted((each for each in found if each.code), key=lambda each: each.number)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """During a run, let a signal or the file ask it to end."""
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
            # An idle worker has to survive ctrl-C, because joblib would kill the others.
            is_here = os.getpid() == self.parent
            signal.signal(signal.SIGINT, before[1] if is_here else signal.SIG_IGN)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(POLL):
            if self.is_stopped():
                os.kill(os.getpid(), signal.SIGTERM)
                return


def tell(failures: list[Outcome]) -> None:
    """Print to stderr which runs failed, wherever they ran."""
    for each in failures:
        reason = f": {each.reason}" if each.reason else ""
        which = f"run {each.number} ({each.words})" if each.words else f"run {each.number}"
        sys.stderr.write(f"sweep, {which}: exit code {each.code}{reason}\n")


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
