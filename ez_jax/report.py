"""Figures, tables and a page from run folders.

    python -m ez_jax.report runs/CartPole out=report

`reports` measures and draws; this is the command.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ez_jax import terminal
from ez_jax.config import BadInput, errors, paths
from ez_jax.system import exits
from ez_jax.terminal import arguments

OWN_KEYS = {"out": "report", "final": "training", "last": 1, "partial": False, "mix": False}
FINALS = ("training", "scores")
_LONGEST_NAME = 80


def main(words: Sequence[str]) -> int:
    """Read the run folders, measure, write everything and print the summary."""
    folders, others = arguments.folders(words, OWN_KEYS)
    values, changes = arguments.read(others, OWN_KEYS)
    _check(folders, values, changes)
    # Imported late: they load JAX and pandas, and refusals should be quick.
    from ez_jax.reports import arms, collect, figures, page, tables
    from ez_jax.reports.results import measure_all
    from ez_jax.storage import run_folder

    runs = [
        collect.read_run(folder, last=values["last"], final=values["final"])
        for folder in collect.find_runs(folders)
    ]
    panels = arms.group(runs, mix=values["mix"], partial=values["partial"])
    out = paths.expanded(values["out"])
    run_folder.make_run_dir(out, key="out")
    results = measure_all(runs, panels, _final_means(values))
    names = file_names([panel.title for panel in panels])
    drawn = figures.draw_all(results, dict(zip(panels, names, strict=True)), out)
    command = shlex.join(["python", "-m", "ez_jax.report", *words])
    texts = {
        **tables.csv_files(results),
        "tables.tex": tables.latex(results),
        "index.html": page.render(results, drawn, command),
    }
    for name, text in texts.items():
        # Paths may contain bytes that are not UTF-8.
        (out / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    _tell(page.summary(results))
    _tell(f"warning: {sentence}" for sentence in results.warnings)
    _tell([f"wrote {out / 'index.html'}"])
    return exits.DONE


def _check(folders: Sequence[str], values: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    if not folders:
        raise BadInput("which runs? name the folders that contain them, such as runs/CartPole")
    for key in changes:
        raise BadInput(f"{key} belongs to the training run; a report has {', '.join(OWN_KEYS)}")
    if values["final"] not in FINALS:
        raise BadInput(f"final is '{values['final']}': choose {' or '.join(FINALS)}")
    if values["last"] < 1:
        raise BadInput(f"last is {values['last']}: a score needs at least one evaluation")


def _final_means(values: Mapping[str, Any]) -> str:
    if values["final"] == "scores":
        return (
            "The final score of a run is the mean return of its newest evaluation by "
            "ez_jax.evaluate, or else of the last evaluation in training (scores.json)."
        )
    last = values["last"]
    which = "last evaluation" if last == 1 else f"last {last} evaluations"
    return f"The final score of a run is the mean return of the {which} in training."


def file_names(titles: Sequence[str]) -> list[str]:
    """One file name per title: `curves_Breakout`; equal ones get a number."""
    names: dict[str, str] = {}  # by lower case, because some file systems ignore case
    for title in titles:
        name = f"curves_{re.sub(r'[^A-Za-z0-9_+-]+', '_', title)}"[:_LONGEST_NAME].rstrip("_")
        numbered = (name, *(f"{name}-{i}" for i in range(2, len(titles) + 1)))
        free = next(one for one in numbered if one.lower() not in names)
        names[free.lower()] = free
    return list(names.values())


def _tell(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        sys.stdout.write(f"{errors.one_line(sentence)}\n")


HELP = """usage: python -m ez_jax.report DIR... [KEY=VALUE ...]

Finds all runs below the folders, groups them by game and by the settings in which they differ, and
writes learning curves, aggregates, the effect of every switch and one page, index.html.
  out=report           folder to write to
  last=1               the final score is the mean of this many evaluations at the end of a run
  final=training       or scores: take the newest evaluation by ez_jax.evaluate, else scores.json
  partial=true         include unfinished runs as far as they are
  mix=true             show results of different protocols side by side instead of refusing them
exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    terminal.start(main, HELP)
