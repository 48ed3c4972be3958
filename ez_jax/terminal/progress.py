"""All output of a run: the plan, what is being compiled, one live bar. Nothing else prints.

On a terminal the bar stays at the bottom, and everything else goes above it. Elsewhere (a file, a
pipe, a notebook) the same facts are plain lines, one per log interval, without control characters.
"""

import contextlib
import io
import math
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from ez_jax.storage.metrics import EVALUATION
from ez_jax.structs import Clocks

TOTAL, PART = "loss/total", "loss/"
WHY_NEGATIVE = (
    "the loss may be negative: its consistency term is minus a similarity (best: negative)"
)
WIDEST = 300  # characters of a table in a file
RATE_SECONDS = 20.0  # speeds are means over at least this long, and over the start before

WEEK, DAY, HOUR, MINUTE = 604_800.0, 86_400.0, 3_600.0, 60.0


class Progress:
    """Prints to the terminal, or to a log file in its place."""

    def __init__(self, *, live: bool = True, silent: bool = False, stream: TextIO | None = None):
        """`live=False` prints plain lines on a terminal, too; `stream` is stdout by default."""
        if stream is None and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # an unsupported character must not end a run
        self._console = Console(file=stream, highlight=False, quiet=silent)
        is_screen = self._console.is_terminal and not self._console.is_dumb_terminal
        self._is_live = live and is_screen and not self._console.is_jupyter
        self._bar: _Bar | None = None
        self._speed = _Speed()
        self._totals = (0, 0)  # agent steps, updates
        self._seen: dict[str, float] = {}
        self._was_negative = False  # the loss, which has then been explained

    def plan(
        self, rows: Mapping[str, str], warnings: Sequence[str] = (), width: int | None = None
    ) -> None:
        """Show what is about to run: a name and a sentence per row, then the warnings.

        `width` breaks the sentences of plain lines; without it each stays one line.
        """
        names = max(map(len, rows), default=0)
        if self._is_live:
            table = Table.grid(padding=(0, 2))
            for name, value in rows.items():
                table.add_row(Text(name, style="bold"), Text(value))
            self._console.print(table)
        else:
            for name, value in rows.items():
                lines = textwrap.wrap(value, width, break_on_hyphens=False) if width else [value]
                self.say(f"\n{'':{names}}  ".join([f"{name:{names}}  {lines[0]}", *lines[1:]]))
        for warning in warnings:
            self.warn(warning)

    def say(self, sentence: str) -> None:
        """One line."""
        self._line(Text(sentence))

    def warn(self, sentence: str) -> None:
        """Print a warning of one line."""
        self._line(Text(f"warning: {sentence}", style="yellow"))

    def table(self, table: Table) -> None:
        """Print a table; in a file it is as wide as needed."""
        width = None if self._console.is_terminal else WIDEST
        self._console.print(table, width=width)
        self._console.file.flush()

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """Print that `what` is being compiled, and then how long it took."""
        began = time.perf_counter()
        if self._is_live and self._bar is None:
            with self._console.status(Text(f"compiling {what} ...")):
                yield
        else:
            self.say(f"compiling {what} ...")
            yield
        self.say(f"compiled {what} in {time.perf_counter() - began:.1f} s")

    @contextlib.contextmanager
    def running(self, name: str, total_agent_steps: int, total_updates: int) -> Iterator[None]:
        """Show the bar during a run; it counts agent steps and updates together."""
        self._totals = (total_agent_steps, total_updates)
        if not self._is_live:
            yield
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%{task.fields[left]}", markup=False),
        )
        with _Bar(*columns, console=self._console) as self._bar:
            total = total_agent_steps + total_updates
            self._bar.add_task(name, total=total, left="")
            try:
                yield
            finally:
                self._bar.refresh()
                self._bar = None

    def update(self, clocks: Clocks, metrics: Mapping[str, float] | None = None) -> None:
        """Advance the bar; show the `metrics` of a log interval if given."""
        self._speed.add(clocks)
        self._seen |= metrics or {}
        clock_facts, found = self._clock_facts(clocks), self._metric_facts()
        left = self._left(clocks)
        if self._bar is not None:
            done = clocks.agent_steps + clocks.updates
            self._bar.facts = "\n".join(", ".join(facts) for facts in (clock_facts, found) if facts)
            self._bar.update(self._bar.task_ids[0], completed=done, left=f", {left}")
        if metrics is None:
            return
        if self._bar is None:
            self.say(", ".join([clock_facts[0], *found, *clock_facts[1:], left]))
        if metrics.get(TOTAL, 0.0) < 0 and not self._was_negative:
            self._was_negative = True
            self.say(WHY_NEGATIVE)

    def evaluation(
        self,
        clocks: Clocks,
        metrics: Mapping[str, float],
        remark: str | None = None,
        unit: str = "episode",
    ) -> None:
        """Print the result of an evaluation; `remark` compares it with published scores."""
        self.update(clocks)
        told = f"evaluation at {clocks.agent_steps:,}: {score_text(metrics, unit)}"
        self.say(f"{told}; {remark}" if remark else told)

    def _clock_facts(self, clocks: Clocks) -> list[str]:
        steps_per_s, updates_per_s = self._speed.per_second()
        counts = zip((clocks.agent_steps, clocks.updates), self._totals, strict=True)
        steps, updates = (f"{done:,}/{total:,}" for done, total in counts)
        rates = f"{_rate(steps_per_s)} steps/s, {_rate(updates_per_s)} updates/s"
        return [f"{steps} steps, {updates} updates", rates]

    def _metric_facts(self) -> list[str]:
        seen, found = self._seen, []
        if "rollout/return" in seen:  # with exploration, unlike the return of an evaluation
            found = [f"training return {seen['rollout/return']:.4g}"]
        if TOTAL in seen:
            parts = {k.removeprefix(PART): v for k, v in seen.items() if k.startswith(PART)}
            total = parts.pop("total")
            told = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in parts.items())
            found.append(f"loss {total:.4g}" + (f" ({told})" if told and total < 0 else ""))
        return found

    def _left(self, clocks: Clocks) -> str:
        steps_per_s, updates_per_s = self._speed.per_second()
        steps = max(0, self._totals[0] - clocks.agent_steps)
        updates = max(0, self._totals[1] - clocks.updates)
        # Before the first update, the speed of acting alone would promise too much.
        if (steps and not steps_per_s) or (updates and not updates_per_s):
            return "? left"
        by_steps = steps / steps_per_s if steps else 0.0
        by_updates = updates / updates_per_s if updates else 0.0
        return f"{duration(max(by_steps, by_updates))} left"

    def _line(self, text: Text) -> None:
        # soft_wrap: a line of a log file stays one line.
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"


