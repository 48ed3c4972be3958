"""Draws the committed learning curves from their JSON files, in one style.

    python -m experiments.figures              all of them
    python -m experiments.figures cartpole     those whose names start so

`experiments.curves` writes such a JSON file from run folders and draws it in the same way. Single
seeds are thin lines; with three seeds or more, their mean has a 95 % interval.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import long_run
from ez_jax.reports import estimates
from ez_jax.reports.drawing import COLOURS, INK, PUBLISHED_COLOUR, RC
from ez_jax.reports.estimates import count_text

RESULTS = Path(__file__).parent / "results"
Run = Mapping[str, Any]  # one of a JSON file of `experiments.curves`

# Name of the figure: the arms in words, each with its JSON file.
FIGURES: dict[str, dict[str, str]] = {
    "cartpole": {"": "cartpole"},
    "cartpole_ten": {"": "cartpole_ten"},
    "catch": {"": "catch"},
    "lunarlander": {"": "lunarlander"},
    "pendulum": {"": "pendulum"},
    "cartpole_swingup": {"": "cartpole_swingup"},
    "breakout_small": {"": "breakout_small"},
    "crazyclimber": {"": "crazyclimber"},
    "own_game": {"": "own_game"},
    "control/reacher_easy": {
        "16 simulations among 16 candidates": "control/reacher_easy_16",
        "32 simulations": "control/reacher_easy_32",
    },
    **{
        f"control/{game}": {
            "128 samples every two steps": f"control/{game}_half",
            "128 every step": f"control/{game}_one",
            "64 every step": f"control/{game}_one_64",
        }
        for game in ("cheetah_run", "walker_walk")
    },
    "norm/breakout_minatar": {
        "batch norm": "norm/breakout_minatar_batch",
        "norm per sample": "norm/breakout_minatar_sample",
    },
    "norm/catch_bsuite": {
        "batch norm": "norm/catch_bsuite_batch",
        "norm per sample": "norm/catch_bsuite_sample",
        "layer norm": "norm/catch_bsuite_layer",
    },
    "reanalysis/cartpole": {
        "whole batch reanalysed": "reanalysis/cartpole_full",
        "a quarter of the batch": "reanalysis/cartpole_quarter",
        "kept in the buffer": "reanalysis/cartpole_buffer",
    },
    "reanalysis/catch": {
        "whole batch reanalysed": "reanalysis/catch_full",
        "kept in the buffer": "reanalysis/catch_buffer",
    },
    "reanalysis/breakout_minatar": {
        "whole batch reanalysed": "reanalysis/breakout_minatar_batch",
        "kept in the buffer": "reanalysis/breakout_minatar_buffer",
    },
}
TITLES = {"experiments.own_game:Bird-v0": "Bird, the example of an own game"}


def draw(arms: Mapping[str, Sequence[Run]], lines: Mapping[str, float], path: Path) -> None:
    """Draw learning curves by arm, with reference returns, as a PNG.

    Args:
        arms: runs that differ only by their seeds, by the name of their arm.
        lines: returns by name, such as that of random play.
        path: of the PNG.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    first = next(iter(arms.values()))[0]
    with mpl.rc_context(RC):
        figure, axes = pyplot.subplots(figsize=(7.0, 4.2))
        for (name, runs), colour in zip(arms.items(), COLOURS[1:], strict=False):
            _draw_arm(axes, name, runs, colour)
        for name, value in lines.items():
            axes.axhline(value, color=PUBLISHED_COLOUR, linestyle="--", linewidth=1)
            where = {"xy": (1.01, value), "xycoords": ("axes fraction", "data")}
            label = f"{name}\n{value:,g}"
            axes.annotate(label, **where, color=INK, va="center", fontsize=8, annotation_clip=False)
        title = TITLES.get(first["game"], first["game"])
        axes.set_title(f"{title}, settings of preset={first['preset']}", loc="left")
        axes.set_xlabel("agent steps")
        episodes = first["episodes"]
        axes.set_ylabel(f"mean return of {episodes} evaluation episodes")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(True)
        axes.margins(x=0.02)
        is_many = any(len(runs) >= estimates.LEAST_SEEDS for runs in arms.values())
        note = "line: mean over seeds; band: its 95 % interval; thin: single seeds"
        about = {"title": note if is_many else None, "title_fontsize": 8}
        figure.legend(loc="outside lower center", ncols=min(3, len(arms) + 1), **about)
        figure.savefig(path, dpi=120, facecolor="white")
        pyplot.close(figure)


def _draw_arm(axes: Any, name: str, runs: Sequence[Run], colour: str) -> None:
    """Single seeds, their mean with its interval, and training episodes if recorded."""
    curves = [_points(run["curve"], "eval/return_mean") for run in runs]
    label = f"{name or 'evaluations'} ({count_text([len(runs)])})"
    is_many = len(runs) >= estimates.LEAST_SEEDS
    for i, (steps, returns) in enumerate(curves):
        style = {"linewidth": 0.7, "alpha": 0.45} if is_many else {"marker": "o", "markersize": 3}
        in_legend = label if not is_many and i == 0 else None
        axes.plot(steps, returns, color=colour, label=in_legend, **style)
    if is_many:
        steps, mean, bounds = mean_with_interval(curves)
        axes.plot(steps, mean, color=colour, marker="o", markersize=3, linewidth=1.8, label=label)
        axes.fill_between(steps, *bounds, color=colour, alpha=0.16, linewidth=0)
    elif len(runs) == 1 and runs[0].get("training") and not name:
        played = _points(runs[0]["training"], "rollout/return")
        axes.plot(*played, ".", color=COLOURS[0], alpha=0.7, label="episodes in training")


def _points(lines: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Agent steps and values of the lines with a value; the last one at each step."""
    found = {line["agent_steps"]: line[key] for line in lines if key in line}
    return np.array(list(found)), np.array(list(found.values()), float)


def mean_with_interval(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps [T], the mean over seeds [T] and the ends of its interval [2, T].

    The steps are those of the first seed, over the range of all; other seeds are interpolated.
    """
    low, high = max(s[0] for s, _ in curves), min(s[-1] for s, _ in curves)
    steps = np.unique(np.clip(curves[0][0], low, high))
    returns = np.stack([np.interp(steps, *curve) for curve in curves])
    mean = lambda sample: sample[:, 0].mean(axis=0)  # noqa: E731
    values, bounds = estimates.interval([returns[:, None]], mean)
    assert bounds is not None, "of three seeds or more"
    return steps, values, bounds


def redraw(name: str) -> Path:
    """Draw one of FIGURES."""
    files = {
        label: json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))
        for label, file in FIGURES[name].items()
    }
    first = next(iter(files.values()))
    path = RESULTS / f"{name}.png"
    draw({label: file["runs"] for label, file in files.items()}, lines_of(first), path)
    return path


def lines_of(content: Mapping[str, Any]) -> dict[str, float]:
    """The reference returns in a JSON file."""
    lines = {"solved": content.get("solved"), "random play": content.get("random")}
    return {name: value for name, value in lines.items() if value is not None}


def main(words: Sequence[str]) -> None:
    """Draw all, or those whose names start with one of the words."""
    for name in FIGURES:
        if not words or name.startswith(tuple(words)):
            sys.stdout.write(f"wrote {redraw(name)}\n")
    if not words or "long_run" in words:
        long_run.redraw(RESULTS / "long_run")
        sys.stdout.write(f"wrote {RESULTS / 'long_run.png'}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
