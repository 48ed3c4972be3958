"""What every environment promises, checked on real games; and the traps of envpool, one by one."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import envpool
import numpy as np
import pytest
from tiny import make_spec

from ez_jax import envs
from ez_jax.config import BadInput, EnvConfig, games
from ez_jax.config.errors import Fault
from ez_jax.envs.action_names import action_names
from ez_jax.evaluation import scores

ATARI = EnvConfig()
SMALL = replace(ATARI, image_size=24)  # quicker, where the picture does not matter
PLAIN = replace(ATARI, episodic_life=False, reward_clip=False, max_episode_steps=10_000)
TOY = "toy_envs:Toy"
EVERY_KIND = {
    "Breakout": replace(SMALL, max_episode_steps=150),
    "Pong": replace(SMALL, max_episode_steps=40),
    "CartPole": PLAIN,
    "Catch": PLAIN,
    "LunarLander": PLAIN,
    "MiniGrid-Empty-5x5-v0": PLAIN,
    "gym:CartPole-v1": PLAIN,
    "gymnax:CartPole": replace(PLAIN, max_episode_steps=30),
    "Breakout-MinAtar": PLAIN,
    f"{TOY}Counter-v0": PLAIN,
    f"{TOY}Truncated-v0": PLAIN,
    "CartpoleSwingup": replace(PLAIN, frame_skip=2, max_episode_steps=120),
    "HalfCheetah-v4": replace(PLAIN, max_episode_steps=120),
    "Pendulum": PLAIN,
    "LunarLanderContinuous": PLAIN,
    "gym:Pendulum-v1": PLAIN,
    "gymnax:Pendulum": PLAIN,
    f"{TOY}Steering-v0": PLAIN,
}


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


# --- every environment


@pytest.mark.parametrize("game", EVERY_KIND)
def test_time_steps_have_the_promised_shapes_and_types(game):
    spec, rows = play(game, EVERY_KIND[game], steps=3, num_envs=3)

    for row in rows:
        assert row.observation.shape == (3, *spec.observation_shape)
        assert row.observation.dtype == spec.observation_dtype
        assert {row.reward.dtype, row.score.dtype, row.discount.dtype} == {np.dtype(np.float32)}
        assert {row.is_first.dtype, row.is_last.dtype, row.game_over.dtype} == {np.dtype(bool)}
        assert row.reward.shape == row.is_last.shape == (3,)
    assert spec.is_image == (spec.observation_dtype == np.uint8)


@pytest.mark.parametrize("game", EVERY_KIND)
def test_an_episode_ends_with_its_final_observation_and_the_next_action_is_swallowed(game):
    _, rows = play(game, EVERY_KIND[game], steps=260, num_envs=2)
    first, last = column(rows, "is_first"), column(rows, "is_last")

    assert first[0].all()
    assert last.any(), "the test has to see an episode end"
    np.testing.assert_array_equal(first[1:], last[:-1])
    for field, neutral in (("reward", 0), ("score", 0), ("discount", 1), ("is_last", 0)):
        np.testing.assert_array_equal(column(rows, field)[first], neutral)
    assert (column(rows, "discount")[~last] == 1).all()
    assert last[column(rows, "game_over")].all()


@pytest.mark.parametrize("game", EVERY_KIND)
def test_executed_actions_are_the_rows_that_are_not_first(game):
    _, rows = play(game, EVERY_KIND[game], steps=260, num_envs=1)
    first, last = column(rows, "is_first")[:, 0], column(rows, "is_last")[:, 0]

    starts, ends = np.flatnonzero(first), np.flatnonzero(last)
    lengths = ends - starts[: len(ends)]
    unfinished = len(rows) - 1 - starts[-1] if len(starts) > len(ends) else 0
    assert (~first).sum() == lengths.sum() + unfinished


@pytest.mark.parametrize("game", EVERY_KIND)
def test_equal_seeds_and_actions_give_equal_time_steps(game):
    _, once = play(game, EVERY_KIND[game], steps=120, num_envs=3, seed=7)
    _, again = play(game, EVERY_KIND[game], steps=120, num_envs=3, seed=7)

    for a, b in zip(once, again, strict=True):
        for field in ("observation", "reward", "score", "discount", "is_first", "game_over"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.parametrize(
    "game",
    [
        *("Qbert", "CartPole", "gymnax:CartPole", "LunarLander", f"{TOY}Starts-v0"),
        *("CartpoleSwingup", "HalfCheetah", "Pendulum", "gym:Pendulum", "gymnax:Pendulum"),
    ],
)
def test_environment_i_plays_from_seed_plus_i(game):
    _, together = play(game, replace(SMALL, max_episode_steps=60), steps=0, num_envs=4, seed=3)
    alone = [play(game, SMALL, steps=0, seed=3 + i)[1][0].observation[0] for i in range(4)]

    np.testing.assert_array_equal(together[0].observation, np.stack(alone))
    assert len({frame.tobytes() for frame in alone}) > 1


@pytest.mark.parametrize("game", ["CartPole", "Breakout", f"{TOY}Counter-v0"])
def test_rows_already_returned_are_not_written_to(game):
    env = envs.make_env(game, SMALL, num_envs=2, seed=0, training=True)
    rows = [env.reset(), *(env.step(np.ones(2, np.int32)) for _ in range(3))]
    kept = [row.observation.copy() for row in rows]

    for _ in range(20):
        env.step(np.zeros(2, np.int32))

    for row, frame in zip(rows, kept, strict=True):
        np.testing.assert_array_equal(row.observation, frame)


@pytest.mark.parametrize("game", ["CartPole", "gymnax:CartPole", f"{TOY}Counter-v0"])
def test_send_then_recv_is_a_step(game):
    split, whole = (envs.make_env(game, PLAIN, num_envs=2, seed=0, training=True) for _ in "ab")
    split.reset()
    whole.reset()

    for _ in range(30):
        split.send(np.array([0, 1]))
        received, stepped = split.recv(), whole.step(np.array([0, 1]))
        np.testing.assert_array_equal(received.observation, stepped.observation)


@pytest.mark.parametrize("game", ["CartPole", "Breakout", "gymnax:CartPole", f"{TOY}Counter-v0"])
def test_reset_in_the_midst_of_a_game_starts_a_new_one(game):
    env = envs.make_env(game, SMALL, num_envs=2, seed=0, training=True)
    env.reset()
    for _ in range(3):
        env.step(np.zeros(2, np.int32))

    assert env.reset().is_first.all()
    assert not env.step(np.zeros(2, np.int32)).is_first.any()


@pytest.mark.parametrize(
    "game", ["Catch", "Breakout", f"{TOY}Counter-v0", "gym:CartPole", "gymnax:CartPole"]
)
@pytest.mark.parametrize("training", [True, False])
def test_the_step_limit_truncates_and_is_its_own_for_evaluation(game, training):
    limit = 4 if training else 3
    config = replace(SMALL, max_episode_steps=4, eval_max_episode_steps=3)
    _, rows = play(game, config, steps=14, num_envs=2, training=training)

    last = column(rows, "is_last")
    assert (np.flatnonzero(last[:, 0]) % (limit + 1) == limit).all()
    assert last.sum() == 2 * (len(rows) // (limit + 1))
    assert column(rows, "game_over")[last].all()
    assert (column(rows, "discount")[last] == 1).all()


@pytest.mark.parametrize("game", ["CartPole", f"{TOY}Both-v0"])
def test_terminating_in_the_last_allowed_step_is_termination(game):
    _, rows = play(game, PLAIN, steps=40)
    length = int(np.flatnonzero(column(rows, "is_last")[:, 0])[0])

    _, rows = play(game, replace(PLAIN, max_episode_steps=length), steps=length)

    assert rows[-1].is_last[0]
    assert rows[-1].discount[0] == 0


# --- Atari through envpool


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


# --- other observations and actions


def test_catch_is_an_image_of_0_and_255():
    spec, rows = play("Catch", PLAIN, steps=3)

    assert spec.observation_shape == (10, 5, 1)
    frames = column(rows, "observation")
    assert set(np.unique(frames)) == {0, 255}
    np.testing.assert_array_equal((frames == 255).sum(axis=(2, 3, 4)), 2)  # ball and paddle


def test_minigrid_codes_are_spread_over_the_range_of_a_byte():
    spec, rows = play("MiniGrid-Empty-5x5-v0", PLAIN, steps=60, num_envs=4)

    assert spec.observation_shape == (7, 7, 3)
    values = np.unique(column(rows, "observation"))
    assert (values % 25 == 0).all()
    assert values.max() == 200  # the goal, object 8


def test_a_category_is_one_hot():
    _, rows = play(f"{TOY}Code-v0", PLAIN, steps=3)

    np.testing.assert_array_equal(column(rows, "observation")[:, 0], np.eye(6)[:4])
    assert play("FrozenLake", PLAIN, steps=1)[0].observation_shape == (16,)


def test_an_array_that_is_no_picture_is_flattened_as_it_is():
    _, rows = play(f"{TOY}Table-v0", PLAIN, steps=3)

    np.testing.assert_array_equal(rows[3].observation, np.full((1, 6), 3, np.float32))


def test_pictures_of_gymnasium_pass_unchanged():
    spec, rows = play(f"{TOY}Camera-v0", PLAIN, steps=2, num_envs=2)

    assert spec.observation_shape == (12, 10, 3)
    np.testing.assert_array_equal(rows[2].observation, np.full((2, 12, 10, 3), 2, np.uint8))


def test_a_counter_shows_which_action_each_row_answers():
    _, rows = play(f"{TOY}Counter-v0", PLAIN, steps=12)

    np.testing.assert_array_equal(
        column(rows, "observation")[:, 0, 0], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0]
    )
    np.testing.assert_array_equal(column(rows, "score")[:7, 0], [0, 1, 2, 3, 4, 5, 0])
    np.testing.assert_array_equal(column(rows, "discount")[:7, 0], [1, 1, 1, 1, 1, 0, 1])


@pytest.mark.parametrize(("ending", "discount"), [("Counter", 0), ("Truncated", 1), ("Both", 0)])
def test_the_discount_is_0_only_where_the_episode_terminated(ending, discount):
    _, rows = play(f"{TOY}{ending}-v0", PLAIN, steps=5)

    assert rows[5].is_last[0]
    assert rows[5].discount[0] == discount


def test_rewards_of_any_game_are_clipped_if_the_configuration_says_so():
    _, rows = play(f"{TOY}Counter-v0", replace(PLAIN, reward_clip=True), steps=5)

    assert rows[4].reward[0] == 1
    assert rows[4].score[0] == 4


@pytest.mark.parametrize(
    ("game", "shape"),
    [
        ("CartPole", (400, 600, 3)),
        ("Catch", (160, 80, 3)),
        ("Breakout-MinAtar", (160, 160, 3)),
        (f"{TOY}Camera-v0", (168, 140, 3)),
        (f"{TOY}Drawn-v0", (8, 9, 3)),
    ],
)
def test_render_gives_pictures_even_where_the_game_draws_none(game, shape):
    env = envs.make_env(game, PLAIN, num_envs=2, seed=0, training=False)
    env.reset()

    frames = env.render()

    assert frames.shape == (2, *shape)
    assert frames.dtype == np.uint8


@pytest.mark.parametrize("game", ["FrozenLake", "gymnax:CartPole", f"{TOY}Counter-v0"])
def test_a_game_without_any_picture_says_so(game):
    env = envs.make_env(game, PLAIN, num_envs=1, seed=0, training=False)
    env.reset()

    with pytest.raises(RuntimeError, match="render"):
        env.render()


def test_a_fault_in_the_users_environment_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="own code") as caught:
        play(f"{TOY}Broken-v0", PLAIN, steps=1)

    assert caught.traceback[-1].path.name == "toy_envs.py"


@pytest.mark.parametrize(
    ("game", "reason"),
    [
        ("LqrLqr21", "without usable bounds: declare those"),
        (f"{TOY}Masked-v0", "action_mask'., but its actions are continuous: leave it out"),
        (f"{TOY}Missing-v0", "cannot be made: Tools are not installed, run `pip install x`"),
        (f"{TOY}ImageAndNumber-v0", "image, 'image' .* beside other parts"),
        (f"{TOY}PictureWraps-v0", "of 200 to 201, but the space is Box"),
        (f"{TOY}PictureCasts-v0", "float64.12, 10, 3. .* but the space is"),
        (f"{TOY}PictureTooLarge-v0", "of 200 to 455, but the space is"),
        (f"{TOY}OldReset-v0", "as Gymnasium's interface asks .*ez_jax.doctor env="),
        ("ConnectFour", "several players"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_reason(game, reason):
    with pytest.raises(BadInput, match=reason):
        envs.make_env(game, PLAIN, num_envs=1, seed=0, training=True)


@pytest.mark.parametrize(
    ("fault", "kind", "sentence"),
    [
        ("Shape", Fault, "at step 3 returned from step.. an observation that is .*, but the space"),
        ("Complex", Fault, "at step 3 .* complex"),
        ("None", Fault, "at step 3 .* ndarray of object"),
        ("Reward", Fault, "at step 3 returned from step.. the reward None, not a number"),
        ("Old", BadInput, "ez_jax.doctor env="),
        ("Mask", Fault, "in one call and not in another"),
    ],
)
def test_what_a_game_returns_otherwise_than_declared_is_told_in_a_sentence(fault, kind, sentence):
    with pytest.raises(kind, match=sentence) as caught:
        play(f"{TOY}Late{fault}-v0", PLAIN, steps=4)

    assert "\n" not in str(caught.value)


def test_what_info_holds_cannot_hurt():
    _, rows = play(f"{TOY}Infos-v0", PLAIN, steps=8, num_envs=3)

    np.testing.assert_array_equal(column(rows, "score")[:6, 2], [0, 1, 2, 3, 4, 5])


def test_a_game_that_takes_no_render_mode_is_asked_for_no_pictures():
    for training in (True, False):
        play(f"{TOY}NoMode-v0", PLAIN, steps=1, training=training)


@pytest.mark.parametrize("game", ["Parts", "Tuple"])
def test_parts_that_are_vectors_are_joined_in_the_order_of_the_space(game):
    spec, rows = play(f"{TOY}{game}-v0", PLAIN, steps=2)

    assert spec.observation_shape == (11,)
    inner, m, z = [0, 0, 1, 2], [0, 1, 0, 0, 1], [0, 1]
    parts = (inner, m, z) if game == "Parts" else (z, inner, m)  # Gymnasium sorts a dictionary
    np.testing.assert_array_equal(rows[2].observation[0], np.concatenate(parts))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("First", (64, 48, 3), lambda x: x.reshape(3, 64, 48).transpose(1, 2, 0)),
        ("ManyFirst", (84, 84, 12), lambda x: x.reshape(12, 84, 84).transpose(1, 2, 0)),
        ("SmallFirst", (12, 12, 4), lambda x: x.reshape(4, 12, 12).transpose(1, 2, 0)),
        ("Stack", (12, 12, 12), lambda x: np.concatenate(x.reshape(4, 12, 12, 3), axis=-1)),
        (
            "StackFirst",
            (20, 24, 6),
            lambda x: np.concatenate(x.reshape(2, 3, 20, 24).transpose(0, 2, 3, 1), axis=-1),
        ),
        ("Float255", (12, 10, 3), lambda x: x.reshape(12, 10, 3)),
        ("Integers", (12, 10, 3), lambda x: x.reshape(12, 10, 3)),
        ("Unit", (12, 10, 3), lambda x: x.reshape(12, 10, 3) % 2 * 255),
        ("Board", (3, 7, 7), lambda x: x.reshape(3, 7, 7) % 2 * 255),
    ],
)
def test_pictures_of_every_layout_and_range_become_bytes_with_channels_last(name, shape, expected):
    spec, rows = play(f"{TOY}Picture{name}-v0", PLAIN, steps=1)

    assert (spec.observation_shape, spec.observation_dtype) == (shape, np.uint8)
    seen = rows[1].observation[0]
    assert seen.flags.c_contiguous
    np.testing.assert_array_equal(seen, expected(np.arange(seen.size) % 256))


# --- names


@pytest.mark.parametrize(
    ("game", "backend", "task_id"),
    [
        ("Breakout", "envpool", "Breakout-v5"),
        ("breakout", "envpool", "Breakout-v5"),
        ("ms_pacman", "envpool", "MsPacman-v5"),
        ("ALE/Pong-v5", "envpool", "Pong-v5"),
        ("PongNoFrameskip-v4", "envpool", "Pong-v5"),
        ("Tetris", "envpool", "Tetris-v5"),
        ("CartPole", "envpool", "CartPole-v1"),
        ("CartPole-v0", "envpool", "CartPole-v0"),
        ("lunarlander", "envpool", "LunarLander-v3"),
        ("Catch", "envpool", "Catch-v0"),
        ("MiniGrid-Empty-5x5-v0", "envpool", "MiniGrid-Empty-5x5-v0"),
        ("gym:CartPole", "gymnasium", "CartPole-v1"),
        ("gymnasium:CartPole-v0", "gymnasium", "CartPole-v0"),
        ("CliffWalking-v1", "envpool", "CliffWalking-v1"),
        ("breakout-minatar", "gymnax", "Breakout-MinAtar"),
        ("Catch-bsuite", "gymnax", "Catch-bsuite"),
        ("gymnax:cartpole", "gymnax", "CartPole-v1"),
        ("gymnax:Freeway-MinAtar", "gymnax", "Freeway-MinAtar"),
        (f"{TOY}Counter-v0", "gymnasium", "ToyCounter-v0"),
        (f"gym:{TOY}Counter", "gymnasium", "ToyCounter-v0"),
        ("ToyCounter-v0", "gymnasium", "ToyCounter-v0"),
    ],
)
def test_names_are_found(game, backend, task_id):
    import toy_envs  # noqa: F401 the last name needs it registered

    task = games.find_task(game)

    assert (task.backend, task.task_id) == (backend, task_id)
    assert games.find_task(task.name) == replace(task, game=task.name)


@pytest.mark.parametrize(
    ("game", "backend", "words"),
    [
        ("breakot", "auto", "unknown game 'breakot'; did you mean Breakout"),
        ("LunarLandr", "auto", "did you mean LunarLander"),
        ("gym:CartPol-v1", "auto", "did you mean CartPole"),
        ("zzzzzzzz", "auto", "write a name such as Breakout"),
        ("", "auto", "write a name such as Breakout"),
        ("no_such_package:My-v0", "auto", "cannot import 'no_such_package'"),
        ("gym:Breakout", "auto", "env.backend=auto or envpool"),
        ("Breakout", "gymnasium", "env.backend=auto or envpool"),
        ("gym:CartPole", "envpool", "env.backend=auto or gymnasium"),
        ("gymnax:CartPole", "envpool", "env.backend=auto or gymnax"),
        ("Breakot-MinAtar", "auto", "did you mean Breakout-MinAtar"),
        ("CartpoleSwingap", "auto", "did you mean CartpoleSwingup"),
        ("HalfCheeta", "auto", "did you mean HalfCheetah"),
        ("gymnax:Pendulun", "auto", "did you mean Pendulum"),
        ("CartPole", "jax", "must be auto, envpool, gymnasium or gymnax"),
    ],
)
def test_a_bad_name_is_answered_with_what_mends_it(game, backend, words):
    with pytest.raises(BadInput) as caught:
        games.find_task(game, backend)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_missing_inside_the_users_package_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        games.find_task("half_there:My-v0")


def test_every_listed_game_leads_back_to_itself():
    listed = games.list_games()

    assert listed["Atari-100k"] == games.ATARI_100K
    assert {"CartPole", "Acrobot", "MountainCar"} <= set(listed["Classic control"])
    assert {"Pendulum", "MountainCarContinuous"} <= set(listed["Classic control"])
    assert {"LunarLander", "LunarLanderContinuous", "CarRacing"} <= set(listed["Box2D"])
    assert {"CartpoleSwingup", "WalkerWalk"} <= set(listed["DM Control"])
    assert "HalfCheetah" in listed["MuJoCo"]
    for name in (name for family in listed.values() for name in family):
        assert games.find_task(name).name == name


def test_atari_is_known_by_any_spelling():
    assert all(games.is_atari(game) for game in (*games.ATARI_100K, "ALE/Pong-v5", "ms_pacman"))
    assert not any(games.is_atari(game) for game in ("CartPole", "Catch", "xyz", "gym:CartPole"))


def test_a_name_for_gymnasium_is_resolved_without_importing_envpool():
    program = (
        "import sys; from ez_jax.config import games; games.find_task('gym:CartPole');"
        "sys.exit('envpool' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- scores


def test_random_play_scores_0_and_the_human_1():
    assert tuple(scores.RANDOM_AND_HUMAN) == games.ATARI_100K
    for game, (random, human) in scores.RANDOM_AND_HUMAN.items():
        assert scores.human_normalised(game, random) == 0
        assert scores.human_normalised(f"{game.lower()}-v5", human) == 1
    assert scores.human_normalised("Breakout", 414.1) == pytest.approx(14.319, abs=1e-3)


def test_games_without_a_human_score_have_none():
    assert scores.human_normalised("CartPole", 500) is None


# What the actions are called, and lives.


@pytest.mark.parametrize(
    ("game", "names"),
    [
        ("Breakout", ("noop", "fire", "right", "left")),
        ("CartPole", ("left", "right")),
        ("Breakout-MinAtar", ("none", "left", "right")),
        ("Catch-bsuite", ("left", "stay", "right")),
        (f"{TOY}Counter-v0", ("0", "1")),
        ("ReacherEasy", ("a0", "a1")),
    ],
)
def test_actions_are_called_by_their_names_or_numbers(game, names):
    env = envs.make_env(game, replace(SMALL, noop_max=1), num_envs=1, seed=0, training=False)
    assert env.action_names() == names
    assert env.lives().tolist() == [0]
    env.close()


@pytest.mark.long
def test_every_atari_game_has_a_name_for_every_action():
    ids = [task_id for task_id, family in games._envpool_ids().items() if "atari" in family]
    for task_id in ids:
        space = envpool.make_spec(task_id, full_action_space=False).action_space
        spec = make_spec(84, 84, 3, actions=int(space.n))
        named = action_names(replace(spec, backend="envpool", task_id=task_id))
        assert len(set(named)) == space.n
        assert not any(name.isdigit() for name in named), task_id


def test_lives_are_counted_where_they_do_not_end_episodes():
    env = envs.make_env("Breakout", SMALL, num_envs=1, seed=0, training=False)
    env.reset()
    assert env.lives().tolist() == [5]
    for _ in until(env, lambda row: row.is_last[0] or env.lives()[0] < 5):
        pass
    assert env.lives().tolist() == [4]
    env.close()
