"""The whole of it learns: games with a known best return, through the training command's code."""

import json

import pytest

from ez_jax import cli, presets
from ez_jax.metrics import read_metrics
from ez_jax.train import train

CUE = {
    "total_agent_steps": 800,
    "updates_per_step": 0.5,
    "learner.start": 200,
    "learner.batch_size": 32,
    "learner.learning_rate": 0.01,
    "learner.warmup_updates": 10,
    "learner.unroll_steps": 2,
    "targets.td_steps": 3,
    "search.num_simulations": 6,
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
    """Scores and metrics of a run from start to end."""
    changes = {"run_dir": str(folder), "log.tensorboard": False, **changes}
    assert train(presets.make_config(game, changes=changes)) == cli.DONE
    return json.loads((folder / "scores.json").read_text()), read_metrics(folder)


def test_where_the_observation_names_the_right_action_every_game_is_won(tmp_path):
    scores, lines = learn(tmp_path, "toy_envs:ToyCue-v0", **CUE)
    assert scores["mean"] > 4.8, "a random player gets 5/3 of 5"
