"""Sticky actions: what is executed, from which draws, and the same in every company."""

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tiny

from ez_jax import envs
from ez_jax.config import EnvConfig
from ez_jax.config.presets import make_config
from ez_jax.envs.actions import Actions
from ez_jax.envs.gymnax_adapter import DeviceGame, game_keys, make_game
from ez_jax.envs.sticky import StickyActions, uniform

PLAIN = replace(EnvConfig(), episodic_life=False, reward_clip=False, frame_skip=1, noop_max=0)
ALWAYS = replace(PLAIN, sticky_actions=1.0)
NOWHERE = np.zeros(3, bool)


def executed(probability, chosen, is_first=None, seeds=(5, 6, 7)):
    sticky = StickyActions(probability, np.array(seeds))
    is_first = np.zeros(np.shape(chosen), bool) if is_first is None else is_first
    return np.stack([sticky(*row) for row in zip(chosen, is_first, strict=True)])


def test_nothing_sticks_by_default_and_everything_with_probability_one():
    chosen = np.array([[1, 2, 3], [3, 2, 1]])
    np.testing.assert_array_equal(executed(0.0, chosen), chosen)
    np.testing.assert_array_equal(executed(1.0, chosen), 0)


def test_what_sticks_is_the_action_executed_before_not_the_one_chosen():
    chosen = np.random.default_rng(0).integers(1, 100, (2_000, 3))
    did = executed(0.25, chosen)
    before = np.vstack([np.zeros(3, int), did[:-1]])
    sticks = did != chosen
    np.testing.assert_array_equal(did[sticks], before[sticks])
    assert 0.22 < sticks.mean() < 0.27  # 4 sd of 6,000 draws, less what sticks unseen


def test_an_episode_begins_with_action_zero():
    chosen, is_first = np.full((4, 1), 3), np.array([[False], [False], [True], [False]])
    sticky = StickyActions(1.0, np.array([0]))
    sticky._last[:] = 3
    did = [sticky(*row)[0] for row in zip(chosen, is_first, strict=True)]
    assert did == [3, 3, 3, 0]  # the third executes nothing


def test_vectors_stick_as_a_whole_and_an_episode_begins_with_zeros():
    chosen = np.random.default_rng(0).uniform(-1, 1, (400, 3, 2)).astype(np.float32)
    sticky = StickyActions(0.25, np.array([5, 6, 7]), (2,))
    did = np.stack([sticky(row, NOWHERE) for row in chosen])
    sticks = uniform(np.array([5, 6, 7]), 1) < 0.25
    np.testing.assert_array_equal(did[0], np.where(sticks[:, None], 0, chosen[0]))
    is_new = (did == chosen).all(axis=-1)
    before = np.concatenate([np.zeros((1, 3, 2), np.float32), did[:-1]])
    np.testing.assert_array_equal(did[~is_new], before[~is_new])
    assert did.dtype == np.float32
    assert 0.2 < (~is_new).mean() < 0.3
    always = StickyActions(1.0, np.array([5, 6, 7]), (2,))
    always._last = chosen[0]
    always(chosen[1], np.array([True, False, True]))
    expected = chosen[0] * np.array([0, 1, 0], np.float32)[:, None]
    np.testing.assert_array_equal(always(chosen[2], NOWHERE), expected)


def test_draws_follow_from_the_seed_of_the_game_and_the_step_alone():
    chosen = np.random.default_rng(1).integers(0, 9, (50, 3))
    together = executed(0.5, chosen)
    alone = executed(0.5, chosen[:, 1:2], seeds=(6,))
    np.testing.assert_array_equal(together[:, 1:2], alone)
    draws = np.stack([uniform(np.arange(1_000), count) for count in range(100)])
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.4
    assert len(np.unique(draws)) == draws.size


class Echo(NamedTuple):
    """A game of gymnax whose observation is the last action, and whose state counts steps."""

    def reset_env(self, key, params):
        del key, params
        return jax.numpy.int32(-1), jax.numpy.int32(0)

    def step_env(self, key, state, action, params):
        del key, params
        return action, state + 1, 0.0, state < 0, {}

    def is_truncated(self, state, params):
        return state >= params


class Plain(NamedTuple):
    """An encoder that changes nothing."""

    def encode(self, raw):
        return raw


