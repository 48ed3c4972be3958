"""What the figures of a report share: colours, axes, bars of intervals, text that fits."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from ez_jax.reports.arms import Panel
from ez_jax.reports.collect import BASELINE
from ez_jax.reports.estimates import Estimate

INK = "#24292e"
# After Okabe and Ito, for colour-blind readers; yellow is darker, to be visible on white.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a7a00")
Styles = dict[str, tuple[str, str]]  # colour and marker by the name of an arm
MARKERS = "sD^vPX"  # one fewer than colours, so that pairs repeat only after 42 arms
PUBLISHED_COLOUR = "#8c8c8c"
WIDTH = 7.0  # inches
RC: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "ez_jax",  # otherwise names in the file are random
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def arm_styles(panels: Sequence[Panel]) -> Styles:
    """The same in all figures, in the order of the panels; the baseline is in ink."""
    names = dict.fromkeys(
        arm.name for panel in panels for arm in panel.arms if arm.name != BASELINE
    )
    marks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    return {BASELINE: (INK, "o"), **dict(zip(names, marks, strict=False))}


def grid(
    count: int,
    columns: int,
    height: float,
    *,
    share: bool = False,
    ratios: Sequence[float] | None = None,
) -> tuple[Any, list[Any]]:
    """A figure with this many axes and a thin grid; unused places stay empty."""
    from matplotlib import pyplot

    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    figure, axes = pyplot.subplots(
        *(rows, columns),
        figsize=(WIDTH, height * rows),
        squeeze=False,
        sharex=share,
        sharey=share,
        height_ratios=ratios,
    )
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.set_axis_off()
    for used in flat[:count]:
        used.grid(True)
        used.set_axisbelow(True)
    return figure, flat[:count]


def whisker(ax: Any, place: int, estimate: Estimate, colour: str, marker: str) -> None:
    """A point with the bar of its interval, in row `place`."""
    if estimate.low is not None:
        ax.plot(
            [estimate.low, estimate.high],
            [place] * 2,
            color=colour,
            lw=5,
            alpha=0.35,
            solid_capstyle="butt",
        )
    ax.plot([estimate.value], [place], color=colour, marker=marker, markersize=6, linestyle="")


def label_right(ax: Any, labels: Sequence[tuple[float, str]]) -> None:
    """Text beside the axes at the heights of rising values, moved apart where needed."""
    low, high = ax.get_ylim()
    step = min(0.036, 1 / max(1, len(labels)))  # of the height of the axes: a line of text
    place, places = -math.inf, []
    for value, _ in labels:
        place = max(place + step, (value - low) / (high - low))
        places.append(place)
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - step
    for (value, text), place in zip(labels, places, strict=True):
        ax.annotate(
            wrapped(text, 34),
            xy=(1, value),
            xycoords=("axes fraction", "data"),
            xytext=(1.03, place),
            textcoords="axes fraction",
            fontsize=6.5,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": PUBLISHED_COLOUR,
                "lw": 0.4,
                "relpos": (0, 0.5),
            },
        )


def wrapped(text: str, width: int) -> str:
    """Wrap text into at most four lines of this many characters."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False)[:4])
