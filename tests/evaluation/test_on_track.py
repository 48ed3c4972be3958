"""What is said of published scores beside a run's own: numbers, bands and other protocols."""

import numpy as np
import pytest

from ez_jax.config.presets import make_config
from ez_jax.evaluation import references
from ez_jax.evaluation.on_track import differences, published, series


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


def test_what_was_published_for_the_same_protocol_is_said():
    told = published(make_config("Breakout"), 38_000)
    assert told == "published: EfficientZero 127, human 30.5, random 1.7"


def test_the_few_steps_that_environments_play_too_many_are_forgiven():
    assert "EfficientZero 808," in published(make_config("Alien"), 100_003)


def test_where_there_is_no_curve_a_final_score_is_said_with_its_steps():
    early = published(make_config("Alien"), 40_000)
    assert early == "published: EfficientZero 808 at 100,000, human 7,128, random 228"
    ends_before = make_config("Alien", changes={"total_agent_steps": 50_000})
    assert published(ends_before, 50_000) == "published: human 7,128, random 228"


@pytest.mark.parametrize(
    "changes",
    [
        {"total_agent_steps": 50_000},
        {"consistency": False},
        {"env.frame_skip": 3},
        {"env.sticky_actions": 0.25},
        {"eval.epsilon": 0.05},
    ],
)
def test_a_method_under_other_settings_is_not_compared_with(changes):
    told = published(make_config("Breakout", changes=changes), 38_000) or ""
    assert "EfficientZero" not in told


def test_human_and_random_play_have_a_protocol_too():
    assert published(make_config("Breakout", changes={"env.sticky_actions": 0.1}), 100) is None


def test_what_this_code_reached_itself_was_not_published():
    assert references.curves("CartPole")
    assert published(make_config("CartPole"), 3_000) is None


def test_settings_that_decide_nothing_do_not_count():
    changes = {"seed": 3, "eval.every": 7, "log.every": 9, "checkpoint.keep": 5, "name": "x"}
    (curve,) = references.curves("Breakout")
    assert differences(make_config("Breakout", changes=changes), curve) == []


def test_a_run_is_compared_with_its_own_preset():
    told = published(make_config("Breakout", "efficientzero_v2"), 100_000)
    assert told.startswith("published: EfficientZero V2 ")


def test_of_a_game_that_nobody_played_nothing_is_said():
    config = make_config("Acrobot")
    assert published(config, 1_000) is None
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
