"""Whether a run is where others were after as many agent steps, in words and as curves.

`run.py` says it after each evaluation and draws it in TensorBoard; `experiments/reproduce.py` asks
the same. Scores of another protocol are told as such and never called too low or too high.
"""

import re
from collections.abc import Mapping
from typing import Any

from ez_jax.config import Config, flatten
from ez_jax.config.presets import make_config
from ez_jax.evaluation import references
from ez_jax.evaluation.references import Curve, Score
from ez_jax.storage.metrics import Series
from ez_jax.storage.run_folder import is_free

OURS = "ez_jax"  # the method of what this code itself reached
MOST_NAMED = 3  # settings that differ, in a sentence


def compare(config: Config, agent_steps: int, score: float) -> str | None:
    """What is to be said of a score of a run; None where nobody has published one of this game.

    Args:
        config: of the run.
        agent_steps: of training so far.
        score: mean return of the evaluation.
    """
    trained = nearest(config)
    parts = [_beside_trained(trained, config, agent_steps, score)] if trained else []
    untrained = [known for known in references.scores(config.game) if known.agent_steps is None]
    if untrained:
        named = ", ".join(f"{known.method} {number(known.score)}" for known in reversed(untrained))
        differing = differences(config, untrained[0])
        parts.append(f"{named} (with {_few(differing)})" if differing else named)
    return "; ".join(parts) or None


def nearest(config: Config) -> Curve | Score | None:
    """What a run is best compared with: its own preset first, then any preset, then any method.

    A curve is better than a final score, and the fewer settings differ the better.
    """
    finals = [known for known in references.scores(config.game) if known.agent_steps is not None]

    def distance(reference: Curve | Score) -> tuple[bool, bool, int]:
        preset = reference.settings.get("preset")
        return preset != config.preset, preset is None, len(differences(config, reference))

    known: list[Curve | Score] = [*references.curves(config.game), *finals]
    return min(known, key=distance, default=None)


def differences(config: Config, reference: Curve | Score) -> list[str]:
    """Settings of a reference that a run does not have: `env.sticky_actions=0.0 instead of 0.25`.

    Where both have one preset, every setting that decides what is learned counts; else those that
    the reference names; and the noise of evaluations in any case.
    """
    noise = {"eval.epsilon": reference.settings.get("eval.epsilon", 0.0)}
    return _unlike(flatten(config), noise) + _learned_otherwise(config, reference)


def _learned_otherwise(config: Config, reference: Curve | Score) -> list[str]:
    if reference.settings.get("preset") == config.preset:
        changes = {key: value for key, value in reference.settings.items() if key != "preset"}
        theirs = make_config(reference.game, config.preset, changes=changes)
        return differing_settings(config, theirs)
    return _unlike(flatten(config), reference.settings)


def differing_settings(config: Config, other: Config) -> list[str]:
    """Settings that decide what is learned, of another run but not of this one, as above."""
    return _unlike(flatten(config), deciding(other))


def deciding(config: Config) -> dict[str, Any]:
    """Settings by dotted key that decide what is learned; game and seed are none."""
    settings = flatten(config).items()
    return {k: v for k, v in settings if k not in ("game", "seed") and not is_free(k)}


def _unlike(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}={value} instead of {here[key]}"
        for key, value in there.items()
        if here[key] != value
    ]


def series(config: Config) -> list[Series]:
    """What can be drawn beside a run, no further than it goes."""
    total = config.total_agent_steps
    drawn: list[tuple[Curve | Score, str, list[tuple[int, float]]]] = []
    for curve in references.curves(config.game):
        for end, values in (("", curve.scores), ("/low", curve.low), ("/high", curve.high)):
            points = zip(curve.agent_steps, values or (), strict=values is not None)
            drawn.append((curve, end, list(points)))
    have_curve = {curve.method for curve in references.curves(config.game)}
    for score in references.scores(config.game):
        if score.agent_steps is None:
            drawn.append((score, "", [(0, score.score), (total, score.score)]))
        elif "preset" in score.settings and score.method not in have_curve:
            drawn.append((score, "", [(score.agent_steps, score.score)]))
    found = [_series(config, *line) for line in drawn]
    return [line for line in found if line.points]


def _series(
    config: Config, reference: Curve | Score, end: str, points: list[tuple[int, float]]
) -> Series:
    told = [reference.protocol, f"source: {reference.source}"]
    name = re.sub(r"[^\w.-]+", "_", reference.method) + end
    if differing := differences(config, reference):
        told.append(f"not as this run: {', '.join(differing)}")
        name = f"other_settings/{name}"
    within = [(steps, score) for steps, score in points if steps <= config.total_agent_steps]
    return Series(name, within, "; ".join(told))


def _beside_trained(
    reference: Curve | Score, config: Config, agent_steps: int, score: float
) -> str:
    """What one reference says of a score."""
    whose = f"{reference.method}'s {'own' if reference.method == OURS else 'published'}"
    differing = differences(config, reference)
    # Environments side by side may play a few steps more than the run was given.
    there = references.at(reference, min(agent_steps, config.total_agent_steps))
    if there is None:
        known = _elsewhere(reference, whose)
        return f"{known} (with {_few(differing)})" if differing else known
    low, high, has_band = there.score, there.score, False
    if there.low is not None and there.high is not None:
        low, high, has_band = there.low, there.high, True
    told = " to ".join(dict.fromkeys((number(low), number(high))))
    if differing:
        return f"not to be compared with {whose} {told} there, which has {_few(differing)}"
    side = "below" if score < low else "above" if score > high else "within" if has_band else "as"
    return f"{side} {whose} {told}" + ("" if has_band else " there (spread unknown)")


def _elsewhere(reference: Curve | Score, whose: str) -> str:
    """Where a reference has something to say, for a point where it has not."""
    if isinstance(reference, Score):
        end = f"{number(reference.score)} at {reference.agent_steps:,} steps"
        return f"no curve to compare with; {whose} final score is {end}"
    first, last = ((reference.agent_steps[i], reference.scores[i]) for i in (0, -1))
    span = " to ".join(f"{number(score)} at {steps:,} steps" for steps, score in (first, last))
    return f"nothing to compare with here; {whose} curve goes from {span}"


def _few(differing: list[str]) -> str:
    rest = len(differing) - MOST_NAMED
    return ", ".join(differing[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def number(score: float) -> str:
    """A score as one reads it: three digits, and all of those before the point."""
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.3g}"
