"""What is said of a score beside published ones: numbers, bands and other protocols."""

import dataclasses

import numpy as np
import pytest

from ez_jax.config.presets import make_config
from ez_jax.evaluation import references
from ez_jax.evaluation.on_track import compare, differences, nearest, series


def test_curves_and_bands_are_linear_between_their_points():
    (curve,) = references.curves("CartPole")
    there = references.at(curve, 2_500)
    i = curve.agent_steps.index(2_000)
    assert there.score == pytest.approx((curve.scores[i] + curve.scores[i + 1]) / 2)
    assert there.low == pytest.approx((curve.low[i] + curve.low[i + 1]) / 2)
    assert there.high == pytest.approx((curve.high[i] + curve.high[i + 1]) / 2)
    assert there.agent_steps == 2_500
    (breakout,) = references.curves("Breakout")
    assert references.at(breakout, 38_000).score == pytest.approx(55 + 0.9 * (135 - 55))
    assert references.at(breakout, 38_000).low is None


def test_a_curve_says_nothing_beyond_its_ends():
    (curve,) = references.curves("CartPole")
    for beyond in (999, 10_001):
        assert references.at(curve, beyond) is None
    assert references.at(curve, 1_000).score == curve.scores[0]
    assert references.at(curve, 10_000).score == curve.scores[-1]


def test_a_final_score_says_nothing_of_the_time_before_it():
    final = next(s for s in references.scores("Alien") if s.method == "EfficientZero")
    assert references.at(final, 99_999) is None
    assert references.at(final, 100_000) is final


@pytest.mark.parametrize(
    ("score", "said"),
    [(100.0, "below ez_jax's own 176 to 500"), (300.0, "within"), (501.0, "above")],
)
def test_a_score_is_below_within_or_above_a_band(score, said):
    sentence = compare(make_config("CartPole"), 3_000, score)
    assert sentence.startswith(said)


def test_the_few_steps_that_environments_play_too_many_are_forgiven():
    assert "within ez_jax's own 500" in compare(make_config("CartPole"), 10_003, 500.0)


def test_a_curve_without_a_band_is_said_to_have_none():
    sentence = compare(make_config("Breakout"), 38_000, 112.0)
    assert sentence == (
        "below EfficientZero's published 127 there (spread unknown); human 30.5, random 1.7"
    )


def test_where_there_is_no_curve_only_what_is_known_is_said():
    early = compare(make_config("Alien"), 40_000, 600.0)
    assert "no curve to compare with" in early
    assert "808 at 100,000 steps; human 7,128, random 228" in early
    assert "below EfficientZero's published 808 there" in compare(
        make_config("Alien"), 100_000, 600.0
    )
    late = compare(make_config("CartPole"), 500, 20.0)
    assert "nothing to compare with here" in late


@pytest.mark.parametrize(
    ("preset", "changes", "told"),
    [
        ("", {"env.sticky_actions": 0.25}, "env.sticky_actions=0.0 instead of 0.25"),
        ("", {"eval.epsilon": 0.05}, "eval.epsilon=0.0 instead of 0.05"),
        ("", {"total_agent_steps": 50_000}, "total_agent_steps=100000 instead of 50000"),
        ("", {"consistency": False}, "consistency=True instead of False"),
        ("small", {}, "preset=efficientzero instead of small"),
    ],
)
def test_another_protocol_is_told_and_not_judged(preset, changes, told):
    sentence = compare(make_config("Breakout", preset, changes=changes), 38_000, 5.0)
    assert told in sentence
    assert "not to be compared with EfficientZero's published 127 there" in sentence
    assert "below" not in sentence


def test_human_and_random_play_have_a_protocol_too():
    sticky = make_config("Breakout", changes={"env.sticky_actions": 0.25})
    assert compare(sticky, 100, 1.0).endswith(
        "random 1.7 (with env.sticky_actions=0.0 instead of 0.25)"
    )


def test_settings_that_decide_nothing_do_not_count():
    changes = {"seed": 3, "eval.every": 7, "log.every": 9, "checkpoint.keep": 5, "name": "x"}
    config = make_config("Breakout", changes=changes)
    assert differences(config, nearest(config)) == []


def test_a_run_is_compared_with_its_own_preset():
    assert nearest(make_config("Breakout")).method == "EfficientZero"
    assert nearest(make_config("Breakout", "efficientzero_v2")).method == "EfficientZero V2"
    assert nearest(make_config("CartPole")).method == "ez_jax"


def test_minatar_is_compared_with_the_method_of_the_same_protocol():
    config = dataclasses.replace(make_config("CartPole"), game="gymnax:Breakout-MinAtar")
    assert nearest(config).method == "PPO (gymnax)"
    assert "28 at 10,000,000 steps" in compare(config, 5_000, 3.0)


def test_of_a_game_that_nobody_played_nothing_is_said():
    config = make_config("Acrobot")
    assert compare(config, 1_000, -100.0) is None
    assert series(config) == []


def test_lines_end_where_the_run_ends_and_name_other_settings():
    config = make_config("Pong", changes={"total_agent_steps": 45_000})
    lines = {line.name: line for line in series(config)}
    assert set(lines) == {"other_settings/EfficientZero", "human", "random"}
    assert lines["human"].points == [(0, 14.6), (45_000, 14.6)]
    curve = lines["other_settings/EfficientZero"]
    assert curve.points[-1] == (40_000, -1.5)
    assert "total_agent_steps=100000 instead of 45000" in curve.description
    assert "arXiv:2111.00210" in curve.description


def test_a_band_is_drawn_as_three_lines():
    lines = {line.name: dict(line.points) for line in series(make_config("CartPole"))}
    assert set(lines) == {"ez_jax", "ez_jax/low", "ez_jax/high"}
    steps = np.array(sorted(lines["ez_jax"]))
    assert steps.tolist() == list(range(1_000, 10_001, 1_000))
    assert all(lines["ez_jax/low"][s] <= lines["ez_jax"][s] for s in steps)
