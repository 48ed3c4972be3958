"""Runs as arms: what is found, what differs, what counts, what may be compared, on which grid."""

import json

import made_runs
import numpy as np
import pytest

from ez_jax.config import BadInput
from ez_jax.evaluation import references
from ez_jax.evaluation.references import Score
from ez_jax.reports import arms, collect, curves, estimates, normalise, simulations


@pytest.fixture(autouse=True)
def few_repetitions(monkeypatch):
    monkeypatch.setattr(estimates, "REPETITIONS", 100)


def read(*folders, last=1, final="training"):
    return [
        collect.read_run(folder, last=last, final=final)
        for folder in collect.find_runs(map(str, folders))
    ]


def group(*folders, mix=False, partial=False, **how):
    return arms.group(read(*folders, **how), mix=mix, partial=partial)


def test_runs_are_found_once_wherever_they_lie(tmp_path):
    for name in ("b/seed0", "a/deep/er/seed1"):
        made_runs.write(tmp_path / name, 0, [1.0])
    (tmp_path / "a" / "deep" / "er" / "seed1" / "checkpoints" / "x").mkdir(parents=True)
    made_runs.write(tmp_path / "b" / "seed0" / "checkpoints" / "9", 0, [1.0])
    found = collect.find_runs([str(tmp_path / "b"), str(tmp_path), str(tmp_path / "b" / "seed0")])
    assert found == [tmp_path / "a/deep/er/seed1", tmp_path / "b/seed0"]


def test_a_final_score_is_the_mean_of_the_last_evaluations(tmp_path):
    made_runs.write(tmp_path / "r", 0, [1.0, 2.0, 4.0, 9.0])
    assert read(tmp_path)[0].final == 9
    assert read(tmp_path, last=3)[0].final == 5
    scores = json.loads((tmp_path / "r" / "scores.json").read_text())
    (tmp_path / "r" / "scores.json").write_text(json.dumps(scores | {"mean": 7.5, "episodes": 100}))
    (run,) = read(tmp_path, final="scores")
    assert (run.final, run.protocol["episodes"]) == (7.5, 100)


def test_of_evaluations_at_one_clock_the_last_counts(tmp_path):
    config = made_runs.write(tmp_path / "r", 0, [1.0])
    made_runs.write_lines(tmp_path / "r", config, [(500, 1.0), (1000, 2.0), (1000, 3.0)])
    (run,) = read(tmp_path)
    assert run.evaluations.returns.tolist() == [1, 3]


def test_arms_are_named_by_what_differs_and_do_not_depend_on_order(tmp_path):
    asked = {
        "x": ({}, 5.0),
        "y": ({"consistency": False, "eval.every": 77}, 5.0),
        "z": ({"search.num_simulations": 4}, 5.0),
    }
    made_runs.write_arms(tmp_path, asked, seeds=3)
    runs = read(tmp_path)
    (panel,) = arms.group(runs, mix=False, partial=False)
    assert [arm.name for arm in panel.arms] == [
        "baseline",
        "consistency=false",
        "search.num_simulations=4",
    ]
    assert panel.keys == ("consistency", "search.num_simulations")
    assert panel.arms[0].seeds == (0, 1, 2)
    (other,) = arms.group(runs[::-1], mix=False, partial=False)
    shown = lambda p: [(a.name, a.seeds, a.finals.tolist()) for a in p.arms]  # noqa: E731
    assert shown(other) == shown(panel)


def test_numbers_that_nearly_agree_are_two_arms(tmp_path):
    rates = (3e-3, 3.0000001e-3)
    for rate in rates:
        made_runs.write(tmp_path / f"{rate}", 0, [1.0], {"learner.learning_rate": rate})
    (panel,) = group(tmp_path)
    assert [arm.name for arm in panel.arms] == ["baseline", "learner.learning_rate=0.0030000001"]


