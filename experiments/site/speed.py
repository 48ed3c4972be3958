"""Speed on a CPU at two commits, from the rows of `python -m experiments.bench.commits`."""

import json

from experiments.site.status import RESULTS, table


def before_and_after() -> str:
    """Processor time of the programs of some runs, and its ratio."""
    lines = (RESULTS / "bench" / "commits.jsonl").read_text(encoding="utf-8").splitlines()
    return table(
        ["settings", "program", "before, ms", "after, ms", "after / before", "quartiles", "pairs"],
        [
            [
                *(f"`{row['settings']}`", row["case"]),
                *(_milliseconds(row[name]) for name in ("before_ms", "after_ms")),
                *(f"{row['ratio']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"),
                row["pairs"],
            ]
            for row in map(json.loads, lines)
        ],
    )


def _milliseconds(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"
