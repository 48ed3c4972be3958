"""Published scores and learning curves to compare with, each with its source and protocol.

The data is in `reference_data/`: `methods.json` says how and by whom a method was measured,
`scores.csv` and `curves.csv` have the results, `measured.json` those of this package, written by
`experiments/bands.py`. A reference is valid for certain `settings`, by dotted key of the
configuration, including `preset` for our own methods.
"""

import csv
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from ez_jax.evaluation.scores import RANDOM_AND_HUMAN

DATA = resources.files("ez_jax.evaluation") / "reference_data"


@dataclass(frozen=True)
class Score:
    """The final score of a method."""

    game: str  # proper name, without a prefix
    method: str
    agent_steps: int | None  # of training; None for human and random play
    score: float  # mean unclipped return of full episodes
    low: float | None  # the band around it, if any
    high: float | None
    protocol: str  # how it was measured, in words
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Curve:
    """The learning curve of a method; agent steps rise, and the tuples have equal lengths."""

    game: str
    method: str
    agent_steps: tuple[int, ...]
    scores: tuple[float, ...]
    low: tuple[float, ...] | None  # the band around it, if any
    high: tuple[float, ...] | None
    protocol: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


def scores(game: str) -> tuple[Score, ...]:
    """Known scores of a game, in any spelling; random and human come first."""
    return _all_scores().get(_key(game), ())


def curves(game: str) -> tuple[Curve, ...]:
    """Known learning curves of a game, in any spelling."""
    return _all_curves().get(_key(game), ())


def at(reference: Curve | Score, agent_steps: int) -> Score | None:
    """The score of a method at these agent steps; curves are linear between their points.

    None before the first and after the last point of a curve, and before the end of training if
    only the final score is known.
    """
    if isinstance(reference, Score):
        ended = reference.agent_steps is None or agent_steps >= reference.agent_steps
        return reference if ended else None
    steps = reference.agent_steps
    if not steps[0] <= agent_steps <= steps[-1]:
        return None
    now = functools.partial(np.interp, agent_steps, steps)
    ends = (reference.low, reference.high)
    low, high = (None if values is None else float(now(values)) for values in ends)
    told = (reference.protocol, reference.source, reference.settings)
    score = float(now(reference.scores))
    return Score(reference.game, reference.method, agent_steps, score, low, high, *told)


def _key(game: str) -> str:
    """A key that all spellings of a game share."""
    return re.sub(
        r"^(ALE/|gymnax:|gymnasium:|gym:)|(NoFrameskip)?-v\d+$|[^A-Za-z0-9]", "", game
    ).lower()


@functools.cache
def _all_scores() -> dict[str, tuple[Score, ...]]:
    untrained = [
        (game, method, None, score)
        for game, pair in RANDOM_AND_HUMAN.items()
        for method, score in zip(("random", "human"), pair, strict=True)
    ]
    trained = [
        (row["game"], row["method"], int(row["agent_steps"]), float(row["score"]))
        for row in _rows("scores.csv")
    ]
    return _by_game(
        Score(game, method, steps, score, None, None, **_how(method))
        for game, method, steps, score in (*untrained, *trained)
    )


@functools.cache
def _all_curves() -> dict[str, tuple[Curve, ...]]:
    points: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows("curves.csv"):
        points.setdefault((row["game"], row["method"]), []).append(row)
    published = [
        Curve(
            game,
            method,
            tuple(int(row["agent_steps"]) for row in rows),
            tuple(float(row["score"]) for row in rows),
            None,
            None,
            **_how(method, curve=True),
        )
        for (game, method), rows in points.items()
    ]
    measured: list[dict[str, Any]] = json.loads(
        _text("measured.json"),
        object_hook=lambda fields: {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        },
    )
    return _by_game((*published, *(Curve(**fields) for fields in measured)))


def _by_game(found: Iterable[Any]) -> dict[str, tuple[Any, ...]]:
    games: dict[str, list[Any]] = {}
    for reference in found:
        games.setdefault(_key(reference.game), []).append(reference)
    return {key: tuple(references) for key, references in games.items()}


def _how(method: str, *, curve: bool = False) -> dict[str, Any]:
    """Protocol, source and settings of a method."""
    known = _methods()
    entry = known["methods"][method]
    protocol = known["protocols"][entry["protocol"]]
    preset = {"preset": entry["preset"]} if "preset" in entry else {}
    told = entry["curve"] if curve else entry
    return {
        "protocol": f"{protocol['words']}; {told['details']}",
        "source": told["source"],
        "settings": protocol["settings"] | preset,
    }


@functools.cache
def _methods() -> dict[str, Any]:
    return json.loads(_text("methods.json"))


def _rows(name: str) -> Iterable[dict[str, str]]:
    return csv.DictReader(_text(name).splitlines())


def _text(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")