def echoes(sticky, chosen, *, seed=0, num_envs=1, limit=9_999):
    """What N such games executed [T, N]."""
    actions = Actions(100, 0, None)
    echo = DeviceGame(
        tiny.make_spec(1, actions=100), Echo(), limit, Plain(), actions, False, sticky, limit
    )
    state, _ = jax.vmap(echo.reset)(game_keys(seed, num_envs))
    _, rows = jax.lax.scan(jax.vmap(echo.step), state, chosen)
    return np.array(rows.observation)


def test_games_on_the_device_stick_alike():
    chosen = np.random.default_rng(0).integers(1, 100, (1_500, 4)).astype(np.int32)
    did = echoes(0.25, chosen, num_envs=4)
    before = np.vstack([np.zeros(4, int), did[:-1]])
    sticks = did != chosen
    np.testing.assert_array_equal(did[sticks], before[sticks])
    assert 0.22 < sticks.mean() < 0.27
    np.testing.assert_array_equal(echoes(0.25, chosen[:, 2:3], seed=2), did[:, 2:3])


def test_on_the_device_an_episode_begins_with_action_zero_too():
    did = echoes(0.5, np.full((4_000, 1), 7, np.int32), limit=3)[:, 0].reshape(-1, 4)
    assert (did[:, 3] == -1).all()  # the call that begins an episode
    assert set(np.unique(did[:, 0])) == {0, 7}
    assert 0.45 < (did[:, 0] == 0).mean() < 0.55
    assert 0.20 < (did[:, 1] == 0).mean() < 0.30


@pytest.mark.parametrize("game", ["CartPole", "gym:CartPole", "gymnax:CartPole"])
def test_every_library_obeys(game):
    """Pushed to the left alone a pole falls within 12 steps, whatever was chosen."""
    env = envs.make_env(game, ALWAYS, num_envs=2, seed=0, training=True)
    env.reset()
    velocities = []
    for i in range(6):
        step = env.step(np.full(2, i % 2, np.int32))
        velocities.append(step.observation[:, 1])
    env.close()
    assert (np.diff(np.stack(velocities), axis=0) < 0).all()


@pytest.mark.parametrize("game", ["Pendulum", "gym:Pendulum", "gymnax:Pendulum"])
def test_every_library_repeats_vectors(game):
    """Where everything sticks, only the zeros of the start are executed."""
    pulled, let_go = (
        envs.make_env(game, config, num_envs=2, seed=0, training=True) for config in (ALWAYS, PLAIN)
    )
    pulled.reset(), let_go.reset()
    for _ in range(5):
        one = pulled.step(np.full((2, 1), 0.7, np.float32))
        other = let_go.step(np.zeros((2, 1), np.float32))
        np.testing.assert_array_equal(one.observation, other.observation)


def test_minatar_is_played_as_published_and_by_name_without():
    assert make_config("Breakout-MinAtar").env.sticky_actions == 0.1
    assert make_config("Breakout-MinAtar", protocol="no_sticky").env.sticky_actions == 0.0
    assert make_config("Breakout").env.sticky_actions == 0.0
    assert make_config("CartPole").env.sticky_actions == 0.0


@pytest.mark.parametrize(
    ("game", "limit"),
    [
        *((f"{name}-MinAtar", 10_000) for name in ("Breakout", "Asterix", "SpaceInvaders")),
        ("Seaquest-MinAtar", 10_000),
        ("Freeway-MinAtar", 2_501),  # the original's own
        ("gymnax:CartPole", 500),
    ],
)
def test_games_of_gymnax_end_where_the_original_does_or_where_configured(game, limit):
    config = replace(PLAIN, max_episode_steps=700, eval_max_episode_steps=10_000)
    task = envs.vector_env.find_task(game)
    assert make_game(task, config, training=False).limit == limit
    assert make_game(task, config, training=True).limit == min(700, limit)


@pytest.mark.parametrize(
    ("game", "limit"), [("CartPole", 500), ("gym:CartPole", 500), ("Catch", 10_000)]
)
def test_environments_know_where_they_really_end(game, limit):
    config = replace(PLAIN, eval_max_episode_steps=10_000)
    env = envs.make_env(game, config, num_envs=1, seed=0, training=False)
    env.close()
    assert env.max_episode_steps == limit
