"""One self-contained HTML page: figures are embedded, and nothing is loaded.

All text from run folders is escaped. Figures are SVG from matplotlib; their ink becomes the page's
text colour, so that they are readable on dark screens, too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import ez_jax
from ez_jax.config import errors
from ez_jax.reports import curves, effects, words
from ez_jax.reports.arms import Panel, value_text
from ez_jax.reports.drawing import INK
from ez_jax.reports.effects import FINAL
from ez_jax.reports.estimates import REPETITIONS, count_text
from ez_jax.reports.results import ArmScore, Results
from ez_jax.reports.tables import Table, common_settings, settings_table, tables

_STYLE = """
:root { color-scheme: light dark; --text: #1d2227; --back: #ffffff; --line: #d5dae0;
  --soft: #f4f6f8; --warn: #8a4b00; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --back: #14181c; --line: #39424b;
  --soft: #1d2329; --warn: #ffb45c; --link: #7cb8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem; color: var(--text);
  background: var(--back); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.2rem;
  border-bottom: 1px solid var(--line); } h3 { font-size: 1rem; margin-bottom: .4rem; }
a { color: var(--link); } code, pre { font: .85em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1.4rem 0; } figcaption { font-size: .85rem; opacity: .8; }
.scroll { overflow-x: auto; } figure svg { display: block; width: 100%; min-width: 27rem;
  max-width: 46rem; height: auto; margin: 0 auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); } th { border-bottom: 2px solid var(--line); }
