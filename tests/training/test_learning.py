"""The whole of it learns: games with a known best return, through the training command's code."""

import json

import pytest

from ez_jax.config import presets
from ez_jax.storage.metrics import read_metrics
from ez_jax.system import exits
from ez_jax.train import train

CUE = {
    "total_agent_steps": 600,
    "updates_per_step": 0.7,
    "learner.start": 100,
    "learner.batch_size": 64,
    "learner.learning_rate": 0.005,
    "learner.warmup_updates": 10,
    "learner.unroll_steps": 2,
    "targets.td_steps": 3,
    "search.num_simulations": 4,
    "network.vector_width": 32,
    "network.support": 6,
    "network.lstm_width": 16,
    "network.projection": 32,
    "network.predictor_hidden": 16,
    "actor.num_envs": 4,
    "eval.every": 0,
    "eval.episodes": 20,
}


def learn(folder, game, **changes):
    """The scores of a run from start to end."""
    changes = {"run_dir": str(folder), "log.tensorboard": False, **changes}
    assert train(presets.make_config(game, changes=changes)) == exits.DONE
    return json.loads((folder / "scores.json").read_text())


def best_evaluation(folder):
    """The highest mean return of the evaluations during a run."""
    return max(line.get("eval/return_mean", float("-inf")) for line in read_metrics(folder))


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiling")
def test_where_the_observation_names_the_right_action_every_game_is_won(tmp_path):
    scores = learn(tmp_path, "toy_envs:ToyCue-v0", **CUE)
    assert scores["mean"] >= 4.9, "a random player gets 5/3 of 5"


@pytest.mark.slow
def test_cartpole_is_balanced_within_ten_thousand_steps(tmp_path):
    scores = learn(tmp_path, "CartPole", total_agent_steps=10_000)
    assert scores["episodes"] >= 20
    assert best_evaluation(tmp_path) >= 475


@pytest.mark.slow
def test_catch_is_solved_from_its_pictures(tmp_path):
    learn(tmp_path, "Catch")
    assert best_evaluation(tmp_path) == 1
