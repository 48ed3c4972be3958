"""Tables of a study: progress and scores of its arms."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from ez_jax.storage import shared_lock
from ez_jax.studies.ledger import Ledger, final_score, read_attempt, seconds_spent
from ez_jax.terminal.progress import duration

STATUSES = ("done", "running", "failed", "waiting")


@dataclasses.dataclass
class ArmStatus:
    """One arm of one game."""

    game: str
    arm: str
    against: str
    seeds: Counter[str] = dataclasses.field(default_factory=Counter)  # by status
    scores: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # elapsed time: seeds in one program share it
    failures: list[str] = dataclasses.field(default_factory=list)  # a sentence per failed run

    @property
    def mean(self) -> float | None:
        """Mean of the final scores so far."""
        return statistics.fmean(self.scores) if self.scores else None


def arm_statuses(ledger: Ledger) -> list[ArmStatus]:
    """All arms of all games, in the order of the study."""
    found = {
        (game, arm.name): ArmStatus(game, arm.name, arm.against)
        for game, compared in ledger.study.comparisons.items()
        for arm in compared.arms
    }
    for run in ledger.runs():
        row = found[run.config.game, run.config.name]
        missing = ledger.missing(run)
        spent = [seconds_spent(chosen) for chosen in run.configs()]
        row.seconds += max(spent) if run.together else sum(spent)
        for chosen in run.configs():
            score = None if chosen.seed in missing else final_score(chosen)
            row.scores += [] if score is None else [score]
        row.seeds["done"] += len(run.seeds) - len(missing)
        if missing:
            attempt = read_attempt(run)
            status = "failed" if attempt.status == "failed" else "waiting"
            if shared_lock.is_taken(run.file("lock")):
                status = "running"
            row.seeds[status] += len(missing)
            if status == "failed":
                row.failures.append(f"{run}: {attempt.reason} ({run.file('log')})")
    return list(found.values())


def status_table(rows: Sequence[ArmStatus]) -> Table:
    """The progress of each arm."""

    def texts(row: ArmStatus) -> list[str]:
        counts = [str(row.seeds[status] or "") for status in STATUSES]
        mean = "" if row.mean is None else f"{row.mean:.5g}"
        return [*counts, mean, duration(row.seconds) if row.seconds else ""]

    return _table([*STATUSES, "mean score", "time"], rows, texts)


def score_table(rows: Sequence[ArmStatus]) -> Table:
    """The score of each arm, and the difference from the arm it is compared with."""
    means = {(row.game, row.arm): row.mean for row in rows}

    def texts(row: ArmStatus) -> list[str]:
        time = duration(row.seconds) if row.seconds else ""
        if row.mean is None:
            return ["0", "", "", "", time]
        spread = f"{statistics.stdev(row.scores):.4g}" if len(row.scores) > 1 else ""
        other = means[row.game, row.against]
        difference = "" if other is None else f"{row.mean - other:+.4g}"
        if row.against == row.arm:
            difference = ""
        return [str(len(row.scores)), f"{row.mean:.5g}", spread, difference, time]

    compared = sorted({row.against for row in rows}, key=[row.arm for row in rows].index)
    against = compared[0] if len(compared) == 1 else "its baseline"
    return _table(["seeds", "mean score", "std", f"against {against}", "time"], rows, texts)


def _table(
    titles: Sequence[str], rows: Sequence[ArmStatus], texts: Callable[[ArmStatus], list[str]]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Names are never cut: in a narrow terminal the numbers wrap first.
    for title, names in (("game", [row.game for row in rows]), ("arm", [row.arm for row in rows])):
        longest = max(map(len, [title, *names]))
        table.add_column(title, no_wrap=True, min_width=longest)
    for title in titles:
        table.add_column(title, justify="right")
    previous = ""
    for row in rows:
        game = "" if row.game == previous else row.game
        previous = row.game
        table.add_row(*(Text(text) for text in (game, row.arm, *texts(row))))
    return table