td { min-width: 4rem; max-width: 24rem; } caption { text-align: left; font-weight: 600; }
td.short { white-space: nowrap; }
.warn { color: var(--warn); } nav a { margin-right: 1rem; white-space: nowrap; }
summary { cursor: pointer; }
@media print { :root { --text: #000; --back: #fff; --line: #bbb; --soft: #f4f4f4; --warn: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  figure, tr { break-inside: avoid; } .scroll { overflow: visible; }
  figure svg { min-width: 0; } h2, h3 { break-after: avoid; } }
"""
_SHORT = 32  # characters up to which a cell is not wrapped
_PARTS = ("Summary", "Figures", "Tables", "How it was measured", "Settings", "Runs", "Command")


def render(results: Results, figures: Mapping[str, str], command: str) -> str:
    """The page; `figures` are SVG by name, `command` is the command line."""
    games = ", ".join(dict.fromkeys(panel.game for panel in results.panels))
    bodies = (
        _sentences(summary(results)) + _warnings(results.warnings),
        "".join(_figure(name, svg) for name, svg in figures.items()),
        "".join(map(_table, tables(results))),
        _sentences(_method(results)) + "".join(map(_protocol, results.panels)),
        "".join(map(_settings, results.panels)),
        _runs(results),
        f"<pre>{escape(command)}</pre><p>ez_jax {escape(ez_jax.__version__)}</p>",
    )
    sections = "".join(
        f'<section id="{_anchor(title)}"><h2>{title}</h2>{body}</section>'
        for title, body in zip(_PARTS, bodies, strict=True)
    )
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in _PARTS)
    title = f"EfficientZero in JAX: {games}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{_text(title)}</h1><nav>{links}</nav>\n{sections}</body></html>\n"
    )


def summary(results: Results) -> list[str]:
    """The findings, in plain sentences."""
    told = []
    for panel in results.panels:
        rows = [row for row in results.rows if row.panel is panel and row.measure == FINAL]
        if not rows:
            told.append(f"{panel.title}: no finished run yet.")
            continue
        told.append(_lead(results, panel, rows))
    joint = [e for e in results.effects if FINAL in e.measure and e.games > 1]
    shown = joint or [effect for effect in results.effects if effect.measure == FINAL]
    return told + [f"{effect.game}, {effect.sentence}." for effect in shown]


def _lead(results: Results, panel: Panel, rows: Sequence[ArmScore]) -> str:
    """The number of runs, the baseline's score, and the number of clear effects.

    No arm is called the best, because the highest of several means is partly high by chance.
    """
    arms, runs = len(panel.arms), sum(len(arm.runs) for arm in panel.arms)
    counted = f"{runs} run{'s' * (runs != 1)} in {arms} arm{'s' * (arms != 1)}"
    row = next((row for row in rows if row.arm == panel.baseline.name), rows[0])
    score = f"{effects.number(row.estimate.value)}{effects.bracket(row.estimate)}"
    told = f"{panel.title}: {counted}; mean final score of {words.of_arm(row.arm)} {score} "
    told += f"({count_text(row.estimate.seeds)})"
    found = [e for e in results.effects if e.game == panel.title and e.measure == FINAL]
    if not found:
        return f"{told}."
    clear = sum(effect.estimate.is_clear for effect in found)
    verb = "is" if clear < 2 else "are"
    return f"{told}; {clear or 'none'} of {len(found)} effects on it {verb} clear."


def _method(results: Results) -> list[str]:
    count = len(results.effects)
    told = [
        results.final_means,
        "Area under the curve is the mean of a run's evaluation returns over the agent steps that "
        "all runs of the game cover: it distinguishes arms that end with the same score.",
        curves.INTERPOLATED,
        "Intervals have 95 %: percentile bootstrap over seeds, stratified by game (rliable, "
        f"{REPETITIONS:,} resamples with a fixed seed), widened for few seeds (Student's t and "
        "n / (n - 1)). There is none below 3 seeds, and nothing is called clear below 4.",
        "The interquartile mean of fewer than 4 seeds is their mean.",
    ]
    if count:
        told.append(f"The {count} effects are not corrected for their number.")
    if results.aggregates.rows:
        told += results.aggregates.notes
        told.append(
            "P(improvement) is the probability that a run is better than one of the baseline; ties "
            "count half. If all runs of an arm are better or all are worse, resampling cannot give "
            "another value, and the interval has no width; this does not mean certainty."
        )
    return told


def _sentences(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(sentence)}</li>' for sentence in sentences)}</ul>"


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{_text(warning)}</li>" for warning in warnings)
    return f'<h3 class="warn">Please note</h3><ul class="warn">{items}</ul>'


def _figure(name: str, svg: str) -> str:
    inside = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Names of groups occur in every figure and are not referenced.
    inside = re.sub(r'<g id="[^"]*">', "<g>", inside)
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = inside.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
    files = f"{escape(name)}.svg, {escape(name)}.png"
    return f'<figure><div class="scroll">{inside}</div><figcaption>{files}</figcaption></figure>\n'


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return (
        f'<div class="scroll"><table><caption>{_text(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div><p></p>\n"
    )


def _cell(text: str) -> str:
    short = ' class="short"' if len(text) <= _SHORT else ""
    return f"<td{short}>{_text(text)}</td>"


def _protocol(panel: Panel) -> str:
    keys = dict.fromkeys(key for run in panel.all_runs for key in run.protocol)
    values = {
        key: dict.fromkeys(value_text(run.protocol.get(key)) for run in panel.all_runs)
        for key in keys
    }
    rows = tuple((key, " or ".join(shown)) for key, shown in values.items())
    return _table(Table("protocol", f"Protocol of {panel.title}", ("key", "value"), rows))


def _settings(panel: Panel) -> str:
    common = "\n".join(f"{key}={value}" for key, value in common_settings(panel).items())
    return (
        f"{_table(settings_table(panel))}<details><summary>settings that all arms of "
        f"{_text(panel.title)} share</summary><pre>{escape(common)}</pre></details>"
    )


def _runs(results: Results) -> str:
    rows = tuple(
        (
            panel.title,
            arm.name,
            str(run.config.seed),
            "" if run.final is None else effects.number(run.final),
            "yes" if run in arm.runs else "left out",
            run.progress,
            run.provenance["device"],
            run.provenance["commit"],
            str(run.folder),
        )
        for panel in results.panels
        for arm in panel.arms
        for run in arm.all_runs
    )
    head = ("game", "arm", "seed", FINAL, "counts", "progress", "device", "commit", "folder")
    versions = dict.fromkeys(run.provenance["versions"] for run in results.runs)
    return _table(Table("runs", "Every run", head, rows)) + _sentences(
        f"versions: {text}" for text in versions
    )


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _text(text: str) -> str:
    """Escape text, on one line and of limited length."""
    return escape(errors.one_line(text))
