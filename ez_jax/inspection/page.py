"""The page: one HTML file with frames, searches and numbers, which loads nothing.

It is built from `page.html`, `page.css` and the scripts in this folder; the numbers are JSON. The
script inserts all text as text, never as HTML.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from ez_jax.config import errors
from ez_jax.inspection.episode import Episode
from ez_jax.inspection.imagined import Imagined, Real
from ez_jax.inspection.measures import Finding, Measures
from ez_jax.inspection.trees import Nodes, principal_variation

_FOLDER = resources.files("ez_jax.inspection")
_SCRIPTS = ("base.js", "charts.js", "space.js", "tree.js", "page.js")
DIGITS = 4  # significant ones, of every number on the page
PLACES = 3  # decimal ones, of continuous actions: from -1 to 1, and many


def content(
    episode: Episode,
    measures: Measures,
    imagined: Imagined,
    real: Real,
    *,
    discount: float,
    horizon: int,
) -> dict[str, Any]:
    """Everything on the page except its heading, as plain values."""
    return {
        "actions": [errors.one_line(name) for name in episode.action_names],
        "discount": discount,
        "horizon": horizon,
        "frames": episode.film.encode(),
        "steps": rounded(_steps(episode, measures)),
        "trees": [
            rounded({**_columns(nodes), "line": principal_variation(nodes, chosen, discount)})
            for nodes, chosen in zip(episode.nodes, episode.chosen, strict=True)
        ],
        "imagined": rounded({name: getattr(imagined, name) for name in Real._fields}),
        "real": rounded(real._asdict()),
        "errors": rounded(_errors(measures)),
        "calibration": rounded(
            {"bias": measures.value_bias, "correlation": measures.value_correlation}
        ),
    }


def _steps(episode: Episode, measures: Measures) -> dict[str, Any]:
    """Columns with an entry for every decision."""
    plain = ("reward", "ends", "value", "search_value", "gain", "policy", "visits")
    return {
        **{name: getattr(episode, name) for name in plain},
        **(_of_numbers(episode) if episode.numbers else _of_actions(episode, measures)),
        "score": np.cumsum(episode.score) - episode.score,  # before the action
        "realised": measures.returns[:-1],
        "q": episode.qs,
        "observation": episode.observation if episode.no_pictures else [],
    }


def _of_actions(episode: Episode, measures: Measures) -> dict[str, Any]:
    return {
        "action": episode.action,
        "prior": episode.prior,
        "prior_entropy": measures.prior_entropy,
        "policy_entropy": measures.policy_entropy,
    }


def _of_numbers(episode: Episode) -> dict[str, Any]:
    """Of continuous actions: `action` [T, D], and `Numbers`."""
    assert episode.numbers is not None, "the actions are discrete"
    numbers = episode.numbers
    return {
        **numbers._asdict(),
        "action": _places(episode.action),
        "candidates": _places(numbers.candidates),
    }


def _columns(nodes: Nodes) -> dict[str, Any]:
    columns = nodes._asdict()
    vector = columns.pop("vector")
    return columns if vector is None else columns | {"vector": _places(vector)}


def _places(actions: np.ndarray) -> np.ndarray:
    return np.round(actions.astype(np.float64), PLACES)


def _errors(measures: Measures) -> dict[str, Any]:
    """Error of the model and of always guessing the mean, by depth."""
    rows = (
        ("value_prefix", measures.prefix_error, measures.prefix_guess),
        ("reward", measures.reward_error, measures.reward_guess),
        ("value", measures.value_error, measures.value_guess),
    )
    return {name: {"error": error, "guess": guess} for name, error, guess in rows}


def rounded(values: Any) -> Any:
    """Plain lists of rounded numbers; None for unknown values."""
    if isinstance(values, Mapping):
        return {key: rounded(value) for key, value in values.items()}
    if isinstance(values, np.ndarray | np.generic):
        return rounded(values.tolist())
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    if isinstance(values, float):
        return _short(values)
    return values


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short  # 0 rather than 0.0


def render(
    found: Mapping[str, Any],
    findings: Sequence[Finding],
    *,
    title: str,
    about: str,
    settings: Mapping[str, str],
) -> str:
    """The whole file.

    Args:
      found: the result of `content`.
      findings: the sentences at the top.
      title: of the window, and the game's name.
      about: one sentence below the heading.
      settings: rows of the table at the end.
    """
    told = {
        "title": errors.one_line(title),
        "about": errors.one_line(about),
        "findings": [[kind, errors.one_line(text)] for kind, text in findings],
        "settings": [[name, errors.one_line(text)] for name, text in settings.items()],
    }
    parts = {
        "TITLE": escape(errors.one_line(title)),
        "STYLE": _read("page.css"),
        "DATA": _as_script_data({**found, **told}),
        "SCRIPT": "\n".join(map(_read, _SCRIPTS)),
    }
    # In one pass, so that inserted text is not replaced again.
    return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], _read("page.html"))


def _as_script_data(value: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
