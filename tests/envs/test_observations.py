"""Observations, pictures and rewards of all kinds, and what cannot be played."""

from dataclasses import replace

import numpy as np
import pytest
from played import PLAIN, TOY, column, play

from ez_jax import envs
from ez_jax.config import BadInput
from ez_jax.config.errors import Fault


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
