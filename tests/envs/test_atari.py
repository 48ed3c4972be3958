"""Atari through envpool, and envpool's traps, one by one."""

from dataclasses import replace

import numpy as np
import pytest
from played import ATARI, SMALL, column, lost_lives, play, until

from ez_jax import envs
from ez_jax.config import BadInput, games


def test_the_published_frames_are_96_by_96_rgb_channels_last():
    spec, rows = play("Breakout", ATARI, steps=1)

    assert spec.observation_shape == (96, 96, 3)
    assert (spec.num_actions, spec.frame_skip, spec.frame_stack) == (4, 4, 4)
    top = rows[0].observation[0, 28:32, 20:70]  # the red row of bricks
    assert top[..., 0].mean() > 2 * top[..., 2].mean()


def test_grayscale_has_one_channel():
    spec, _ = play("Pong", replace(SMALL, grayscale=True), steps=1)

    assert spec.observation_shape == (24, 24, 1)


def test_frames_are_area_averages_of_the_screen():
    env = envs.make_env("Pong", replace(ATARI, image_size=10), num_envs=1, seed=0, training=True)
    frame = env.reset().observation[0].astype(float)
    screen = env.render()[0].astype(float)  # 210 x 160, 21 x 16 pixels for each of ours

    # The frame is the maximum over two raw frames, so at most moving things differ.
    averages = screen.reshape(10, 21, 10, 16, 3).mean(axis=(1, 3))
    assert np.mean(np.abs(averages - frame) <= 1) > 0.9


@pytest.mark.long
def test_all_games_of_atari_100k_step():
    for game in games.ATARI_100K:
        spec, rows = play(game, steps=2)

        assert spec.observation_shape == (24, 24, 3), game
        assert 3 <= spec.num_actions <= 18, game
        assert not rows[-1].is_first.any(), game


def test_a_lost_life_ends_the_episode_in_training_but_not_the_game():
    env = envs.make_env("Breakout", SMALL, num_envs=1, seed=0, training=True)
    env.reset()

    end = list(until(env, lambda row: row.is_last[0]))[-1]

    assert end.discount[0] == 0
    assert not end.game_over[0]


def test_after_a_lost_life_nothing_is_played_until_the_next_chosen_action():
    env = envs.make_env("Breakout", SMALL, num_envs=1, seed=0, training=True)
    env.reset()
    end = list(until(env, lost_lives))[-1]
    screen = env.render()

    start = env.step(np.array([1]))

    assert start.is_first[0]
    np.testing.assert_array_equal(start.observation, end.observation)
    np.testing.assert_array_equal(env.render(), screen)


def test_lives_change_how_a_game_is_cut_but_not_how_it_goes():
    whole = envs.make_env("Breakout", SMALL, num_envs=1, seed=0, training=False)
    lives = envs.make_env("Breakout", SMALL, num_envs=1, seed=0, training=True)
    rows, row = [whole.reset()], lives.reset()

    for t in range(400):
        rows.append(whole.step(np.array([t % 4])))
        row = lives.step(np.array([t % 4]))
        if row.is_first[0] and not rows[-1].is_first[0]:
            row = lives.step(np.array([t % 4]))
        np.testing.assert_array_equal(row.observation, rows[-1].observation)
        np.testing.assert_array_equal(row.score, rows[-1].score)
        np.testing.assert_array_equal(row.game_over, rows[-1].game_over)

    assert column(rows, "game_over").any()


def test_environments_that_did_not_lose_a_life_go_on_meanwhile():
    _, rows = play("Breakout", steps=300, num_envs=3)
    draws = np.random.default_rng(0).integers(0, 4, (300, 3))
    env = envs.make_env("Breakout", SMALL, num_envs=1, seed=1, training=True)
    alone = [env.reset(), *(env.step(action[1:2]) for action in draws)]

    assert column(rows, "is_first")[1:].any(axis=0).all()
    np.testing.assert_array_equal(
        column(rows, "observation")[:, 1], column(alone, "observation")[:, 0]
    )


def test_in_evaluation_lives_do_not_count_and_rewards_are_raw():
    _, rows = play("Breakout", steps=300, num_envs=2, training=False)

    np.testing.assert_array_equal(column(rows, "is_last"), column(rows, "game_over"))
    np.testing.assert_array_equal(column(rows, "reward"), column(rows, "score"))


def test_training_rewards_are_signs_and_scores_are_raw():
    _, rows = play("Qbert", steps=200, num_envs=2)
    reward, score = column(rows, "reward"), column(rows, "score")

    np.testing.assert_array_equal(reward, np.sign(score))
    assert score.max() == 25


def test_the_limit_counts_agent_steps_of_the_whole_game_not_of_a_life():
    config = replace(SMALL, max_episode_steps=60)
    _, rows = play("Breakout", config, steps=600, num_envs=2)

    for i in range(2):
        first, over = column(rows, "is_first")[:, i], column(rows, "game_over")[:, i]
        steps = np.cumsum(~first)[np.flatnonzero(over)]
        np.testing.assert_array_equal(np.diff(steps, prepend=0), 60)
    assert (column(rows, "is_last") & ~column(rows, "game_over")).any()


def test_truncation_restarts_the_game_and_a_lost_life_does_not():
    env = envs.make_env(
        "Breakout", replace(SMALL, max_episode_steps=200), num_envs=1, seed=0, training=True
    )
    start = env.reset().observation
    end = list(until(env, lambda row: row.game_over[0]))[-1]
    assert (end.observation != start).mean() > 0.01

    fresh = env.step(np.array([0]))

    assert fresh.is_first[0]
    assert end.discount[0] == 1
    assert (fresh.observation != start).mean() < 0.01


def test_repeated_actions_are_off_by_default_and_on_by_request():
    def screens(config, seed):
        return column(play("Pong", config, steps=40, seed=seed)[1], "observation")

    config = replace(SMALL, noop_max=1)  # the seed then has nothing else to decide
    np.testing.assert_array_equal(screens(config, 0), screens(config, 1))
    sticky = replace(config, sticky_actions=0.25)
    assert (screens(sticky, 0) != screens(sticky, 1)).any()


def test_a_noop_max_that_would_kill_the_process_is_refused():
    with pytest.raises(BadInput, match="noop_max"):
        play("Pong", replace(SMALL, noop_max=0), steps=0)


def test_atari_renders_the_full_screen():
    env = envs.make_env("Pong", SMALL, num_envs=2, seed=0, training=False)
    env.reset()

    frames = env.render()

    assert frames.shape == (2, 210, 160, 3)
    assert frames.dtype == np.uint8


def test_lives_are_counted_where_they_do_not_end_episodes():
    env = envs.make_env("Breakout", SMALL, num_envs=1, seed=0, training=False)
    env.reset()
    assert env.lives().tolist() == [5]
    for _ in until(env, lambda row: row.is_last[0] or env.lives()[0] < 5):
        pass
    assert env.lives().tolist() == [4]
    env.close()
