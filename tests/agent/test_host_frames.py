"""Frames of the replay in host memory against those of a replay on the device."""

import functools
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_replay import ENVS, STACK, TD, UNROLL, as_row, play

from ez_jax.agent.replay import ring
from ez_jax.agent.replay.host_frames import HostFrames
from ez_jax.structs import Batch, Replay

pytestmark = pytest.mark.usefixtures("quick_compiling")

SPEC, ROWS, SPARE = tiny.make_spec(1, stack=STACK), 24, 3

add = jax.jit(ring.add)


@pytest.fixture
def frames():
    """An empty ring on the host."""
    made = HostFrames(SPEC, rows=ROWS, num_envs=ENVS)
    yield made
    made.close()


@functools.partial(jax.jit, static_argnames="spare")
def draw(replay: Replay, seed: int, spare: int = SPARE) -> Batch:
    return ring.draw(
        replay,
        jax.random.key(seed),
        batch_size=8,
        unroll_steps=UNROLL,
        td_steps=TD,
        frame_stack=STACK,
        priority_exponent=0.6,
        importance_exponent=0.4,
        spare=spare,
    )


def histories(length: int, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [play(rng, length) for _ in range(ENVS)]


@pytest.mark.parametrize("length", [12, ROWS, ROWS + 1, 3 * ROWS + 5])
def test_batches_are_those_of_a_replay_on_the_device(frames, length):
    whole = ring.init_replay(SPEC, rows=ROWS, num_envs=ENVS)
    bare = ring.init_replay(SPEC, rows=ROWS, num_envs=ENVS, has_frames=False)
    for moments in zip(*histories(length), strict=True):
        row = as_row(list(moments))
        whole, bare = add(whole, row), add(bare, row)
        frames.add(row.observation)
    assert bare.rows.observation is None
    for seed in range(3):
        expected = ring.with_frames(whole, draw(whole, seed))
        drawn = draw(bare, seed)
        found = drawn.replace(observation=frames.fetch(drawn).result())
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("length", [ROWS - SPARE, ROWS - 1, ROWS, 2 * ROWS + 5])
def test_what_was_drawn_ahead_is_not_overwritten_by_the_rows_that_are_spared(length):
    every = histories(length + SPARE)
    replay = ring.init_replay(SPEC, rows=ROWS, num_envs=ENVS)
    rows = [as_row(list(moments)) for moments in zip(*every, strict=True)]
    for row in rows[:length]:
        replay = add(replay, row)
    drawn = [draw(replay, seed) for seed in range(20)]
    before = [ring.with_frames(replay, batch).observation for batch in drawn]
    for row in rows[length:]:
        replay = add(replay, row)
    after = [ring.with_frames(replay, batch).observation for batch in drawn]
    np.testing.assert_array_equal(before, after)


def test_without_spared_rows_some_would_be_overwritten():
    every = histories(2 * ROWS + SPARE)
    replay = ring.init_replay(SPEC, rows=ROWS, num_envs=ENVS)
    rows = [as_row(list(moments)) for moments in zip(*every, strict=True)]
    for row in rows[: 2 * ROWS]:
        replay = add(replay, row)
    drawn = [draw(replay, seed, spare=0) for seed in range(20)]
    before = np.array([ring.with_frames(replay, batch).observation for batch in drawn])
    for row in rows[2 * ROWS :]:
        replay = add(replay, row)
    assert np.any(before != [ring.with_frames(replay, batch).observation for batch in drawn])


def test_rows_are_taken_and_put_back_by_their_number(frames):
    values = np.arange(2 * ROWS * ENVS, dtype=np.float32).reshape(-1, ENVS, 1)
    for row in values[: ROWS + 5]:
        frames.add(row)
    np.testing.assert_array_equal(frames.rows(10, ROWS - 5), values[10 : ROWS + 5])
    other = HostFrames(SPEC, rows=ROWS, num_envs=ENVS)
    for first in (5, 15):
        other.put(frames.rows(first, 10), first)
    assert other.count == 25
    np.testing.assert_array_equal(other.rows(5, 20), values[5:25])
    other.close()


def test_what_is_kept_is_a_copy(frames):
    row = np.ones((ENVS, 1), np.float32)
    frames.add(row)
    row[:] = 2  # environments may use their buffer again
    taken = frames.rows(0, 1)
    frames.ring[:] = 3
    np.testing.assert_array_equal(taken, np.ones((1, ENVS, 1)))


def test_a_fault_of_the_thread_is_raised_with_its_own_traceback(frames):
    batch = Batch(**dict.fromkeys(Batch.__dataclass_fields__))
    beyond = batch.replace(row=jnp.full((2, 4), ROWS), index=jnp.zeros(2, jnp.int32))
    with pytest.raises(IndexError) as raised:
        frames.fetch(beyond).result()
    assert "_gather" in "".join(traceback.format_exception(raised.value))
    sound = batch.replace(row=jnp.zeros((2, 4), jnp.int32), index=jnp.zeros(2, jnp.int32))
    assert frames.fetch(sound).result().shape == (2, 4, 1)
