"""Where others were after as many agent steps, in words and as curves.

Training says it after each evaluation and draws it in TensorBoard. In words only published scores
of the same protocol are given; curves of another protocol are drawn under `other_settings/`.
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


def published(config: Config, agent_steps: int) -> str | None:
    """Published scores that fit a run, after as many agent steps; None where there are none.

    One trained method, with the run's own preset first and a curve before a final score, and human
    and random play. What was measured under another protocol does not compare and is left out.
    """
    # Environments side by side may play a few steps more than the run was given.
    steps = min(agent_steps, config.total_agent_steps)
    known: list[Curve | Score] = [*references.curves(config.game), *references.scores(config.game)]
    fitting = [one for one in known if one.method != OURS and not differences(config, one)]
    trained = [(one, text) for one in fitting if (text := _there(one, steps, config))]
    trained.sort(key=lambda pair: pair[0].settings.get("preset") != config.preset)
    untrained = [one for one in fitting if isinstance(one, Score) and one.agent_steps is None]
    told = [text for _, text in trained[:1]]
    told += [f"{one.method} {number(one.score)}" for one in reversed(untrained)]
    return f"published: {', '.join(told)}" if told else None


def _there(reference: Curve | Score, agent_steps: int, config: Config) -> str:
    """What a trained method has after so many agent steps, or at its end; else nothing."""
    if now := references.at(reference, agent_steps):
        return f"{reference.method} {number(now.score)}" if now.agent_steps is not None else ""
    if not isinstance(reference, Score) or (reference.agent_steps or 0) > config.total_agent_steps:
        return ""
    return f"{reference.method} {number(reference.score)} at {reference.agent_steps:,}"


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


def number(score: float) -> str:
    """A score as one reads it: three digits, and all of those before the point."""
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.3g}"