class _Bar(RichProgress):
    """The bar and the facts below it; each line fits 80 columns."""

    facts = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.facts, no_wrap=True, overflow="ellipsis")


def score_text(metrics: Mapping[str, float], unit: str = "episode") -> str:
    """Mean and standard error of an evaluation: `495.0 ± 3.1 (20 episodes, 20 distinct)`.

    Args:
        metrics: mean, standard deviation and number of episodes, by the names of `summary`.
        unit: what was counted.
    """
    mean, count = metrics[EVALUATION], round(metrics["eval/episodes"])
    distinct = ""
    if unit == "episode" and "eval/distinct" in metrics:
        distinct = f", {metrics['eval/distinct']:g} distinct"
    counted = f"({count} {unit}{'s' * (count != 1)}{distinct})"
    if count < 2:
        return f"{mean:,.1f} {counted}" if abs(mean) >= 10 else f"{mean:.3g} {counted}"
    # The deviation is that of the episodes themselves, divided by their number.
    return f"{with_error(mean, metrics['eval/return_std'] / math.sqrt(count - 1))} {counted}"


def with_error(mean: float, error: float) -> str:
    """A mean and its standard error, to the error's second digit: `495.0 ± 3.1`."""
    digits = min(4, max(0, 1 - math.floor(math.log10(error)))) if error > 0 else 1
    return f"{mean:,.{digits}f} ± {error:,.{digits}f}"


class _Speed:
    """Steps and updates per second over the last readings of the clocks."""

    def __init__(self) -> None:
        self._readings: list[Clocks] = []

    def add(self, clocks: Clocks) -> None:
        self._readings.append(clocks)
        while len(self._readings) > 2 and clocks.seconds - self._readings[1].seconds > RATE_SECONDS:
            self._readings.pop(0)

    def per_second(self) -> tuple[float, float]:
        first, last = self._readings[0], self._readings[-1]
        seconds = last.seconds - first.seconds
        if seconds <= 0:
            return 0.0, 0.0
        steps, updates = last.agent_steps - first.agent_steps, last.updates - first.updates
        return steps / seconds, updates / seconds


def duration(seconds: float) -> str:
    """A duration in words: `45 s`, `2 min 05 s`, `3 h 20 min`, `5 weeks`."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 2 * DAY:
        return f"{whole // 3600} h {whole // 60 % 60:02} min"
    if whole < 2 * WEEK:
        return f"{whole / DAY:.0f} days"
    return f"{whole / WEEK:.0f} weeks"
