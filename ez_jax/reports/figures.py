"""Figures of a report as SVG and PNG; the same runs give the same bytes.

Matplotlib is imported late. Text from run folders is never interpreted as mathematics. Everything
except curves and bars is drawn in INK, which the page replaces by its text colour.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ez_jax.reports import words
from ez_jax.reports.aggregates import IMPROVES, MEASURES, Aggregate
from ez_jax.reports.arms import Panel
from ez_jax.reports.curves import ArmCurve
from ez_jax.reports.drawing import (
    COLOURS,
    INK,
    PUBLISHED_COLOUR,
    RC,
    Styles,
    arm_styles,
    grid,
    label_right,
    whisker,
    wrapped,
)
from ez_jax.reports.effects import FINAL, Effect, number
from ez_jax.reports.estimates import Estimate, count_text
from ez_jax.reports.results import Results
from ez_jax.reports.simulations import TRAINED, Line

TOGETHER = 5  # largest number of arms in one pair of axes
OVER_GAMES = "over games"


def draw_all(results: Results, names: dict[Panel, str], out: Path) -> dict[str, str]:
    """Write every figure that has data; returns the SVG by file name."""
    import matplotlib as mpl

    styles = arm_styles(results.panels)
    jobs: dict[str, Callable[[], Any]] = {
        names[panel]: functools.partial(_draw_curves, results, panel, styles)
        for panel in results.panels
        if results.curves[panel]
    }
    if results.aggregates.rows:
        jobs["aggregates"] = lambda: _draw_aggregates(results.aggregates.rows, styles)
    if any(effect.measure == FINAL for effect in results.effects):
        jobs["effects"] = lambda: _draw_effects(results)
    if results.lines:
        jobs["simulations"] = lambda: _draw_simulations(results.lines, styles)
    written = {}
    mpl.use("Agg")
    with mpl.rc_context(RC):
        for name, job in jobs.items():
            figure = job()
            figure.savefig(out / f"{name}.png", dpi=200, facecolor="white")
            figure.savefig(out / f"{name}.svg", metadata={"Date": None}, facecolor="none")
            mpl.pyplot.close(figure)
            written[name] = (out / f"{name}.svg").read_text(encoding="utf-8")
    return written


def _draw_curves(results: Results, panel: Panel, styles: Styles) -> Any:
    """All arms in one pair of axes, or, if there are many, each with the baseline."""
    curves = results.curves[panel]
    others = [curve for curve in curves if curve.arm is not panel.baseline]
    base = [curve for curve in curves if curve.arm is panel.baseline]
    is_one = len(curves) <= TOGETHER
    groups = [[*base, *others]] if is_one else [[*base, one] for one in others]
    columns, height = (1, 4.0) if is_one else (2, 2.4)
    figure, axes = grid(len(groups), columns, height, share=True)
    for i, (group, ax) in enumerate(zip(groups, axes, strict=True)):
        _draw_published(results, panel, ax, group)
        for curve in group:
            _draw_arm(ax, curve, styles, in_legend=is_one or curve in base)
        if is_one:  # otherwise there is no room; the table has them
            _draw_published_scores(results, panel, ax)
        if not is_one:
            ax.set_title(wrapped(_with_seeds(group[-1]), 44), fontsize=9, loc="left")
        ax.tick_params(labelbottom=True)  # also above the place of the legend
        ax.locator_params(axis="x", nbins=4)
        if i >= len(groups) - columns:
            ax.set_xlabel("agent steps")
        if i % columns == 0:
            ax.set_ylabel("evaluation return")
        ax.xaxis.set_major_formatter("{x:,.0f}")
    title = wrapped(f"{panel.title}, {count_text({len(curve.arm.runs) for curve in curves})}", 70)
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    drawn, size = _what_is_drawn(curves), {"title_fontsize": 7.5}
    if len(axes) % columns:  # a place is left over
        left_over, drawn = figure.axes[len(axes)], drawn.replace("; ", "\n")
        left_over.legend(*_legend(axes), loc="center", title=drawn, **size)
    else:
        figure.legend(*_legend(axes), loc="outside lower center", ncols=2, title=drawn, **size)
    return figure


def _legend(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return list(found.values()), list(found)


def _draw_arm(ax: Any, curve: ArmCurve, styles: Styles, *, in_legend: bool) -> None:
    """The mean with its interval; with too few seeds, every seed as a thin line."""
    (colour, marker), steps = styles[curve.arm.name], curve.agent_steps
    ax.plot(
        *(steps, curve.mean),
        color=colour,
        marker=marker if len(steps) <= 20 else None,
        markersize=3.5,
        linewidth=1.6,
        label=wrapped(_with_seeds(curve), 52) if in_legend else None,
    )
    if curve.mean_bounds is None:
        ax.plot(steps, curve.returns.T, color=colour, linewidth=0.6, alpha=0.5)
    else:
        ax.fill_between(steps, *curve.mean_bounds, color=colour, alpha=0.16, linewidth=0)


def _draw_published(results: Results, panel: Panel, ax: Any, curves: Sequence[ArmCurve]) -> None:
    """Published curves as dashed lines, with their bands."""
    _, known = results.published[panel]
    end = max((int(curve.agent_steps[-1]) for curve in curves), default=0)
    patterns = itertools.cycle(["--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3))])
    for curve in known:
        (line,) = ax.plot(
            *(curve.agent_steps, curve.scores),
            color=PUBLISHED_COLOUR,
            linestyle=next(patterns),
            linewidth=1.1,
            label=wrapped(f"{curve.method} (reference)", 52),
        )
        if curve.low and curve.high:
            ax.fill_between(
                curve.agent_steps, curve.low, curve.high, color=line.get_color(), alpha=0.12, lw=0
            )
    if end:
        ax.set_xlim(0, end * 1.02)


def _draw_published_scores(results: Results, panel: Panel, ax: Any) -> None:
    """Dashed lines with names at the right: methods without a curve, at the same agent steps."""
    scores, known = results.published[panel]
    drawn = {curve.method for curve in known}
    budgets = {run.config.total_agent_steps for arm in panel.arms for run in arm.runs}
    shown = [s for s in scores if s.method not in drawn and s.agent_steps in {None, *budgets}]
    for score in shown:
        ax.axhline(score.score, color=PUBLISHED_COLOUR, linestyle="--", linewidth=0.7, alpha=0.7)
        if score.low is not None and score.high is not None:
            ax.axhspan(score.low, score.high, color=PUBLISHED_COLOUR, alpha=0.1, linewidth=0)
    names = [(score.score, f"{score.method} {number(score.score)}") for score in shown]
    label_right(ax, sorted(names))


def _draw_aggregates(rows: Sequence[Aggregate], styles: Styles) -> Any:
    """One pair of axes per measure, one bar per arm."""
    names = [name for name in (*MEASURES, IMPROVES) if any(name in row.measures for row in rows)]
    longest = max(len(row.arm) + len(row.label) for row in rows)
    figure, axes = grid(len(names), 2, 0.7 + (0.24 + 0.13 * min(3, longest // 28)) * len(rows))
    span = _span([row.measures[name] for row in rows for name in MEASURES if name in row.measures])
    for name, ax in zip(names, axes, strict=True):
        shown = [row for row in rows if name in row.measures]
        for i, row in enumerate(shown):
            whisker(ax, i, row.measures[name], *styles[row.arm])
        labels = [words.of_arm(row.title) for row in shown]
        ax.set_yticks(range(len(shown)), [wrapped(label, 30) for label in labels])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_title(name, loc="left")
        if name == IMPROVES:
            ax.set_title(f"{name} over the baseline", loc="left")
            ax.axvline(0.5, color=INK, linewidth=0.8, alpha=0.6)
            ax.set_xlim(-0.05, 1.05)
        else:
            ax.set_xlim(*span)
    games = len(rows[0].games)
    figure.supxlabel(
        f"normalised score, {games} game{'s' * (games != 1)}; "
        + ("lower is better for the optimality gap; " if len(names) > 1 else "")
        + "bars: 95 % intervals",
        fontsize=7.5,
    )
    return figure


def _span(found: Sequence[Estimate]) -> tuple[float, float]:
    """The range of all estimates with their intervals, with a margin."""
    ends = [end for e in found for end in (e.value, e.low, e.high) if end is not None]
    margin = 0.05 * (max(ends) - min(ends)) or 0.05
    return min(ends) - margin, max(ends) + margin


def _draw_effects(results: Results) -> Any:
    """Main effects on the final score: one pair of axes for all games together, one per game."""
    groups: dict[str, list[Effect]] = {}
    for effect in results.effects:
        if FINAL in effect.measure and not effect.is_interaction:
            groups.setdefault(OVER_GAMES if effect.games > 1 else effect.game, []).append(effect)
    ordered = sorted(groups.items(), key=lambda item: item[0] != OVER_GAMES)
    heights = [1.2 + 0.24 * len(rows) for _, rows in ordered]
    figure, axes = grid(len(ordered), 1, sum(heights) / len(heights), ratios=heights)
    for (title, rows), ax in zip(ordered, axes, strict=True):
        for i, effect in enumerate(rows):
            is_clear = effect.estimate.is_clear
            colour = COLOURS[effect.estimate.value > 0] if is_clear else PUBLISHED_COLOUR
            whisker(ax, i, effect.estimate, colour, "o" if is_clear else "D")
        ax.set_yticks(range(len(rows)), [wrapped(_effect_name(effect), 52) for effect in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.axvline(0, color=INK, linewidth=0.9)
        seeds = count_text({count for effect in rows for count in effect.estimate.seeds})
        ax.set_title(wrapped(f"{title}, {seeds}", 60), loc="left")
        ax.set_xlabel(f"change of the {rows[0].measure}")
    figure.supxlabel(
        "circle: a clear effect, blue up, orange down; grey diamond: no clear effect; "
        "bar: 95 % interval",
        fontsize=7.5,
    )
    return figure


def _effect_name(effect: Effect) -> str:
    games = f" ({effect.game})" if effect.games > 1 else ""
    return f"{words.of_keys(effect.switch)}: {effect.change}{games}"


def _draw_simulations(lines: Sequence[Line], styles: Styles) -> Any:
    """One pair of axes per game and way of varying the number of simulations."""
    cells = list(dict.fromkeys((line.game, line.how) for line in lines))
    figure, axes = grid(len(cells), 2 if len(cells) > 1 else 1, 3.2)
    for (game, how), ax in zip(cells, axes, strict=True):
        shown = [line for line in lines if (line.game, line.how) == (game, how)]
        for line in shown:
            colour, marker = styles[line.arm]
            values = [estimate.value for estimate in line.scores]
            seeds = {count for estimate in line.scores for count in estimate.seeds}
            label = wrapped(f"{words.of_arm(line.arm)} ({count_text(seeds)})", 40)
            ax.plot(line.counts, values, color=colour, marker=marker, markersize=4, label=label)
            bounded = [
                (c, e) for c, e in zip(line.counts, line.scores, strict=True) if e.low is not None
            ]
            if bounded:
                counts, found = zip(*bounded, strict=True)
                bounds = [e.low for e in found], [e.high for e in found]
                ax.fill_between(counts, *bounds, color=colour, alpha=0.16, linewidth=0)
        ax.set_xscale("log", base=2)
        ticks = sorted({count for line in shown for count in line.counts})
        ax.set_xticks(ticks, [f"{tick}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel(f"simulations that it was {how}")
        ax.set_ylabel("final score" if how == TRAINED else "score")
        ax.set_title(wrapped(game, 40), loc="left")
        ax.legend(loc="best")
    return figure


def _with_seeds(curve: ArmCurve) -> str:
    return f"{words.of_arm(curve.arm.name)} ({count_text({len(curve.arm.runs)})})"


def _what_is_drawn(curves: Sequence[ArmCurve]) -> str:
    bands = any(curve.mean_bounds is not None for curve in curves)
    lines = any(curve.mean_bounds is None for curve in curves)
    parts = ["line: mean over seeds"]
    parts += ["band: its 95 % interval"] * bands
    parts += ["thin lines: single seeds"] * lines
    return "; ".join(parts)
