"""Tables of a report: rows for the page, CSV files with all digits, and LaTeX (booktabs)."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ez_jax.config import errors
from ez_jax.reports.aggregates import IMPROVES, MEASURES
from ez_jax.reports.arms import Panel, value_text
from ez_jax.reports.effects import AREA, FINAL, bracket, number
from ez_jax.reports.estimates import Estimate
from ez_jax.reports.results import Results


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text."""

    name: str  # a word
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(results: Results) -> tuple[Table, ...]:
    """The tables of the page and of a paper: scores, aggregates, effects, references."""
    found = [_scores(results), _aggregates(results), _effects(results), _simulations(results)]
    found += [_evaluated(results), _references(results)]
    return tuple(table for table in found if table.rows)


def _scores(results: Results) -> Table:
    by_arm: dict[tuple[Panel, str], dict[str, Estimate]] = {}
    for row in results.rows:
        by_arm.setdefault((row.panel, row.arm), {})[row.measure] = row.estimate
    rows = tuple(
        (panel.title, arm, *(_cell(found.get(name)) for name in (FINAL, AREA)), _seeds(found))
        for (panel, arm), found in by_arm.items()
    )
    caption = "Mean over seeds with 95 % intervals"
    return Table("scores", caption, ("game", "arm", FINAL, AREA, "seeds"), rows)


def _aggregates(results: Results) -> Table:
    head = ("arm", "games", "seeds", *MEASURES, IMPROVES)
    rows = tuple(
        (
            row.title,
            str(len(row.games)),
            str(row.seeds),
            *(_cell(row.measures.get(name)) for name in head[3:]),
        )
        for row in results.aggregates.rows
    )
    return Table("aggregates", "Normalised scores over games and seeds", head, rows)


def _effects(results: Results) -> Table:
    rows = tuple(
        (e.game, e.measure, e.switch, e.change, _cell(e.estimate), e.seeds, e.verdict)
        for e in results.effects
    )
    head = ("game", "measure", "switch", "change", "effect", "seeds", "verdict")
    caption = "Effects relative to the baseline; for pairs, the interaction"
    return Table("effects", caption, head, rows)


def _simulations(results: Results) -> Table:
    rows = tuple(
        (line.game, line.arm, line.how, str(count), _cell(estimate), str(min(estimate.seeds)))
        for line in results.lines
        for count, estimate in zip(line.counts, line.scores, strict=True)
    )
    head = ("game", "arm", "how", "simulations", "score", "seeds")
    return Table("simulations", "Score by number of simulations", head, rows)


def _evaluated(results: Results) -> Table:
    """Evaluations after training, of `ez_jax.evaluate`."""
    rows = []
    for panel in results.panels:
        for arm in panel.arms:
            for run in arm.all_runs:
                for name, content in run.evaluated:
                    played = content.get("protocol")
                    played = played if isinstance(played, dict) else {}
                    cells = (
                        content.get("time", name),
                        content.get("agent_steps"),
                        content.get("episodes"),
                        played.get("num_simulations"),
                        content.get("mean"),
                    )
                    seed = str(run.config.seed)
                    rows.append((panel.title, arm.name, seed, *map(value_text, cells)))
    head = ("game", "arm", "seed", "time", "weights of agent steps", "episodes", "simulations")
    return Table("evaluations", "Evaluations after training", (*head, "mean return"), tuple(rows))


def _references(results: Results) -> Table:
    rows = []
    for panel, (scores, curves) in results.published.items():
        for score in scores:
            steps = "" if score.agent_steps is None else f"{score.agent_steps:,}"
            shown = _cell(Estimate(score.score, score.low, score.high, ()))
            rows.append((panel.game, score.method, steps, shown, score.protocol, score.source))
        told = {score.method for score in scores}
        for curve in (curve for curve in curves if curve.method not in told):
            shown = number(curve.scores[-1])
            steps = f"{curve.agent_steps[-1]:,}"
            rows.append((panel.game, curve.method, steps, shown, curve.protocol, curve.source))
    head = ("game", "method", "agent steps", "score", "protocol", "source")
    caption = "References, each under its own protocol"
    return Table("references", caption, head, tuple(dict.fromkeys(rows)))


def settings_table(panel: Panel) -> Table:
    """The settings that differ between the arms of a game."""
    rows = tuple(
        (
            arm.name,
            *(value_text(arm.values[key]) for key in panel.keys),
            ", ".join(map(str, arm.seeds)) or "none",
        )
        for arm in panel.arms
    )
    return Table("settings", panel.title, ("arm", *panel.keys, "seeds"), rows)


