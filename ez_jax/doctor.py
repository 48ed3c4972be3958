"""Is everything here as a run needs it? Versions, machine, and checks that say what to mend.

    python -m ez_jax.doctor
    python -m ez_jax.doctor env=my_package:MyEnv-v0     # is this game as a run needs it?

The last part flips every switch of the algorithm and looks whether exactly what should change
does (see `switches.py`).
"""

import functools
import sys
import textwrap
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ez_jax import health
from ez_jax.config import BadInput
from ez_jax.system import compilation, exits, machine
from ez_jax.terminal import arguments

if TYPE_CHECKING:
    from ez_jax.switches import Switch

OWN_KEYS = {"quick": False, "verbose": False}
GAME_KEYS = {"env": "", "preset": ""}
WIDTH, INDENT, CLAIM = 80, 8, 33  # columns: of a line, before a name, of a claim
STYLES = {"OK": "green", "NOTE": "yellow", "FAIL": "bold red"}


class Report:
    """What a person sees; plain lines where there is no terminal."""

    def __init__(self, *, verbose: bool):
        """`verbose` shows whole tracebacks."""
        self.checked, self.failed, self.noted = 0, 0, 0
        self._verbose = verbose
        self._console = Console(highlight=False)

    def section(self, title: str) -> None:
        """Begin a part."""
        self._line(Text(f"\n{title}", style="bold"))

    def rows(self, rows: Mapping[str, str]) -> None:
        """Names and what they are, in two columns."""
        width = max(map(len, rows))
        for name, value in rows.items():
            self._paragraph(f"  {name:{width}}  ", value)

    def columns(self, rows: Mapping[str, str], count: int = 2) -> None:
        """Short rows, several in a line, down one column and then the next."""
        cells = [f"{name:18}{value}" for name, value in rows.items()]
        height = -(-len(cells) // count)
        for i in range(height):
            self.say("  " + "".join(f"{cell:39}" for cell in cells[i::height]).rstrip())

    def say(self, line: str) -> None:
        """One line."""
        self._line(Text(line))

    def check(self, check: health.Check) -> bool:
        """Make a check and tell how it went; whether it succeeded."""
        began = time.perf_counter()
        try:
            with self._console.status(Text(f"{check.name} ...")):
                found = check.run()
        except Exception as error:  # noqa: BLE001 told with its text, and the exit code says so
            self._verdict("FAIL", check.name, check.claim, began)
            self._fault(error, check.mend(error))
            return False
        if isinstance(found, health.Note):
            self.noted += 1
            self._verdict("NOTE", check.name, found.remark, began)
            self._paragraph(" " * INDENT + "hint: ", found.hint, style="yellow")
        else:
            self._verdict("OK", check.name, found or check.claim, began)
        return True

    def conclude(self) -> int:
        """Tell how many checks failed; returns the exit code."""
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

    def _fault(self, error: Exception, mend: str) -> None:
        self._paragraph(" " * INDENT + "mend: ", mend, style="yellow")
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
        # soft_wrap: in a file a line stays a line, however long a path in it is.
        self._console.print(text, soft_wrap=True)


def switch_checks() -> Iterator[health.Check]:
    """One check for each row of the table of switches."""
    from ez_jax.switches import SWITCHES

    for switch in SWITCHES:
        yield health.Check(
            name=str(switch),
            claim=_claim(switch),
            run=functools.partial(_flip, switch),
            mend=lambda error: (
                "this is a fault of the code, not of the machine: see the row of this switch in "
                "ez_jax/switches.py, or report it"
            ),
        )


def _flip(switch: "Switch") -> None:
    from ez_jax.switches import flip

    result = flip(switch)
    if result.dead or result.leaks:
        dead, leaks = _names(sorted(result.dead)), _names(sorted(result.leaks))
        raise AssertionError(f"did not change: {dead}; changed though it should not: {leaks}")


def _claim(switch: "Switch") -> str:
    given = " ".join(f"{key}={value}" for key, value in switch.given)
    return _names(switch.changes) + (f"; with {given}" if given else "")


def _names(observables: Iterable[str]) -> str:
    """Observables by group: `search, targets: policy value`."""
    groups: dict[str, list[str]] = {}
    for name in observables:
        group, _, member = name.partition("/")
        groups.setdefault(group, []).append(member)
    shown = [f"{group}: {' '.join(members)}".rstrip(": ") for group, members in groups.items()]
    return ", ".join(shown) or "nothing"


def main() -> int:
    """Tell everything; the exit code says whether all checks succeeded."""
    words = [_as_key(word) for word in sys.argv[1:]]
    values, changes = arguments.read(words, OWN_KEYS | GAME_KEYS)
    report = Report(verbose=values["verbose"])
    if values["env"]:
        return _examine(report, values, changes)
    given = [key for key in GAME_KEYS if values[key]] + list(changes)
    if given:
        raise BadInput(f"{given[0]} belongs to a run; only {_own()} may be given without env=GAME")
    report.section("versions")
    report.columns({name: v or "not installed" for name, v in machine.versions().items()})
    report.section("machine")
    report.rows(machine.facts())
    report.section("checks")
    succeeded = [report.check(check) for check in health.CHECKS]
    if not values["quick"] and succeeded[0]:  # without a device there is nothing to flip
        report.section("switches, each flipped alone: only what is named may change, and it must")
        for check in switch_checks():
            report.check(check)
    return report.conclude()


def _examine(report: Report, values: Mapping[str, Any], changes: Mapping[str, Any]) -> int:
    """Check one game, and say what it would get; returns the exit code."""
    # Imported late: without them the machine can still be examined.
    from ez_jax.config import presets
    from ez_jax.examining.checks import Subject, stages

    compilation.configure_jax()
    config = presets.make_config(values["env"], values["preset"], changes=changes)
    subject = Subject(config, steps=200 if values["quick"] else 2_000)
    report.section(f"checks of {config.game}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of the checks tells them
        for checks in stages(subject):
            # Each part needs what the one before looked at.
            if not all([report.check(check) for check in checks]):
                return report.conclude()
    report.section("what it would get")
    report.rows(subject.would_get())
    return report.conclude()


def _own() -> str:
    return " and ".join(f"{key}=true" for key in OWN_KEYS)


def _as_key(word: str) -> str:
    """`--quick` means `quick=true`."""
    return f"{word[2:]}=true" if word[2:] in OWN_KEYS and word.startswith("--") else word


HELP = """usage: python -m ez_jax.doctor [quick=true] [verbose=true]
       python -m ez_jax.doctor env=GAME [preset=PRESET] [quick=true] [verbose=true] [KEY=VALUE ...]

Shows versions and machine, tries everything that a run relies on, and says what to mend.
With env=GAME it plays that game instead, any that ez_jax.train takes (Breakout,
my_package:MyEnv-v0), and says what has to be mended, and which settings the game would get.
  quick=true                   leave out the switches of the algorithm (half a minute), or play 200
                               random steps of the game instead of 2,000
  verbose=true                 whole tracebacks of what failed
  preset=small                 of the game; so is any key of a run, such as env.frame_stack=4
exit codes: 0 all checks succeeded, 1 something failed, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(HELP)
        sys.exit(exits.DONE)
    sys.exit(exits.guarded(main))
