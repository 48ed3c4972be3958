"""Estimates, aggregates and effects against rliable, scipy, plain numpy and effects put in."""

import itertools

import made_runs
import numpy as np
import pytest
import scipy.stats
from rliable import metrics

from ez_jax.reports import aggregates, arms, collect, curves, effects, estimates
from ez_jax.reports.effects import AREA, FINAL


@pytest.fixture(autouse=True)
def few_repetitions(monkeypatch):
    monkeypatch.setattr(estimates, "REPETITIONS", 200)


def panels(root, **changes):
    runs = [collect.read_run(f, last=1, final="training") for f in collect.find_runs([str(root)])]
    return arms.group(runs, **{"mix": False, "partial": False, **changes})


def all_effects(root):
    found = panels(root)
    scores = {}
    for panel in found:
        scores[panel, FINAL] = {arm.name: arm.finals for arm in panel.arms}
        scores[panel, AREA] = curves.areas(panel)
    return effects.effects(found, scores)


def finals(found):
    return {
        effect.switch: effect
        for effect in found
        if effect.measure == FINAL and not effect.is_interaction
    }


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 9])
def test_quick_statistics_are_those_of_rliable(seeds):
    rng = np.random.default_rng(seeds)
    scores = rng.integers(0, 6, (seeds, 4)).astype(float)
    others = rng.integers(0, 6, (3, 4)).astype(float)
    assert estimates.iqm(scores.ravel()) == pytest.approx(metrics.aggregate_iqm(scores))
    trimmed = scipy.stats.trim_mean(scores, 0.25, axis=0)
    np.testing.assert_allclose(estimates.iqm(scores), trimmed)
    quick = estimates.probability_of_improvement(scores, others)
    assert quick == pytest.approx(metrics.probability_of_improvement(scores, others))


def test_an_interval_is_the_expanded_percentile_interval_of_all_resamples(monkeypatch):
    monkeypatch.setattr(estimates, "REPETITIONS", 2_000)
    scores = np.array([1.0, 2.0, 4.0, 8.0])
    means = [np.mean(resample) for resample in itertools.product(scores, repeat=4)]
    outward = scipy.stats.t.ppf(0.975, 3) * np.sqrt(4 / 3)
    tail = scipy.stats.norm.cdf(-outward)
    estimate = estimates.contrast([(scores, 1.0)])
    assert estimate.value == np.mean(scores)
    assert estimate.low == pytest.approx(np.quantile(means, tail), abs=0.3)
    assert estimate.high == pytest.approx(np.quantile(means, 1 - tail), abs=0.6)
    plain = np.quantile(means, [0.025, 0.975])
    assert estimate.low < plain[0] < plain[1] < estimate.high


def test_the_same_samples_give_the_same_interval_and_other_draws_are_left_alone():
    scores = np.arange(5.0)
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random(2)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first = np.random.random()  # noqa: NPY002
    found = [estimates.contrast([(scores, 1.0)]) for _ in range(2)]
    assert found[0] == found[1]
    assert [first, np.random.random()] == list(expected)  # noqa: NPY002


def test_below_three_seeds_there_is_no_interval_and_below_four_nothing_is_clear():
    far = [(np.array([100.0, 101.0, 102.0, 103.0]), 1.0), (np.array([0.0, 1.0, 2.0, 3.0]), -1.0)]
    for seeds, has_interval, is_clear in ((2, False, False), (3, True, False), (4, True, True)):
        estimate = estimates.contrast([(scores[:seeds], weight) for scores, weight in far])
        assert estimate.value == 100
        assert (estimate.low is not None, estimate.is_clear) == (has_interval, is_clear)


def test_arms_that_do_not_differ_are_rarely_called_clear():
    rng = np.random.default_rng(0)
    pairs = [[(rng.normal(size=5), 1.0), (rng.normal(size=5), -1.0)] for _ in range(60)]
    assert sum(estimates.contrast(pair).is_clear for pair in pairs) <= 6  # 12 % of percentiles are


def test_leaving_one_out_finds_the_effects_that_were_put_in(tmp_path):
    asked = {
        "baseline": ({}, 100.0),
        "one": ({"consistency": False}, 60.0),
        "two": ({"value_prefix": False}, 100.0),
        "three": ({"search.num_simulations": 2}, 110.0),
    }
    made_runs.write_arms(tmp_path, asked)
    found = finals(all_effects(tmp_path))
    assert found["consistency"].estimate.value == pytest.approx(-40)
    assert found["value_prefix"].estimate.value == pytest.approx(0)
    low, high = found["consistency"].estimate.low, found["consistency"].estimate.high
    assert -43 < low < -40 < high < -37  # ends of single seeds: -44 and -36
    assert found["consistency"].sentence == (
        f"consistency: turning it off lowers the final score by 40 [{-high:.3g}, {-low:.3g}] "
        "(5 seeds); clear"
    )
    assert found["value_prefix"].verdict == "no clear effect"
    assert found["search.num_simulations"].change == "2 instead of 16"
    assert "raises the final score by 10 " in found["search.num_simulations"].sentence