def common_settings(panel: Panel) -> dict[str, str]:
    """The settings that all arms of a game share, by dotted key."""
    settings = panel.all_runs[0].settings
    return {key: value_text(value) for key, value in settings.items() if key not in panel.keys}


def csv_files(results: Results) -> dict[str, str]:
    """The content of every CSV file, by name."""
    return {
        "scores.csv": _csv(_run_rows(results)),
        "curves.csv": _csv(_curve_rows(results)),
        "arms.csv": _csv(_arm_rows(results)),
        "effects.csv": _csv(_effect_rows(results)),
    }


def _run_rows(results: Results) -> Iterable[dict[str, Any]]:
    for panel in results.panels:
        for arm in panel.arms:
            areas = dict(zip(arm.runs, results.scores[panel, AREA].get(arm.name, ()), strict=False))
            for run in arm.all_runs:
                yield {
                    "game": panel.game,
                    "protocol_label": panel.label,
                    "arm": arm.name,
                    "seed": run.config.seed,
                    "final_score": run.final,
                    "area_under_curve": areas.get(run),
                    "counts": run in arm.runs,
                    "finished": run.is_finished,
                    **{
                        clock: getattr(run.evaluations, clock)[-1] if len(run.evaluations) else 0
                        for clock in ("agent_steps", "updates", "seconds")
                    },
                    "folder": run.folder,
                    **run.provenance,
                    **{f"protocol.{key}": value for key, value in run.protocol.items()},
                }


def _curve_rows(results: Results) -> Iterable[dict[str, Any]]:
    for panel, curves in results.curves.items():
        for curve in curves:
            for t, steps in enumerate(curve.agent_steps):
                bounds = {
                    "mean": curve.mean_bounds,
                    "median": curve.median_bounds,
                    "iqm": curve.iqm_bounds,
                }
                yield {
                    "game": panel.title,
                    "arm": curve.arm.name,
                    "agent_steps": steps,
                    "updates": curve.updates[t],
                    "seconds": curve.seconds[t],
                    "seeds": len(curve.arm.runs),
                    "mean": curve.mean[t],
                    "median": curve.median[t],
                    "iqm": curve.iqm[t],
                    **{
                        f"{name}_{end}": None if found is None else found[i, t]
                        for name, found in bounds.items()
                        for i, end in enumerate(("low", "high"))
                    },
                }


def _arm_rows(results: Results) -> Iterable[dict[str, Any]]:
    for row in results.rows:
        yield {"game": row.panel.title, "arm": row.arm, "measure": row.measure} | _ends(
            row.estimate
        )
    for both in results.aggregates.rows:
        game = f"all games ({both.label})" if both.label else "all games"
        for name, estimate in both.measures.items():
            yield {"game": game, "arm": both.arm, "measure": f"normalised {name}"} | _ends(estimate)


def _effect_rows(results: Results) -> Iterable[dict[str, Any]]:
    for effect in results.effects:
        yield {
            **_fields(effect, "game", "measure", "switch", "change"),
            "kind": "interaction" if effect.is_interaction else "main effect",
            **_ends(effect.estimate),
            **_fields(effect, "pairs", "verdict", "sentence"),
        }


def _ends(estimate: Estimate) -> dict[str, Any]:
    return _fields(estimate, "value", "low", "high") | {"least_seeds": min(estimate.seeds)}


def _fields(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    # Of objects, so that integers stay integers if some are missing.
    frame = pd.DataFrame(list(rows), dtype=object).map(_csv_cell)
    return frame.to_csv(index=False, lineterminator="\n")


def _csv_cell(value: Any) -> Any:
    """Text that a spreadsheet does not interpret as a formula."""
    if isinstance(value, bool) or not isinstance(value, str | list | dict):
        return value
    text = errors.one_line(value)
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def latex(results: Results) -> str:
    """All tables for a paper that uses booktabs."""
    head = "% \\usepackage{booktabs}; made by python -m ez_jax.report\n"
    return head + "\n".join(_latex(table) for table in tables(results))


def _latex(table: Table) -> str:
    line = lambda cells: " & ".join(map(escape_latex, cells)) + r" \\"  # noqa: E731
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}.}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.head)}}}",
            r"\toprule",
            line(table.head),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{MINUS SIGN}": "$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Escape text for LaTeX."""
    # Before a row's first cell, a bracket would be an argument of the line before.
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"^\[", "{[}", escaped)


def _cell(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{number(estimate.value)}{bracket(estimate)}"


def _seeds(found: dict[str, Estimate]) -> str:
    return str(min(min(estimate.seeds) for estimate in found.values()))
