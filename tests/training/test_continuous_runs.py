"""Runs with continuous actions, from start to end: learned, resumed, evaluated and used."""

import gymnasium
import jax
import numpy as np
import pytest
import runs
from test_learning import CUE, learn

import ez_jax
from ez_jax.system import exits
from ez_jax.terminal.progress import Progress
from ez_jax.train import train
from ez_jax.training.run import Run
from ez_jax.training.vmapped import train_together

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compiling")]

SETTINGS = {
    "search.root_candidates": 4,
    "search.max_considered_actions": 4,
    "network.scale_observations": True,
    "network.lstm_width": 0,
    "value_prefix": False,
    "loss.entropy": 0.05,
}


def config(folder, game, **changes):
    return runs.config(folder, {**SETTINGS, **changes}, game)


@pytest.mark.parametrize("game", ["Pendulum", "ReacherEasy"])
@pytest.mark.parametrize("mode", ["buffer", "batch", "none"])
def test_what_was_executed_and_is_learned_are_candidates(tmp_path, game, mode):
    assert train(config(tmp_path, game, **{"reanalyse.mode": mode})) == exits.DONE
    with Run(config(tmp_path, game, **{"reanalyse.mode": mode}), Progress(live=False)) as run:
        rows, spec = jax.device_get(run.state.replay.rows), run.games.spec
    written = rows.policy.sum(axis=-1) > 0
    assert rows.action.shape[2:] == (spec.action_size,)
    assert (np.abs(rows.action) <= 1).all()
    np.testing.assert_allclose(rows.policy[written].sum(axis=-1), 1, rtol=1e-5)
    assert len(np.unique(rows.candidates[written].reshape(-1, spec.action_size), axis=0)) > 100
    if mode == "none":  # those that the actor chose from are still there
        among = (rows.candidates == rows.action[..., None, :]).all(axis=-1).any(axis=-1)
        assert among[written].all()
    if mode != "none" and spec.action_size > 1:
        is_winner = np.isin(rows.policy, (0, 1)).all(axis=-1)
        assert is_winner[written & (rows.searched > 0)].all()


def test_a_stopped_run_goes_on_with_its_candidates_and_games(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(config(whole, "Pendulum")) == exits.DONE
    half = config(halves, "Pendulum")
    runs.train_until(half, 90)
    assert train(half) == exits.DONE
    runs.assert_same_end(whole, halves)


def test_a_trained_agent_acts_in_the_units_of_the_game(tmp_path):
    assert train(config(tmp_path, "Pendulum")) == exits.DONE
    agent, env = ez_jax.load(tmp_path), gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        action = agent.act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    assert ez_jax.play(tmp_path).returns.shape == (1,)


def test_two_seeds_of_a_game_on_the_device_share_a_program(tmp_path):
    pair = [config(tmp_path / name, "gymnax:Pendulum", seed=i) for i, name in enumerate("ab")]
    assert train_together(pair) == exits.DONE
    actions = []
    for one in pair:
        agent = ez_jax.load(one.run_dir)
        actions.append(agent.act(np.array([1.0, 0.0, 0.0], np.float32)))
    assert (actions[0] != actions[1]).any()


@pytest.mark.parametrize("game", ["ToyAim", "ToyAimLine"])
def test_the_best_action_is_learned(tmp_path, game):
    changes = {
        **CUE,
        **SETTINGS,
        "total_agent_steps": 1_500,
        "search.num_simulations": 16,
        "search.root_candidates": 16,
        "search.max_considered_actions": 16,
        "search.gumbel_scale": 0.0,
        "network.prefix_bin": 0.1,
        "network.value_bin": 0.5,
    }
    scores = learn(tmp_path, f"toy_envs:{game}-v0", **changes)
    assert scores["mean"] >= 3.6, "a random player gets 1.9 of 5"