def test_adding_one_in_is_told_as_turning_on(tmp_path):
    off = {"consistency": False, "value_prefix": False}
    asked = {
        "baseline": (off, 50.0),
        "one": (off | {"consistency": True}, 80.0),
        "two": (off | {"value_prefix": True}, 55.0),
    }
    made_runs.write_arms(tmp_path, asked)
    found = finals(all_effects(tmp_path))
    assert found["consistency"].estimate.value == pytest.approx(30)
    assert found["consistency"].sentence.startswith("consistency: turning it on raises")


def test_a_factorial_gives_mean_effects_and_the_interaction_of_pairs(tmp_path):
    switches = list(itertools.product((True, False), repeat=2))
    ends = {pair: 100.0 + 40 * pair[0] + 10 * pair[1] + 20 * pair[0] * pair[1] for pair in switches}
    made_runs.write_arms(
        tmp_path,
        {
            f"{pair}": ({"consistency": pair[0], "value_prefix": pair[1]}, ends[pair])
            for pair in switches
        },
    )
    found = all_effects(tmp_path)
    # Without one: (100 - 140 + 110 - 170) / 2, without the other: (100 - 110 + 140 - 170) / 2.
    assert finals(found)["consistency"].estimate.value == pytest.approx(-50)
    assert finals(found)["value_prefix"].estimate.value == pytest.approx(-20)
    assert finals(found)["value_prefix"].pairs == 2
    (both,) = (e for e in found if e.is_interaction and e.measure == FINAL)
    assert both.estimate.value == pytest.approx(170 - 140 - 110 + 100)
    assert "both changes together give 20 " in both.sentence


def test_settings_that_always_change_together_are_one_switch(tmp_path):
    gumbel = {"search.policy": "puct_ez", "search.num_simulations": 8}
    made_runs.write_arms(tmp_path, {"a": ({}, 9.0), "b": (gumbel, 9.0)}, seeds=3)
    (panel,) = panels(tmp_path)
    (switch,) = effects.switches(panel)
    assert switch.keys == ("search.num_simulations", "search.policy")
    assert switch.change(1) == "8,puct_ez instead of 16,gumbel"


def test_effects_over_games_are_means_of_the_normalised_ones(tmp_path):
    for game, best, worse in (("CartPole", 400.0, 300.0), ("Catch", 0.9, 0.3)):
        asked = {"a": ({}, best), "b": ({"consistency": False}, worse)}
        made_runs.write_arms(tmp_path / game, asked, game=game, spread=best / 50)
    found = [e for e in all_effects(tmp_path) if e.games == 2 and FINAL in e.measure]
    lowest = [300 - 2 * 8.0, 0.3 - 2 * 0.018]  # of any run: 0 on the scale, the best mean is 1
    expected = np.mean([(300 - 400) / (400 - lowest[0]), (0.3 - 0.9) / (0.9 - lowest[1])])
    (effect,) = found
    assert effect.estimate.value == pytest.approx(expected)
    assert effect.game == "2 games"


def test_aggregates_are_rliables_of_human_normalised_scores(tmp_path):
    for game, base in (("Breakout", 20.0), ("Pong", -5.0)):
        asked = {"a": ({}, base), "b": ({"consistency": False}, base + 2)}
        made_runs.write_arms(tmp_path / game, asked, game=game, seeds=4)
    found = aggregates.aggregate(panels(tmp_path))
    base, other = found.rows
    ends = np.arange(4) - 1.5
    scores = np.stack([(20 + ends - 1.7) / (30.5 - 1.7), (-5 + ends + 20.7) / (14.6 + 20.7)], 1)
    measures = base.measures
    assert measures["mean"].value == pytest.approx(metrics.aggregate_mean(scores))
    assert measures["median"].value == pytest.approx(metrics.aggregate_median(scores))
    assert measures["IQM"].value == pytest.approx(metrics.aggregate_iqm(scores))
    gap = metrics.aggregate_optimality_gap(scores)
    assert measures["optimality gap"].value == pytest.approx(gap)
    better = metrics.probability_of_improvement(scores + np.array([2 / 28.8, 2 / 35.3]), scores)
    assert other.measures[aggregates.IMPROVES].value == pytest.approx(better)
    assert aggregates.IMPROVES not in measures
    assert any("human-normalised, 0 is random play (1.7), 1 human (30.5)" in n for n in found.notes)


def test_what_cannot_be_aggregated_is_said(tmp_path):
    made_runs.write_arms(tmp_path / "one", {"a": ({}, 500.0)}, spread=0)
    other = {"a": ({}, 0.5), "b": ({"consistency": False}, 0.2)}
    made_runs.write_arms(tmp_path / "two", other, game="Catch", spread=0.01)
    notes = aggregates.aggregate(panels(tmp_path)).notes
    assert any("CartPole is left out of the aggregates: its runs score" in n for n in notes)
    made_runs.write_arms(tmp_path / "three", {"a": ({}, 9.0)}, game="Breakout", seeds=3)
    found = aggregates.aggregate(panels(tmp_path))
    assert [row.arm for row in found.rows] == ["baseline"]
    assert any(
        "consistency=false is left out of the aggregates: no run of" in n for n in found.notes
    )
    assert any("the first 3 seeds of each game" in note for note in found.notes)
