"""Continuous actions reach the game in its own units; what is no action is refused with a fix."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import toy_envs  # noqa: F401 registers its games
from gymnasium import spaces

from ez_jax import envs
from ez_jax.config import BadInput, EnvConfig
from ez_jax.envs.actions import make_actions

PLAIN = replace(EnvConfig(), episodic_life=False, reward_clip=False, frame_skip=1, noop_max=0)
LOW, HIGH = np.array([[-1, 0], [2, -3]]), np.array([[1, 0.3], [5, -2.7]])
STEERING = "gym:ToySteering-v0"


def test_a_finite_set_is_numbered_from_zero():
    actions = make_actions(spaces.Discrete(3, start=5), "Game")
    assert actions[:2] == (3, 0)
    np.testing.assert_array_equal(actions.to_game(np.array([0, 2], np.int32)), [5, 7])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("of", [np, jnp])
def test_the_bounds_are_reached_exactly_and_the_middle_is_halfway(of, dtype):
    low, high = LOW.astype(dtype), HIGH.astype(dtype)
    actions = make_actions(spaces.Box(low, high, dtype=dtype), "Game")
    assert actions[:2] == (0, 4)
    ends = of.asarray(np.array([[-1] * 4, [0] * 4, [1] * 4], np.float32))
    first, middle, last = np.asarray(actions.to_game(ends))
    exact = np.float32 if of is jnp else dtype
    np.testing.assert_array_equal(first, low.astype(exact))
    np.testing.assert_array_equal(last, high.astype(exact))
    np.testing.assert_allclose(middle, (low + high) / 2, rtol=1e-6)
    assert first.dtype == exact


def test_no_action_leaves_the_bounds():
    space = spaces.Box(LOW.astype(np.float32), HIGH.astype(np.float32))
    actions = make_actions(space, "Game")
    chosen = np.random.default_rng(0).uniform(-1.5, 1.5, (2_000, 4)).astype(np.float32)
    taken = actions.to_game(chosen)
    assert all(space.contains(one) for one in taken)
    inside = np.abs(chosen) <= 1
    expected = LOW.reshape(4) + (chosen + 1) / 2 * (HIGH - LOW).reshape(4)
    np.testing.assert_allclose(taken.reshape(-1, 4)[inside], expected[inside], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(taken, actions.to_game(np.clip(chosen, -1, 1)))


def test_a_game_gets_its_own_units_shape_and_type():
    env = envs.make_env(STEERING, PLAIN, num_envs=2, seed=0, training=True)
    assert (env.spec.num_actions, env.spec.action_size, env.spec.action_shape) == (0, 4, (4,))
    env.reset()
    step = env.step(np.array([[-1] * 4, [1, -1, 0, 1]], np.float32))
    np.testing.assert_array_equal(step.observation[0], LOW.reshape(4).astype(np.float32))
    np.testing.assert_allclose(step.observation[1], [1, 0, 3.5, -2.7], rtol=1e-6)


def test_a_single_number_without_axes_is_an_action_of_one_number():
    env = envs.make_env("gym:ToyDial-v0", PLAIN, num_envs=1, seed=0, training=True)
    env.reset()
    assert env.spec.action_size == 1
    assert env.step(np.ones((1, 1), np.float32)).score == [1]


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Box(-1, 1, (2,), np.int32), "whole numbers: declare a Box of floats"),
        (spaces.Box(-np.inf, 1, (2,)), "without usable bounds: declare those that the game needs"),
        (spaces.Box(-3e38, 3e38, (2,)), "without usable bounds"),
        (spaces.Box(np.zeros(2), np.array([1, 0])), "number [1] has a single value: leave that"),
        (spaces.Box(-1, 1, (2, 0)), "have no numbers"),
        (spaces.MultiDiscrete([2, 3]), "neither Discrete nor a Box: list the combinations"),
        (spaces.MultiBinary(2), "neither Discrete nor a Box: list the combinations"),
        (spaces.Dict(a=spaces.Discrete(2)), "neither Discrete nor a Box: list the combinations"),
        (spaces.Tuple([spaces.Box(-1, 1)]), "neither Discrete nor a Box: list the combinations"),
        (spaces.Text(3), "neither Discrete nor a Box: list the combinations"),
    ],
)
def test_what_is_no_action_is_refused_in_a_sentence_with_its_fix(space, sentence):
    with pytest.raises(BadInput) as caught:
        make_actions(space, "Game-v0")
    assert sentence in str(caught.value)
    assert "'Game-v0' has actions" in str(caught.value)
