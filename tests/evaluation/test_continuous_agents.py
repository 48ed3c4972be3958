"""What an agent chooses reaches games with continuous actions as these take it."""

import dataclasses
from types import SimpleNamespace

import envpool
import gymnasium
import numpy as np
import pytest
import toy_envs  # noqa: F401 registers its games

import ez_jax
from ez_jax.config import BadInput
from ez_jax.envs import make_env
from ez_jax.evaluation.trained_agent import changed
from ez_jax.structs import Clocks

CHOSEN = np.array([[-1, 1, 0, 0.5], [1, -1, 1, -1], [0, 0, 0, 0]], np.float32)


def agent_of(game):
    """An agent that always chooses `CHOSEN`, without a search."""
    config = ez_jax.make_config(game)
    env = make_env(config.game, config.env, num_envs=1, seed=0, training=False)
    env.close()
    agent = ez_jax.Agent(
        *(config, env.spec, {}, Clocks()), encoder=env.encoder, actions=env.actions
    )

    def choose(variables, playing, step):
        number = len(step.observation)
        return SimpleNamespace(action=CHOSEN[:number, : env.spec.action_size]), playing

    agent._policy = lambda num_simulations: choose
    return agent


def test_an_action_has_the_games_own_range_shape_and_type():
    agent, env = agent_of("gym:ToySteering-v0"), gymnasium.make("ToySteering-v0")
    observation, _ = env.reset()
    action = agent.act(observation)
    assert env.action_space.contains(action)
    np.testing.assert_allclose(action, [[-1, 0.3], [3.5, -2.775]])
    assert env.step(action)[0][0] == -1
    agent.reset()
    together = agent.act(np.stack([observation] * 3))
    assert (together.shape, together.dtype) == ((3, 2, 2), np.float64)
    assert all(env.action_space.contains(one) for one in together)
    np.testing.assert_array_equal(together[0], action)


def test_a_single_number_is_an_array_without_axes():
    agent, env = agent_of("gym:ToyDial-v0"), gymnasium.make("ToyDial-v0")
    action = agent.act(env.reset()[0])
    assert (np.shape(action), action) == ((), -2)
    env.step(action)


def test_parts_of_observations_of_the_suite_are_taken_as_envpool_gives_them():
    agent = agent_of("FingerSpin")
    env = envpool.make_gymnasium("FingerSpin-v1", num_envs=2, seed=0)
    action = agent.act(env.reset()[0])
    assert (action.shape, action.dtype) == ((2, 2), np.float64)
    env.step(action)


def test_weights_for_other_actions_are_refused():
    agent = agent_of("ReacherEasy")
    agent.spec = dataclasses.replace(agent.spec, action_size=3)
    with pytest.raises(BadInput, match=r"actions of 2 numbers, but the weights are for .* of 3"):
        changed(agent, {"env.eval_max_episode_steps": 9})
