"""Evaluation of a run folder by the command line, and its agent in somebody else's code."""

import dataclasses
import json
import re
import shutil

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
import runs

import ez_jax
from ez_jax import evaluate
from ez_jax.config import BadInput, eval_simulations, override
from ez_jax.evaluation import play, trained_agent
from ez_jax.reports import collect
from ez_jax.storage import run_folder
from ez_jax.storage.metrics import read_metrics
from ez_jax.system import exits

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be written to."""
    return shutil.copytree(finished.folder, tmp_path / "run")


@pytest.fixture(scope="module")
def agent(finished):
    return ez_jax.load(finished.folder)


def evaluated(monkeypatch, *words):
    """The exit code of the command with these words."""
    return exits.guarded(lambda: evaluate.main(list(map(str, words))))


def evaluated_last(run):
    """What the newest evaluation wrote."""
    return json.loads(run_folder.evaluation_files(run)[-1].read_text())


def test_the_command_writes_scores_and_a_video_that_can_be_watched(run):
    words = [f"run={run}", "episodes=4", "video=1", "search.num_simulations=3"]
    done = runs.wait(runs.start("ez_jax.evaluate", *words))
    assert (done.returncode, done.stderr) == (exits.DONE, "")
    scores = evaluated_last(run)
    assert scores["episodes"] == len(scores["returns"]) == 4
    assert scores["mean"] == np.mean(scores["returns"])
    assert scores["protocol"]["num_simulations"] == 3
    assert scores["agent_steps"] == runs.latest_checkpoint(run)
    assert f"return_mean      {scores['mean']:.4g}" in done.stdout
    assert f"evaluation at {scores['agent_steps']:,}: {scores['mean']:.1f}" in done.stdout
    (video,) = run.glob("videos/*.mp4")
    # One picture before every step of the first game, whose every step is worth 1.
    assert imageio_ffmpeg.count_frames_and_secs(str(video))[0] == scores["returns"][0]
    assert f"wrote {video}" in done.stdout


def test_the_weights_of_the_best_evaluation_can_be_evaluated_again(run, monkeypatch, capsys):
    lines = [line for line in read_metrics(run) if "eval/return_mean" in line]
    best = max(lines, key=lambda line: line["eval/return_mean"])  # the first of equal ones
    assert evaluated(monkeypatch, f"run={run}", "best=true") == exits.DONE
    scores = evaluated_last(run)
    assert (scores["agent_steps"], scores["updates"]) == (best["agent_steps"], best["updates"])
    assert scores["mean"] == best["eval/return_mean"]
    shutil.rmtree(run / "checkpoints" / "best")
    assert evaluated(monkeypatch, f"run={run}", "best=true") == exits.BAD_INPUT
    assert "has no best weights yet" in capsys.readouterr().err


def test_evaluation_of_the_last_checkpoint_gives_the_training_logs_number(run, monkeypatch):
    logged = read_metrics(run)[-1]["eval/return_mean"]
    before = json.loads((run / "scores.json").read_text())
    assert evaluated(monkeypatch, f"run={run}") == exits.DONE
    after = evaluated_last(run)
    assert after["mean"] == logged
    del after["time"]
    assert after | {"seconds": before["seconds"]} == before


def test_evaluations_leave_the_runs_own_scores_and_each_other_alone(run, monkeypatch):
    own = (run / "scores.json").read_bytes()
    for episodes in (1, 2):
        assert evaluated(monkeypatch, f"run={run}", f"episodes={episodes}") == exits.DONE
    assert (run / "scores.json").read_bytes() == own
    found = [json.loads(path.read_text()) for path in run_folder.evaluation_files(run)]
    assert [scores["episodes"] for scores in found] == [1, 2]
    record = collect.read_run(run, last=1, final="scores")
    assert (record.final, record.protocol["episodes"]) == (found[1]["mean"], 2)
    assert record.scores == json.loads(own)


@pytest.mark.long
def test_each_game_has_its_own_seed_however_many_run_side_by_side(agent):
    def returns(**changes):
        config = override(agent.config, {f"eval.{key}": value for key, value in changes.items()})
        return play.make_evaluate(config, agent.model)(agent.variables).returns.tolist()

    together = returns(episodes=5, num_envs=5)
    assert returns(episodes=5, num_envs=2) == together  # in three waves, the last one half empty
    assert returns(episodes=2, num_envs=2, seed=agent.config.eval.seed + 3) == together[3:]
    assert len(set(together)) > 1, "games from different seeds differ"


@pytest.mark.long
def test_the_same_games_are_played_with_several_numbers_of_simulations(
    run, agent, monkeypatch, capsys
):
    before = (run / "scores.json").read_bytes()
    assert evaluated(monkeypatch, f"run={run}", "simulations=3,1") == exits.DONE
    found = json.loads((run / "scores_by_simulations.json").read_text())
    assert [row["num_simulations"] for row in found["rows"]] == [1, 3]
    config = override(agent.config, {"eval.num_simulations": 3})
    games = play.make_evaluate(config, agent.model)(agent.variables)
    assert found["rows"][1]["returns"] == games.returns.tolist()
    assert found["rows"][1]["mean"] == games.returns.mean()
    assert found["agent_steps"] == agent.clocks.agent_steps
    assert "num_simulations" not in found["protocol"]
    assert re.search(rf"^ +3 +{found['rows'][1]['mean']:.4g} ", capsys.readouterr().out, re.M)
    assert (run / "scores.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which run? write run=DIR"),
        (["run=/nowhere/at/all"], "is not a run folder"),
        (["run={run}", "learner.batch_size=8"], "learner.batch_size belongs to the training run"),
        (["run={run}", "env.frame_stack=3"], "fixed by the training of these weights"),
        (["run={run}", "env.image_size=48"], "fixed by the training of these weights"),
        (["run={run}", "env.grayscale=true"], "fixed by the training of these weights"),
        (["run={run}", "env.max_episode_steps=9"], "write env.eval_max_episode_steps"),
        (["run={run}", "env.reward_clip=false"], "affects training only"),
        (["run={run}", "search.gumbel_scale=0"], "affects training only"),
        (["run={run}", "video=-1"], "video is -1"),
        (["run={run}", "episodes=-1"], "episodes is -1"),
        (["run={run}", "epsodes=8"], "did you mean episodes"),
        (["run={run}", "eval.num_envs=0"], "eval.num_envs"),
        (["run={run}", "simulations=1,0"], "write whole numbers"),
        (["run={run}", "simulations=99999999"], "at most 65,536"),
        (["run={run}", "simulations=1", "video=1"], "leave out video="),
    ],
)
def test_bad_input_is_refused_in_one_sentence(finished, monkeypatch, capsys, words, message):
    before = runs.contents(finished.folder)
    words = [word.format(run=finished.folder) for word in words]
    assert evaluated(monkeypatch, *words) == exits.BAD_INPUT
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert runs.contents(finished.folder) == before


def test_a_run_without_a_checkpoint_is_refused(run, monkeypatch, capsys):
    shutil.rmtree(run / "checkpoints")
    assert evaluated(monkeypatch, f"run={run}") == exits.BAD_INPUT
    assert "has no checkpoint yet" in capsys.readouterr().err


# The agent in somebody else's code.


def test_a_loaded_agent_plays_a_whole_gymnasium_episode(finished):
    agent, env = ez_jax.load(finished.folder), gymnasium.make("CartPole-v1")
    observation, ended = env.reset(seed=0)[0], False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
        ended = terminated or truncated
    assert reward == 1
    np.testing.assert_allclose(agent.found.policy.sum(), 1, rtol=1e-5)


def test_acting_is_deterministic_and_takes_any_number_of_simulations(agent):
    observation = np.array([0.1, -0.2, 0.05, 0.3], np.float32)
    first = agent.act(observation)
    policy = agent.found.policy
    agent.reset()
    assert agent.act(observation) == first
    np.testing.assert_array_equal(agent.found.policy, policy)
    assert agent.act(observation, num_simulations=5) in (0, 1)
    assert np.any(agent.found.policy != policy), "more simulations find another policy"


@pytest.mark.parametrize("observation", [np.zeros(3), np.zeros((4, 1)), 0.0])
def test_an_observation_of_another_shape_is_refused_with_both_shapes(agent, observation):
    with pytest.raises(ez_jax.BadInput, match=r"shape \(4,\), but this one is") as caught:
        agent.act(observation)
    assert str(np.shape(observation)) in str(caught.value)


def test_noise_is_a_protocol_of_its_own_and_leaves_the_runs_own_scores(run, monkeypatch, capsys):
    before = (run / "scores.json").read_bytes()
    assert evaluated(monkeypatch, f"run={run}", "eval.epsilon=0.5") == exits.DONE
    assert (run / "scores.json").read_bytes() == before
    noisy = json.loads(run_folder.evaluation_files(run)[-1].read_text())
    assert noisy["protocol"]["epsilon"] == 0.5
    assert noisy["protocol_name"] == "no sticky actions, epsilon 0.5"
    assert noisy["returns"] != json.loads(before)["returns"]
    record = collect.read_run(run, last=1, final="scores")
    assert (record.final, len(record.evaluated)) == (json.loads(before)["mean"], 1)
    told = capsys.readouterr().out
    assert "another protocol than the run's own: epsilon=0.5" in told
    assert f"({noisy['episodes']} episodes, {noisy['distinct']} distinct)" in told


@pytest.mark.long
def test_scores_of_another_protocol_are_told_as_such(run, monkeypatch, capsys):
    words = [f"run={run}", "env.sticky_actions=0.25", "eval.episodes=2"]
    assert evaluated(monkeypatch, *words) == exits.DONE
    told = capsys.readouterr().out
    assert "another protocol than the run's own: sticky_actions=0.25" in told


@pytest.mark.long
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_a_game_is_the_same_alone_and_among_others(agent, epsilon):
    def games(**changes):
        changes = {"eval.epsilon": epsilon} | {f"eval.{k}": v for k, v in changes.items()}
        return play.make_evaluate(override(agent.config, changes), agent.model)(agent.variables)

    together, alone = games(episodes=4, num_envs=20), games(episodes=4, num_envs=1)
    np.testing.assert_array_equal(together.returns, alone.returns)
    np.testing.assert_array_equal(together.digests, alone.digests)
    assert together.distinct == len(set(together.digests.tolist())) > 1


def test_evaluations_during_training_are_cut_earlier(agent):
    config = override(agent.config, {"eval.max_episode_steps": 5, "eval.episodes": 2})
    evaluate_games = play.make_evaluate(config, agent.model)
    during = evaluate_games(agent.variables, is_final=False)
    final = evaluate_games(agent.variables)
    assert (during.limit, during.lengths.max()) == (5, 5)
    assert final.limit == agent.config.env.eval_max_episode_steps == 30
    assert final.lengths.max() > 5


def test_a_game_that_the_weights_do_not_fit_is_refused(agent, monkeypatch):
    other = dataclasses.replace(agent.spec, observation_shape=(5,))
    monkeypatch.setattr(agent, "spec", other)
    assert trained_agent.changed(agent, {"env.frame_skip": agent.config.env.frame_skip})
    with pytest.raises(BadInput, match=r"observations \(4,\) and 2 actions, but the weights are"):
        trained_agent.changed(agent, {"env.noop_max": 7})


def test_simulations_that_are_asked_for_win_over_those_of_the_run(agent, monkeypatch):
    own = override(agent.config, {"eval.num_simulations": 3})
    monkeypatch.setattr(agent, "config", own)
    chosen = trained_agent.changed(agent, {"search.num_simulations": 5})
    assert eval_simulations(chosen, 2) == 5