def test_the_baseline_is_the_most_common_then_the_default_or_that_of_the_ablation(tmp_path):
    off = {"consistency": False, "value_prefix": False}
    asked = {"none": (off, 1.0), "one": (off | {"consistency": True}, 2.0), "all": ({}, 3.0)}
    made_runs.write_arms(tmp_path, asked, seeds=1)
    assert group(tmp_path)[0].baseline.finals == [2.0]  # each of its values is in two of three
    assert group(tmp_path / "none", tmp_path / "all")[0].baseline.finals == [3.0]
    plan = {"base": {"game": "CartPole"}, "arms": [{"name": "baseline", "settings": off}]}
    (tmp_path / "ablation.json").write_text(json.dumps({"plans": {"CartPole": plan}}))
    collect.read_baseline.cache_clear()
    assert group(tmp_path)[0].baseline.finals == [1.0]
    (tmp_path / "ablation.json").write_text('{"plans": {"CartPole": {"arms": []}}}')
    collect.read_baseline.cache_clear()
    with pytest.raises(BadInput, match="it has no baseline for CartPole"):
        group(tmp_path)


def test_unfinished_missing_and_doubled_runs_are_named_and_left_out(tmp_path):
    made_runs.write_arms(tmp_path, {"a": ({}, 5.0), "b": ({"consistency": False}, 4.0)}, seeds=3)
    config = made_runs.write(tmp_path / "late", 3, [5.0])
    made_runs.write_lines(tmp_path / "late", config, [(400, 2.0)])
    made_runs.write(tmp_path / "twin", 0, [9.0], {"consistency": False})
    made_runs.write(tmp_path / "new", 4, [5.0])
    (tmp_path / "new" / "metrics.jsonl").write_text("")
    (panel,) = group(tmp_path)
    assert [arm.seeds for arm in panel.arms] == [(0, 1, 2), (0, 1, 2)]
    told = "\n".join(panel.warnings)
    assert "late is left out: it is not finished (400 of 1,000 agent steps" in told
    assert "twin is left out: seed 0 occurs twice" in told
    assert "new is left out: it has no evaluation yet" in told
    (panel,) = group(tmp_path, partial=True)
    assert panel.baseline.seeds == (0, 1, 2, 3)
    assert panel.baseline.finals[3] == 2
    told = "\n".join(panel.warnings)
    assert "late is not finished (400 of 1,000 agent steps, 100 of 400 updates) and is" in told
    assert "consistency=false: seed 3 is missing" in told


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        ({}, {"env.sticky_actions": 0.25}, "sticky_actions is 0.0 in "),
        ({}, {"eval.episodes": 5}, "episodes is 20 in "),
        ({}, {"eval.num_simulations": 3}, "num_simulations is 16 in "),
    ],
)
def test_other_protocols_are_refused_by_name_or_shown_side_by_side(tmp_path, one, other, key):
    made_runs.write(tmp_path / "a", 0, [1.0], one)
    made_runs.write(tmp_path / "b", 1, [2.0], other)
    with pytest.raises(BadInput, match=r"under different protocols: .*mix=true") as caught:
        group(tmp_path)
    assert key in str(caught.value)
    panels = group(tmp_path, mix=True)
    assert [len(panel.arms) for panel in panels] == [1, 1]
    assert len({panel.title for panel in panels}) == 2


def test_the_search_that_is_compared_is_no_protocol(tmp_path):
    asked = {"a": ({}, 5.0), "b": ({"search.num_simulations": 4, "search.policy": "puct"}, 4.0)}
    made_runs.write_arms(tmp_path, asked, seeds=1)
    assert len(group(tmp_path)[0].arms) == 2


def test_atari_games_of_different_protocols_are_not_averaged(tmp_path):
    made_runs.write(tmp_path / "a", 0, [1.0], game="Pong")
    made_runs.write(tmp_path / "b", 0, [1.0], {"env.sticky_actions": 0.25}, game="Breakout")
    with pytest.raises(BadInput, match="sticky_actions"):
        group(tmp_path)


def test_curves_are_interpolated_where_all_seeds_were_evaluated(tmp_path):
    for seed, points in enumerate([[(200, 2.0), (600, 6.0), (1000, 10.0)],
                                   [(202, 2.02), (604, 6.04), (1002, 10.02)],
                                   [(201, 4.02), (1001, 20.02)]]):  # fmt: skip
        config = made_runs.write(tmp_path / f"{seed}", seed, [1.0])
        made_runs.write_lines(tmp_path / f"{seed}", config, points)
    (panel,) = group(tmp_path)
    curve = curves.arm_curve(panel.baseline)
    assert curve.agent_steps.tolist() == [202, 600, 1000]
    expected = np.array([[1], [1], [2]]) * curve.agent_steps / 100
    np.testing.assert_allclose(curve.returns, expected)
    np.testing.assert_allclose(curve.median, curve.agent_steps / 100)
    np.testing.assert_allclose(curve.iqm, curve.returns.mean(0))  # of three seeds
    assert np.all(curve.iqm_bounds[0] <= curve.iqm)
    assert np.all(curve.iqm <= curve.iqm_bounds[1])
    np.testing.assert_allclose(curve.seconds, curve.agent_steps / 10)
    (areas,) = curves.areas(panel).values()  # of straight lines: the height in the middle
    np.testing.assert_allclose(areas, np.array([1, 1, 2]) * (202 + 1000) / 2 / 100)


