"""Games that come back by being told the same actions again."""

import numpy as np
import pytest
import toy_envs  # noqa: F401 registers

from ez_jax.config import EnvConfig
from ez_jax.envs import make_env
from ez_jax.training.games import RepeatableGames


def make_games(game, num_envs=2, **settings):
    config = EnvConfig(**settings)
    return RepeatableGames(
        lambda seed: make_env(game, config, num_envs=num_envs, seed=seed, training=True)
    )


def play(games, step, calls, rng):
    for _ in range(calls):
        spec, number = games.spec, games.num_envs
        if spec.is_continuous:
            games.send(rng.uniform(-1, 1, (number, spec.action_size)).astype(np.float32))
        else:
            games.send(rng.integers(0, spec.num_actions, number))
        step = games.recv()
    return step


def assert_same(one, other):
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


SMALL = {"image_size": 24, "grayscale": True}


@pytest.mark.parametrize(
    ("game", "settings"),
    [
        ("CartPole", {}),
        ("LunarLander", {"max_episode_steps": 40}),
        ("Breakout", {**SMALL, "max_episode_steps": 30}),
        ("Seaquest", {**SMALL, "sticky_actions": 0.25}),
        ("CartPole", {"sticky_actions": 0.25}),
        ("gym:CartPole", {"sticky_actions": 0.25}),
        ("gymnax:CartPole", {"sticky_actions": 0.25}),
        ("gym:ToyStarts-v0", {}),
        ("CartpoleSwingup", {"frame_skip": 2, "max_episode_steps": 30}),
        ("HalfCheetah", {"max_episode_steps": 40, "sticky_actions": 0.25}),
        ("Pendulum", {"max_episode_steps": 40}),
        ("gym:Pendulum", {"max_episode_steps": 40, "sticky_actions": 0.25}),
        ("gymnax:Pendulum", {"max_episode_steps": 40, "sticky_actions": 0.25}),
    ],
)
def test_games_go_on_as_if_nothing_had_happened(game, settings):
    rng = np.random.default_rng(0)
    games = make_games(game, **settings)
    step = play(games, games.begin(), 100, rng)
    saved, reported = games.save(), games.take_finished()
    later = make_games(game, **settings)
    assert_same(later.bring_back(saved), step)
    assert later.take_finished() == reported
    expected = play(games, step, 60, np.random.default_rng(1))
    assert_same(play(later, step, 60, np.random.default_rng(1)), expected)
    assert later.take_finished() == games.take_finished()
    assert later.save().checksum == games.save().checksum
    games.close()
    later.close()


def test_a_game_that_goes_another_way_is_noticed_and_new_games_begin():
    games = make_games("gym:ToyUnsteady-v0")
    play(games, games.begin(), 20, np.random.default_rng(0))
    saved = games.save()
    later = make_games("gym:ToyUnsteady-v0")
    assert later.bring_back(saved) is None
    assert later.begin_anew(77).is_first.all()
    assert later.save().made_at == 77
    assert later.take_finished() == []


def test_games_that_began_anew_come_back_from_there():
    rng = np.random.default_rng(0)
    games = make_games("gym:ToyStarts-v0")
    first = games.begin()
    step = play(games, games.begin_anew(5), 7, rng)
    later = make_games("gym:ToyStarts-v0")
    assert_same(later.bring_back(games.save()), step)
    assert np.any(first.observation != games.begin_anew(9).observation)


def test_the_actions_take_a_byte_each_and_no_line_of_scores_is_told_twice():
    games = make_games("CartPole", num_envs=3)
    step = play(games, games.begin(), 50, np.random.default_rng(0))
    told = games.take_finished()
    assert len(told) > 0
    play(games, step, 40, np.random.default_rng(1))
    saved = games.save()
    assert (saved.actions.shape, saved.actions.dtype) == ((90, 3), np.uint8)
    later = make_games("CartPole", num_envs=3)
    later.bring_back(saved)
    assert later.take_finished() == games.take_finished() != told


def test_actions_of_several_numbers_are_kept_exactly_and_one_changed_bit_is_noticed():
    games = make_games("gym:ToySteering-v0", num_envs=3)
    play(games, games.begin(), 20, np.random.default_rng(0))
    saved = games.save()
    assert (saved.actions.shape, saved.actions.dtype) == ((20, 3, 4), np.float32)
    expected = np.random.default_rng(0).uniform(-1, 1, (20, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(saved.actions, expected)
    new = games.save_new(7)
    assert (new.actions.shape, new.actions.dtype) == ((0, 3, 4), np.float32)
    assert make_games("gym:ToySteering-v0", num_envs=3).bring_back(saved) is not None
    changed = saved.actions.copy()
    changed[7, 1, 0] = np.nextafter(changed[7, 1, 0], 2, dtype=np.float32)
    other = make_games("gym:ToySteering-v0", num_envs=3)
    assert other.bring_back(saved._replace(actions=changed)) is None
