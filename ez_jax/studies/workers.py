"""Workers of a study: each takes one run after another from the ledger until none is left.

Any number of workers share a ledger, each in its own process, on one machine or on several that see
the same files. `launch` starts workers with a Hydra launcher, for example as jobs of a cluster.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from omegaconf import DictConfig, OmegaConf

from ez_jax.config import errors
from ez_jax.storage import lock, shared_lock
from ez_jax.studies import run_process
from ez_jax.studies.ledger import (
    Attempt,
    Ledger,
    StudyRun,
    final_score,
    how_far,
    read_attempt,
    write_attempt,
)
from ez_jax.system import exits, signals
from ez_jax.system.signals import Interrupt
from ez_jax.terminal.launch import call_by_hydra
from ez_jax.terminal.progress import Progress, duration

LAST_LINES, LONGEST_TAIL = 20, 2**14  # of the output of a failed run: lines, bytes
WAIT, POLL = 2.0, 0.2  # seconds between checks of the ledger, and of a run
TELL = 30.0  # seconds between lines about the progress of a run


@dataclasses.dataclass(frozen=True)
class Orders:
    """How the workers of one invocation work."""

    invocation: str  # identifies them
    retries: int = 2  # how often a failed run is tried again
    fail_fast: bool = False  # stop all at the first failure
    command: Sequence[str] = (sys.executable, "-m", run_process.__name__)  # takes a run's file


class Worker:
    """Takes runs from a ledger and trains them one after another."""

    def __init__(self, ledger: Ledger, orders: Orders, progress: Progress):
        """Does not start yet."""
        self._ledger, self._orders, self._progress = ledger, orders, progress
        self._interrupt = Interrupt()
        self._stop_file = stop_file(ledger, orders)

    def work(self) -> bool:
        """Work until nothing is left to do; returns whether a signal ended it early."""
        told = False
        with self._interrupt:
            while not self._is_stopped():
                taken, busy = self._take_next()
                if taken is not None:
                    run, held = taken
                    with held:
                        self._attempt(run, held)
                elif busy:
                    if not told:
                        self._progress.say(f"the rest is run by other processes: waiting. {busy}")
                    told = True
                    time.sleep(WAIT)
                else:
                    break
                self._ledger.reload()
        return self._interrupt.requested

    def _is_stopped(self) -> bool:
        return self._interrupt.requested or self._stop_file.exists()

    def _take_next(self) -> tuple[tuple[StudyRun, lock.FileLock] | None, lock.Busy | None]:
        """A run to train, with its lock, or the holder of one that is still running."""
        others = None
        for run in self._ledger.runs():
            if not self._is_wanted(run):
                continue
            path = run.file("lock")
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                held = shared_lock.take(path)
            except lock.Busy as busy:
                others = busy
                continue
            if self._is_wanted(run):  # no other process has trained it in between
                return (run, held), others
            held.close()
        return None, others

    def _is_wanted(self, run: StudyRun) -> bool:
        failures = read_attempt(run).failures.get(self._orders.invocation, 0)
        return failures <= self._orders.retries and bool(self._ledger.missing(run))

    def _attempt(self, run: StudyRun, held: lock.FileLock) -> None:
        """Train a run in its own process and record how it ended."""
        chosen = run.configs(self._ledger.missing(run))
        run_process.Job(chosen, run.together).write(run.file("run.json"))
        before = read_attempt(run)
        write_attempt(run, dataclasses.replace(before, status="running"))
        self._progress.say(f"{run} ... {run.file('log')}")
        began = time.perf_counter()
        with run.file("log").open("ab") as log:
            code = self._execute(run, held, log)
        attempt = self._judge(run, code, before)
        write_attempt(run, attempt)
        self._tell(run, attempt, time.perf_counter() - began)
        if attempt.status == "failed" and self._orders.fail_fast:
            self._stop_file.touch()

    def _execute(self, run: StudyRun, held: lock.FileLock, log: BinaryIO) -> int:
        """The exit code of a run's process, which shares the lock."""
        file = held.descriptor()
        handed = [f"lock={file}", f"parent={os.getpid()}"]
        process = subprocess.Popen(
            [*self._orders.command, str(run.file("run.json")), *handed],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(file,),
        )
        asked, told = False, time.monotonic()
        try:
            while process.poll() is None:
                if time.monotonic() - told >= TELL:
                    self._progress.say(f"{run}: {how_far(run)}")
                    told = time.monotonic()
                if self._is_stopped() and not asked:
                    process.terminate()  # it saves
                    asked = True
                time.sleep(POLL)
        finally:  # a second ctrl-C
            process.kill()
            process.wait()
        return process.returncode

    def _judge(self, run: StudyRun, code: int, before: Attempt) -> Attempt:
        """The outcome of a run; its run folders decide whether it is done."""
        if not self._ledger.missing(run):
            return dataclasses.replace(before, status="done", reason="", output=())
        if self._is_stopped() and (code == exits.INTERRUPTED or code == -signal.SIGTERM):
            return dataclasses.replace(before, status="interrupted")
        ours = self._orders.invocation
        failures = before.failures.get(ours, 0) + 1
        if code == exits.BAD_INPUT:  # trying again would be refused again
            failures = self._orders.retries + 1
        output = _last_lines(run.file("log"))
        reason = f"{_how(code)}: {output[-1]}" if output else _how(code)
        return Attempt("failed", reason, output, {**before.failures, ours: failures})

    def _tell(self, run: StudyRun, attempt: Attempt, seconds: float) -> None:
        if attempt.status == "done":
            scores = ", ".join(f"{final_score(one):.5g}" for one in run.configs())
            self._progress.say(f"{run}: {scores} ({duration(seconds)})")
        elif attempt.status == "failed":
            self._progress.warn(f"{run} failed: {attempt.reason} ({run.file('log')})")
        else:
            self._progress.say(f"{run}: stopped; the same command resumes it")


def stop_file(ledger: Ledger, orders: Orders) -> Path:
    """The file that stops all workers of an invocation, on any machine."""
    return ledger.folder / f"stop-{orders.invocation}"


def _how(code: int) -> str:
    """An exit code in words."""
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, probably out of memory"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code == exits.INTERRUPTED:
        return "stopped from outside"
    return f"exit code {code}" if code else "it ended without being complete"


def _last_lines(log: Path) -> list[str]:
    """The last lines of a run's output."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LONGEST_TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return [errors.one_line(line) for line in lines if line.strip()][-LAST_LINES:]


def launch(ledger: Ledger, orders: Orders, count: int, words: Sequence[str]) -> bool:
    """Start `count` workers with a Hydra launcher and wait; returns whether a signal came.

    `words` are for Hydra, such as `hydra/launcher=joblib`.

    Raises:
      BadInput: Hydra refuses the words.
    """
    values = {
        "worker": 0,
        "parent": os.getpid(),
        "ledger": str(ledger.folder),
        "orders": {**dataclasses.asdict(orders), "command": list(orders.command)},
    }
    words = ["-m", f"worker={','.join(map(str, range(count)))}", *words]
    with Interrupt(stop_file(ledger, orders).touch) as stop:
        call_by_hydra(work_where_launched, values, words, ledger.folder / "workers")
    return stop.requested


def work_where_launched(node: DictConfig) -> None:
    """A worker in a process that a launcher started."""
    values: Any = OmegaConf.to_container(node)
    if os.getppid() == values["parent"]:  # on this machine: no one else would end it
        signals.end_with(values["parent"])
    ledger = Ledger.open(Path(values["ledger"]))
    Worker(ledger, Orders(**values["orders"]), Progress(live=False)).work()
