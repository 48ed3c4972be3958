"""The DeepMind Control suite as in the papers: parts in order, two frames a step, 500 steps."""

import os
import subprocess
import sys
from dataclasses import replace

import envpool
import numpy as np
import pytest

from ez_jax import envs
from ez_jax.config import games, presets
from ez_jax.config.families import name_and_family
from ez_jax.envs.dm_control import own_parts

CONFIG = presets.make_config("CartpoleSwingup").env
TASKS = (
    *("CartpoleSwingup", "CheetahRun", "WalkerWalk", "ReacherEasy", "FingerSpin"),
    *("BallInCupCatch", "PendulumSwingup"),
)


def make(task, config=CONFIG, **options):
    options = {"num_envs": 2, "seed": 3, "training": True} | options
    return envs.make_env(task, config, **options)


def chosen(env, steps):
    draw = np.random.default_rng(0)
    return draw.uniform(-1, 1, (steps, env.num_envs, env.spec.action_size)).astype(np.float32)


def raw(task):
    return envpool.make_gymnasium(f"{task}-v1", num_envs=2, seed=[3, 4])


def joined(parts, names):
    return np.concatenate([parts[name].reshape(2, -1) for name in names], 1).astype(np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_a_step_is_two_frames_of_the_suite_and_their_rewards(task):
    env, frames = make(task), raw(task)
    env.reset(), frames.reset()
    total = 0
    for action in chosen(env, 30):
        step = env.step(action)
        own = action.astype(np.float64)  # bounds are -1 and 1
        first, last = frames.step(own)[1], frames.step(own)
        np.testing.assert_array_equal(step.score, (first + last[1]).astype(np.float32))
        names = env.encoder.space.spaces
        np.testing.assert_array_equal(step.observation, joined(last[0], names))
        total += step.score.sum()
    assert total > 0 or task in ("FingerSpin", "BallInCupCatch", "PendulumSwingup")
    assert env.spec.frame_skip == 2


def test_the_parts_are_joined_in_the_order_of_the_suite_and_nothing_else_is_seen():
    env, frames = make("FingerSpin"), raw("FingerSpin")
    parts, info = frames.reset()
    names = ["position", "velocity", "touch"]
    assert list(env.encoder.space.spaces) == names
    np.testing.assert_array_equal(env.reset().observation, joined(parts, names))
    assert env.spec.observation_shape == (9,)
    assert {"env_id", "elapsed_step"} <= info.keys()


@pytest.mark.parametrize("frame_skip", [1, 2, 3])
def test_an_episode_has_a_thousand_frames_and_is_truncated(frame_skip):
    config = replace(CONFIG, frame_skip=frame_skip, max_episode_steps=10_000)
    env = make("PendulumSwingup", config)
    rows, length = [env.reset()], -(-1_000 // frame_skip)
    rows += [env.step(action) for action in chosen(env, length + 2)]
    last = [row.is_last.tolist() for row in rows]
    assert last == [[t == length] * 2 for t in range(length + 3)]
    assert rows[length].game_over.all()
    assert all((row.discount == 1).all() for row in rows)
    assert rows[length + 1].is_first.all()
    assert (rows[length + 1].score == 0).all()
    assert (rows[length + 1].observation != rows[0].observation).any()  # the next episode
    assert env.max_episode_steps == length


def test_the_limit_is_in_agent_steps():
    env = make("CartpoleSwingup", replace(CONFIG, max_episode_steps=7))
    env.reset()
    rows = [env.step(action) for action in chosen(env, 7)]
    assert [row.is_last.all() for row in rows] == [False] * 6 + [True]
    assert (rows[-1].discount == 1).all()


def test_names_lead_to_the_suite_and_its_settings():
    for name in ("CartpoleSwingup", "cartpoleswingup", "CartpoleSwingup-v1", "cartpole_swingup"):
        assert games.find_task(name).task_id == "CartpoleSwingup-v1"
        assert name_and_family(name) == ("CartpoleSwingup", "dm_control")
    config = presets.make_config("cheetahrun")
    assert (config.env.frame_skip, config.env.max_episode_steps) == (2, 500)
    assert config.discount == 0.997**2
    assert not config.env.reward_clip
    assert config.env.noop_max == 0


@pytest.mark.parametrize(
    ("name", "task_id", "family"),
    [
        ("pendulum", "Pendulum-v1", "continuous"),
        ("gymnax:Pendulum", "Pendulum-v1", "continuous"),
        ("halfcheetah", "HalfCheetah-v5", "continuous"),
        ("HalfCheetah-v4", "HalfCheetah-v4", "continuous"),
        ("LunarLanderContinuous", "LunarLanderContinuous-v3", "continuous"),
        ("gym:Pendulum", "Pendulum-v1", "other"),
        ("Breakout", "Breakout-v5", "atari"),
        ("CartPole", "CartPole-v1", "control"),
    ],
)
def test_games_with_continuous_actions_have_their_own_settings(name, task_id, family):
    assert games.find_task(name).task_id == task_id
    assert name_and_family(name)[1] == family


@pytest.mark.long
def test_parts_are_left_out_exactly_where_they_are_zeros():
    suite = [task_id for task_id in games._envpool_ids() if games.is_dm_control_id(task_id)]
    assert len(suite) > 40
    for task_id in suite:
        env = envpool.make_gymnasium(task_id, num_envs=1, seed=0)
        seen = [env.reset()[0]]
        draw, bound = np.random.default_rng(0), np.minimum(env.action_space.high, 1)
        seen += [env.step(draw.uniform(-bound, bound)[None])[0] for _ in range(40)]
        zeros = {name for name in seen[0] if not any(parts[name].any() for parts in seen)}
        kept = own_parts(env.observation_space, task_id).spaces
        assert zeros - {"touch"} == env.observation_space.spaces.keys() - kept.keys(), task_id


_DRAW = """
import numpy as np
from ez_jax import envs
from ez_jax.config import opengl, presets
config = presets.make_config("WalkerWalk").env
env = envs.make_env("WalkerWalk", config, num_envs=2, seed=0, training=False)
env.reset()
try:
    before = env.render()
    env.step(np.ones((2, 6), np.float32))
    after = env.render()
    following = env._env._env.render(env_ids=np.arange(2), camera_id=0)
    print(before.dtype, before.ndim, before.shape[-1], (before != after).any(), end=" ")
    print((after == following).all())
except RuntimeError as error:
    print(error)
"""


@pytest.mark.long
def test_a_machine_that_can_draw_does_and_another_says_what_is_missing(tmp_path):
    for variables in ({}, {"__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)}):
        done = subprocess.run(
            [sys.executable, "-c", _DRAW],
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
            check=True,
        )
        said = done.stdout.strip().splitlines()[-1]
        is_drawn = said == "uint8 4 3 True True"
        assert is_drawn or ("MuJoCo" in said and "libegl1" in said), said
        assert not (is_drawn and variables)
