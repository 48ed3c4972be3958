"""What every environment promises, checked on real games."""

from dataclasses import replace

import numpy as np
import pytest
from played import PLAIN, SMALL, TOY, column, play

from ez_jax import envs

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
