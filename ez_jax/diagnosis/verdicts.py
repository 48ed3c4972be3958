"""Prints the results of checks as they come: the check, its verdict, and the fix."""

import textwrap
import time
import traceback
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from ez_jax.diagnosis import machine_checks
from ez_jax.system import exits

WIDTH, INDENT, CLAIM = 80, 8, 33  # columns: of a line, before a name, of a claim
STYLES = {"OK": "green", "NOTE": "yellow", "FAIL": "bold red"}


class Verdicts:
    """The output of checks; plain lines if there is no terminal."""

    def __init__(self, *, verbose: bool):
        """`verbose` shows full tracebacks."""
        self.checked, self.failed, self.noted = 0, 0, 0
        self._verbose = verbose
        self._console = Console(highlight=False)

    def section(self, title: str) -> None:
        """Start a section."""
        self._line(Text(f"\n{title}", style="bold"))

    def rows(self, rows: Mapping[str, str]) -> None:
        """Print names and values in two columns."""
        width = max(map(len, rows))
        for name, value in rows.items():
            self._paragraph(f"  {name:{width}}  ", value)

    def columns(self, rows: Mapping[str, str], count: int = 2) -> None:
        """Print short rows in columns, from top to bottom."""
        cells = [f"{name:18}{value}" for name, value in rows.items()]
        height = -(-len(cells) // count)
        for i in range(height):
            self.say("  " + "".join(f"{cell:39}" for cell in cells[i::height]).rstrip())

    def say(self, line: str) -> None:
        """One line."""
        self._line(Text(line))

    def check(self, check: machine_checks.Check) -> bool:
        """Run a check and print its verdict; returns whether it succeeded."""
        began = time.perf_counter()
        try:
            with self._console.status(Text(f"{check.name} ...")):
                found = check.run()
        except Exception as error:  # noqa: BLE001 reported with its text, and in the exit code
            self._verdict("FAIL", check.name, check.claim, began)
            self._fault(error, check.fix(error))
            return False
        if isinstance(found, machine_checks.Note):
            self.noted += 1
            self._verdict("NOTE", check.name, found.remark, began)
            self._paragraph(" " * INDENT + "hint: ", found.hint, style="yellow")
        else:
            self._verdict("OK", check.name, found or check.claim, began)
        return True

    def conclude(self) -> int:
        """Print how many checks failed; returns the exit code."""
        if self.failed:
            self.say(f"\n{self.failed} of {self.checked} checks failed")
            return exits.FAILED
        noted = f", {self.noted} with a hint" if self.noted else ""
        self.say(f"\nall {self.checked} checks succeeded{noted}")
        return exits.DONE

    def _verdict(self, verdict: str, name: str, claim: str, began: float) -> None:
        self.checked += 1
        self.failed += verdict == "FAIL"
        seconds = f"{time.perf_counter() - began:.1f} s"
        first, *rest = textwrap.wrap(claim, CLAIM, break_on_hyphens=False)
        self._line(
            Text(f"  {verdict:{INDENT - 2}}", style=STYLES[verdict]).append(
                f"{name:{WIDTH - INDENT - CLAIM - 8}}{first:{CLAIM}}{seconds:>8}", style="default"
            )
        )
        for part in rest:
            self.say(" " * (WIDTH - CLAIM - 8) + part)

    def _fault(self, error: Exception, fix: str) -> None:
        self._paragraph(" " * INDENT + "fix: ", fix, style="yellow")
        told = f"{type(error).__name__}: {error}"
        if self._verbose or not str(error):
            told = "".join(traceback.format_exception(error))
        for line in told.rstrip().splitlines():
            self.say(" " * INDENT + line)

    def _paragraph(self, begin: str, text: str, style: str = "") -> None:
        lines = textwrap.wrap(
            text,
            WIDTH,
            initial_indent=begin,
            subsequent_indent=" " * len(begin),
            break_long_words=False,
            break_on_hyphens=False,
        )
        self._line(Text("\n".join(lines), style=style))

    def _line(self, text: Text) -> None:
        # soft_wrap: in a file a line stays one line, however long a path in it is.
        self._console.print(text, soft_wrap=True)
