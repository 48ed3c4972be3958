"""Published results at the same number of agent steps, in words and as curves.

Training prints them after each evaluation and draws them in TensorBoard. Only scores of the same
protocol are printed; curves of another protocol are drawn under `other_settings/`.
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

OURS = "ez_jax"  # the method name of this package's own results


def published(config: Config, agent_steps: int) -> str | None:
    """Published scores that are comparable with a run at these agent steps; None without any.

    One trained method (preferably the run's own preset, and a curve rather than a final score), and
    human and random play. Scores of another protocol are not comparable and are left out.
    """
    # Several environments may make a few steps more than configured.
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
    """The score of a trained method at these agent steps, or at its end; otherwise None."""
    if now := references.at(reference, agent_steps):
        return f"{reference.method} {number(now.score)}" if now.agent_steps is not None else ""
    if not isinstance(reference, Score) or (reference.agent_steps or 0) > config.total_agent_steps:
        return ""
    return f"{reference.method} {number(reference.score)} at {reference.agent_steps:,}"


def differences(config: Config, reference: Curve | Score) -> list[str]:
    """Settings in which a reference differs: `env.sticky_actions=0.0 instead of 0.25`.

    With the same preset, every setting that affects learning counts, otherwise those that the
    reference names; the noise of evaluations always counts.
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
    """Settings that affect learning in which another run differs from this one."""
    return _unlike(flatten(config), deciding(other))


def deciding(config: Config) -> dict[str, Any]:
    """Settings by dotted key that affect learning, without game and seed."""
    settings = flatten(config).items()
    return {k: v for k, v in settings if k not in ("game", "seed") and not is_free(k)}


def _unlike(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}={value} instead of {here[key]}"
        for key, value in there.items()
        if here[key] != value
    ]


def series(config: Config) -> list[Series]:
    """The references to draw beside a run, up to its length."""
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
    """A score in words: three significant digits, and all before the point."""
    return f"{score:,.0f}" if abs(score) >= 100 else f"{score:.3g}"
