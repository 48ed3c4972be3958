"""Random play in real games, for the tests of environments."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ez_jax import envs
from ez_jax.config import EnvConfig

ATARI = EnvConfig()
SMALL = replace(ATARI, image_size=24)  # quicker, where the picture does not matter
PLAIN = replace(ATARI, episodic_life=False, reward_clip=False, max_episode_steps=10_000)
TOY = "toy_envs:Toy"


def drawn(env, draw):
    """Random actions, one for each environment."""
    if env.spec.is_continuous:
        return draw.uniform(-1, 1, (env.num_envs, env.spec.action_size)).astype(np.float32)
    return draw.integers(0, env.spec.num_actions, env.num_envs)


def play(game, config=SMALL, *, steps, num_envs=1, **options):
    """The specification and the time steps of random play, the one of `reset` first."""
    options = {"seed": 0, "training": True} | options
    env = envs.make_env(game, config, num_envs=num_envs, **options)
    draw = np.random.default_rng(0)
    rows = [env.reset()]
    for _ in range(steps):
        rows.append(env.step(drawn(env, draw)))
    env.close()
    return env.spec, rows


def column(rows, field):
    """One field over time: [T, N, ...]."""
    return np.stack([getattr(row, field) for row in rows])


def lost_lives(row):
    return row.is_last & ~row.game_over


def until(env, condition, *, limit=2_000) -> Iterator:
    """Time steps of random play in one environment up to the first where the condition holds."""
    draw = np.random.default_rng(0)
    for _ in range(limit):
        row = env.step(drawn(env, draw))
        yield row
        if condition(row):
            return
    pytest.fail("it never happened")
