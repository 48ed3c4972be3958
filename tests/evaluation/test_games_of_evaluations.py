"""What is told of the games of an evaluation: how many differ, where they end, their protocol."""

import jax.numpy as jnp
import numpy as np
import pytest

from ez_jax.config.presets import make_config
from ez_jax.evaluation.play import digested
from ez_jax.evaluation.scores import (
    Games,
    protocol,
    protocol_name,
    scores,
    summary,
    while_training,
)
from ez_jax.training.vmapped_program import _digested


def digests(actions, rewards):
    """Of games [T, N]."""
    digest = np.zeros(np.shape(actions)[1], np.uint64)
    for action, reward in zip(np.int32(actions), np.float32(rewards), strict=True):
        digest = digested(digest, action, reward)
    return digest.tolist()


def test_games_are_the_same_where_all_actions_and_rewards_are():
    actions = [[1, 1, 2, 1, 0], [2, 2, 1, 2, 3]]
    rewards = [[0, 0, 0, 0, 0], [1, 1, 1, -1, 1]]
    same, too, swapped, other_reward, other = digests(actions, rewards)
    assert same == too
    assert len({same, swapped, other_reward, other}) == 4


@pytest.mark.parametrize("update", [digested, _digested])
def test_games_with_continuous_actions_differ_by_any_number(update):
    same = [[0.5, -1.0], [0.25, 0.0]]
    games = [same, same, [[0.5, -1.0], [0.25, 1e-7]], [[-1.0, 0.5], [0.25, 0.0]], same]
    rewards = [[0, 1], [0, 1], [0, 1], [0, 1], [0, 2]]
    digest = np.zeros(5, np.uint64 if update is digested else np.uint32)
    for t in range(2):
        action, reward = (np.float32([of[t] for of in told]) for told in (games, rewards))
        of = np if update is digested else jnp
        digest = update(digest, of.asarray(action), of.asarray(reward))
    first, too, *others = digest.tolist()
    assert first == too
    assert len({first, *others}) == 4


def test_long_games_without_rewards_differ_by_their_length():
    nothing = [digests([[0]] * t, [[0.0]] * t)[0] for t in range(1, 200)]
    assert len(set(nothing)) == 199


def test_distinct_games_and_the_real_limit_are_recorded():
    config = make_config("Breakout")
    games = Games(
        returns=np.array([6.0, 7.0, 7.0]),
        lengths=np.array([10, 11, 11]),
        digests=np.array([1, 2, 2], np.uint64),
        limit=3_000,
    )
    told, metrics = scores(config, 4, games), summary(config, games)
    assert (told["episodes"], told["distinct"]) == (3, 2)
    assert told["limit"] == {"agent_steps": 3_000, "env_frames": 12_000}
    assert told["protocol"]["max_episode_steps"] == 3_000
    assert (metrics["eval/distinct"], metrics["eval/max_episode_steps"]) == (2, 3_000)


@pytest.mark.parametrize(
    ("game", "during", "final"),
    [("Breakout", 3_000, 27_000), ("Breakout-MinAtar", 10_000, 10_000), ("CartPole", 500, 500)],
)
def test_only_atari_is_cut_earlier_while_training(game, during, final):
    config = make_config(game)
    assert config.env.eval_max_episode_steps == final
    assert while_training(config).env.eval_max_episode_steps == during
    assert while_training(while_training(config)) == while_training(config)


def test_a_run_is_never_cut_later_while_training():
    config = make_config("Pong", changes={"env.eval_max_episode_steps": 100})
    assert while_training(config).env.eval_max_episode_steps == 100


def test_protocols_have_names():
    noisy = make_config("Breakout-MinAtar", changes={"eval.epsilon": 0.05})
    assert protocol_name(noisy) == "sticky actions 0.1, epsilon 0.05"
    assert protocol_name(make_config("Breakout-MinAtar")) == "sticky actions 0.1"
    assert protocol_name(make_config("Breakout-MinAtar", protocol="no_sticky")) == (
        "no sticky actions"
    )
    quiet = make_config("Breakout-MinAtar")
    assert protocol(noisy) == protocol(quiet) | {"epsilon": 0.05}
