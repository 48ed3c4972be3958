"""Games that say which actions are allowed: no other is ever executed, stored or learned."""

import jax
import numpy as np
import pytest
import runs
from test_learning import CUE, learn

import ez_jax
from ez_jax.envs import make_env
from ez_jax.evaluation.play import make_evaluate
from ez_jax.inspection.inspect_run import inspect_run
from ez_jax.system import exits
from ez_jax.terminal.progress import Progress
from ez_jax.train import train
from ez_jax.training.run import Run

GAME = "toy_envs:ToyBarred-v0"  # raises where an action is executed that it forbids


def test_a_mask_comes_with_every_time_step_and_allows_all_after_the_last():
    config = ez_jax.make_config(GAME).env
    env = make_env(GAME, config, num_envs=2, seed=0, training=True)
    assert env.spec.has_masks
    step = env.reset()
    for _ in range(12):
        assert step.legal.shape == (2, 4)
        np.testing.assert_array_equal(step.legal.sum(axis=1), np.where(step.is_last, 4, 2))
        step = env.step(step.legal.argmax(axis=1))


def test_a_sticky_action_is_executed_only_where_it_is_allowed():
    config = ez_jax.make_config(GAME, changes={"env.sticky_actions": 0.9}).env
    env = make_env(GAME, config, num_envs=3, seed=0, training=True)
    step = env.reset()
    for _ in range(30):
        step = env.step(step.legal.argmax(axis=1))


def test_a_game_without_masks_has_none_anywhere():
    env = make_env(
        "CartPole", ez_jax.make_config("CartPole").env, num_envs=1, seed=0, training=True
    )
    assert not env.spec.has_masks
    assert env.reset().legal is None


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiling")
@pytest.mark.parametrize("policy", ["gumbel", "puct", "puct_ez"])
@pytest.mark.parametrize("mode", ["buffer", "batch", "none"])
def test_only_what_is_allowed_is_executed_stored_and_aimed_at(tmp_path, policy, mode):
    changes = {"search.policy": policy, "reanalyse.mode": mode}
    config = runs.config(tmp_path, changes, game=GAME)
    assert train(config) == exits.DONE  # the game itself objects to every other action
    agent = ez_jax.load(tmp_path)
    with Run(config, Progress(live=False)) as run:
        rows = jax.device_get(run.state.replay.rows)
    written = rows.policy.sum(axis=-1) > 0
    chosen = np.take_along_axis(rows.legal, rows.action[..., None], axis=-1)[..., 0]
    assert chosen[written].all()
    assert (rows.legal[written].sum(axis=-1) == 2).any()
    np.testing.assert_allclose(rows.policy[~rows.legal], 0, atol=1e-6)
    games = make_evaluate(agent.config, agent.model)(agent.variables)
    assert games is not None
    assert (games.lengths == 5).all()
    assert inspect_run(tmp_path).is_file()


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiling")
def test_a_game_with_forbidden_actions_is_learned(tmp_path):
    scores = learn(tmp_path, GAME, **CUE)
    assert scores["mean"] >= 4.9, "a random player gets half of 5"


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiling")
def test_a_stopped_run_goes_on_with_the_masks_of_its_replay(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(runs.config(whole, game=GAME)) == exits.DONE
    config = runs.config(halves, game=GAME)
    runs.train_until(config, 90)
    assert train(config) == exits.DONE
    runs.assert_same_end(whole, halves)