def test_runs_that_are_evaluated_once_have_no_area(tmp_path):
    made_runs.write_arms(tmp_path, {"a": ({}, 5.0)}, seeds=1)
    config = made_runs.write(tmp_path / "b", 1, [1.0])
    made_runs.write_lines(tmp_path / "b", config, [(1000, 2.0)])
    assert curves.areas(group(tmp_path)[0]) == {}


def test_scores_by_simulations_make_a_line_per_arm(tmp_path):
    made_runs.write_arms(tmp_path, {"a": ({}, 5.0), "b": ({"search.num_simulations": 4}, 4.0)}, 3)
    for seed in range(3):
        rows = [{"num_simulations": n, "mean": seed + n} for n in (16, 1, 4)]
        content = {"protocol": {"game": "x"}, "episodes": 9, "agent_steps": 1000, "rows": rows}
        (tmp_path / f"a/seed{seed}/scores_by_simulations.json").write_text(json.dumps(content))
    trained, played = simulations.lines(group(tmp_path))
    assert (trained.how, trained.counts) == (simulations.TRAINED, (4, 16))
    assert [estimate.value for estimate in trained.scores] == [4, 5]
    assert (played.arm, played.counts) == ("baseline", (1, 4, 16))
    assert [estimate.value for estimate in played.scores] == [2, 5, 17]
    path = tmp_path / "a/seed0/scores_by_simulations.json"
    path.write_text(json.dumps(content | {"episodes": 10}))
    with pytest.raises(BadInput, match="under different protocols"):
        simulations.lines(group(tmp_path))
    path.write_text(json.dumps(content | {"rows": [{"num_simulations": "1", "mean": 2}]}))
    with pytest.raises(BadInput, match=r"scores_by_simulations.json is damaged"):
        simulations.lines(group(tmp_path))


def test_scores_of_other_weights_than_the_last_are_said(tmp_path):
    made_runs.write(tmp_path / "r", 0, [1.0])
    content = {"protocol": {}, "agent_steps": 500, "rows": []}
    (tmp_path / "r" / "scores_by_simulations.json").write_text(json.dumps(content))
    (run,) = read(tmp_path)
    assert run.notes[0].endswith("is of other weights than those at the end of the run")


def test_random_play_is_zero_where_it_is_known(tmp_path, monkeypatch):
    made_runs.write_arms(tmp_path, {"a": ({}, 100.0), "b": ({"consistency": False}, 50.0)}, 3)
    (panel,) = group(tmp_path)
    monkeypatch.setattr(references, "scores", lambda game: ())
    assert normalise.normaliser(panel).zero == 49  # of the lowest run
    known = Score("CartPole", "random", None, 20.0, None, None, "protocol", "source")
    monkeypatch.setattr(references, "scores", lambda game: (known,))
    scale = normalise.normaliser(panel)
    assert (scale.zero, scale.one) == (20, 100)
    assert "0 is random play (20), 1 the mean of the best arm (100)" in scale.told


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "game: [1", "is not YAML"),
        ("config.yaml", "game: CartPole\nlearning: 3", "unknown key"),
        ("metrics.jsonl", '{"agent_steps": 1}\n', "line 1 of"),
        (
            "metrics.jsonl",
            '{"agent_steps": 1, "updates": 1, "eval/return_mean": 1e300}\n',
            "damaged",
        ),
        ("scores.json", "[]", "is not JSON"),
    ],
)
def test_a_damaged_run_is_refused_by_name(tmp_path, name, content, message):
    made_runs.write(tmp_path / "r", 0, [1.0])
    (tmp_path / "r" / name).write_text(content)
    with pytest.raises(BadInput, match=message) as caught:
        group(tmp_path)
    assert str(tmp_path / "r") in str(caught.value)
