"""The replay ring against a list that never forgets."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.replay import ring
from ez_jax.structs import Batch, Replay, Row

pytestmark = pytest.mark.usefixtures("quick_compiling")

ENVS, ROWS, STACK, UNROLL, TD = 2, 24, 3, 2, 2
BEHIND, AHEAD = STACK - 1, UNROLL + TD
SPEC = tiny.make_spec(1, stack=STACK)


class Moment(NamedTuple):
    """What one environment recorded at one time."""

    observation: float
    reward: float
    discount: float
    is_first: bool
    action: int
    value: float


def play(rng: np.random.Generator, length: int) -> list[Moment]:
    """Episodes of 1 to 8 steps that terminate, are truncated, or are interrupted on the way."""
    history: list[Moment] = []
    while len(history) < length:
        ending = rng.choice(["terminated", "truncated", "interrupted"])
        steps = rng.integers(1, 9)
        for t in range(steps + 1):
            is_final = t == steps
            if is_final and ending == "interrupted":
                break
            history.append(
                Moment(
                    observation=len(history),
                    reward=0.0 if t == 0 else rng.normal(),
                    discount=0.0 if is_final and ending == "terminated" else 1.0,
                    is_first=t == 0,
                    action=int(rng.integers(tiny.ACTIONS)),
                    value=rng.normal(),
                )
            )
    return history[:length]


def as_row(moments: list[Moment]) -> Row:
    fields = {name: np.array([getattr(m, name) for m in moments]) for name in Moment._fields}
    probabilities = np.stack([fields["action"] + k for k in range(tiny.ACTIONS)], axis=-1)
    return Row(
        observation=fields["observation"][:, None].astype(np.float32),
        reward=fields["reward"].astype(np.float32),
        discount=fields["discount"].astype(np.float32),
        is_first=fields["is_first"],
        action=fields["action"].astype(np.int32),
        policy=probabilities.astype(np.float32),
        value=fields["value"].astype(np.float32),
        searched=fields["action"].astype(np.int32) + 5,
    )


add = jax.jit(ring.add)


def fill(histories: list[list[Moment]], rows: int = ROWS) -> Replay:
    replay = ring.init_replay(SPEC, rows=rows, num_envs=len(histories))
    for moments in zip(*histories, strict=True):
        replay = add(replay, as_row(list(moments)))
    return replay


@functools.partial(jax.jit, static_argnames=("batch_size", "exponent"))
def sample(
    replay: Replay, seed, *, batch_size: int = 8, exponent: float = 0.6, importance=0.4
) -> Batch:
    drawn = ring.draw(
        replay,
        jax.random.key(seed),
        batch_size=batch_size,
        unroll_steps=UNROLL,
        td_steps=TD,
        frame_stack=STACK,
        priority_exponent=exponent,
        importance_exponent=importance,
    )
    return ring.with_frames(replay, drawn)


def candidates(histories: list[list[Moment]], rows: int = ROWS) -> set[tuple[int, int]]:
    """(time, env) of what may be sampled: known window, the action has a result."""
    length, found = len(histories[0]), set()
    oldest = max(0, length - rows)
    for env, history in enumerate(histories):
        for t in range(oldest + (BEHIND if oldest else 0), length - AHEAD):
            if not history[t + 1].is_first:
                found.add((t, env))
    return found


def window(history: list[Moment], t: int) -> dict[str, np.ndarray]:
    """The sequence around row t as `Batch` describes it, from the whole history."""
    begin = max(s for s in range(t + 1) if history[s].is_first)
    ends = [s for s in range(t + 1, t + AHEAD + 1) if history[s].is_first]
    last = min(ends) - 1 if ends else t + AHEAD
    at = lambda s: history[min(max(s, begin), last)]  # noqa: E731
    following = history[t + AHEAD + 1 : t + AHEAD + 2]  # none if it is yet to come
    is_over = at(last).discount == 0 or any(moment.is_first for moment in following)
    return {
        "observation": [[at(s).observation] for s in range(t - BEHIND, t + AHEAD + 1)],
        "action": [at(t + k).action for k in range(UNROLL)],
        "reward": [at(t + k + 1).reward for k in range(AHEAD)],
        "discount": [at(t + k).discount for k in range(AHEAD + 1)],
        "policy": [[at(t + k).action + a for a in range(tiny.ACTIONS)] for k in range(UNROLL + 1)],
        "value": [at(t + k).value for k in range(UNROLL + 1)],
        "searched": [at(t + k).action + 5 for k in range(UNROLL + 1)],
        "last": last - t,
        "goes_on": last == t + AHEAD and not is_over,
        "age": (len(history) - 1 - t) * ENVS,
    }


def where(index: np.ndarray, length: int, rows: int = ROWS) -> list[tuple[int, int]]:
    """(time, env) of flat positions after `length` rows were written."""
    newest = length - 1
    physical, env = np.divmod(index, ENVS)
    time = newest - (newest - physical) % rows
    return list(zip(time.tolist(), env.tolist(), strict=True))


@pytest.mark.parametrize("length", [12, ROWS, ROWS + 1, 31, 3 * ROWS + 5])
@pytest.mark.parametrize("seed", range(3))
def test_sampled_sequences_equal_those_of_the_whole_history(seed, length):
    rng = np.random.default_rng(seed)
    histories = [play(rng, length) for _ in range(ENVS)]
    replay = fill(histories)
    allowed = candidates(histories)
    size = min(8, len(allowed))

    batch = jax.device_get(sample(replay, seed, batch_size=size))

    drawn = where(batch.index, length)
    assert set(drawn) <= allowed
    assert len(set(drawn)) == size, "without replacement"
    for i, (t, env) in enumerate(drawn):
        for name, expected in window(histories[env], t).items():
            actual = getattr(batch, name)[i]
            np.testing.assert_allclose(actual, expected, rtol=1e-6, err_msg=f"{name} of {t}")


@pytest.mark.parametrize("length", [3, 12, ROWS, ROWS + 1, 31, 3 * ROWS + 5])
def test_exactly_the_rows_with_a_known_window_and_result_can_be_sampled(length):
    rng = np.random.default_rng(length)
    histories = [play(rng, length) for _ in range(ENVS)]
    allowed = jax.jit(functools.partial(ring.can_be_sampled, behind=BEHIND, ahead=AHEAD))(
        fill(histories)
    )
    positions = np.flatnonzero(np.asarray(allowed).reshape(-1))
    assert set(where(positions, length)) == candidates(histories)


def one_long_episode(length: int) -> list[Moment]:
    return [Moment(t, 1.0, 1.0, t == 0, 0, 0.0) for t in range(length)]


@pytest.fixture(scope="module")
def full() -> tuple[Replay, np.ndarray]:
    """A ring of one long episode with priorities 1..10, and the positions that can be sampled."""
    replay = fill([one_long_episode(ROWS)] * ENVS)
    priority = np.random.default_rng(0).integers(1, 11, (ROWS, ENVS)).astype(np.float32)
    allowed = ring.can_be_sampled(replay, behind=BEHIND, ahead=AHEAD)
    return replay.replace(priority=jnp.asarray(priority)), np.asarray(allowed)


@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_rows_are_drawn_in_proportion_to_the_power_of_their_priority(full, exponent):
    replay, allowed = full
    draws = 4_000
    draw = lambda seed: sample(replay, seed, batch_size=1, exponent=exponent).index[0]  # noqa: E731
    index = jax.jit(jax.vmap(draw))(jnp.arange(draws))
    counts = np.bincount(np.asarray(index), minlength=ROWS * ENVS)
    weights = np.where(allowed, np.asarray(replay.priority) ** exponent, 0.0).reshape(-1)
    expected = draws * weights / weights.sum()
    assert np.all(counts[expected == 0] == 0)
    inside = expected > 0
    # A sum of squared standard normals: its mean is the number of cells, its variance twice that.
    chi_square = np.sum((counts[inside] - expected[inside]) ** 2 / expected[inside])
    cells = inside.sum()
    assert abs(chi_square - cells) < 5 * np.sqrt(2 * cells)


@pytest.mark.parametrize("importance", [0.0, 0.4, 1.0])
def test_importance_weights_undo_the_priorities(full, importance):
    replay, allowed = full
    batch = jax.device_get(sample(replay, 0, importance=importance))
    share = np.where(allowed, np.asarray(replay.priority) ** 0.6, 0.0).reshape(-1)
    probability = share[batch.index] / share.sum()
    expected = (allowed.sum() * probability) ** -importance
    np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-5)


def test_rows_drawn_for_want_of_candidates_weigh_nothing():
    replay = fill([one_long_episode(AHEAD + 3)] * ENVS)
    batch = jax.device_get(sample(replay, 0))
    allowed = [time < 3 for time, _ in where(batch.index, AHEAD + 3)]
    assert sum(allowed) == 3 * ENVS < len(batch.index)
    np.testing.assert_array_equal(batch.weight, allowed)


def test_new_priorities_go_to_the_rows_that_were_drawn(full):
    replay, _ = full
    batch = sample(replay, 0)
    updated = ring.update_priorities(replay, batch.index, 100.0 + jnp.arange(8))
    expected = np.array(replay.priority).reshape(-1)
    expected[np.asarray(batch.index)] = 100 + np.arange(8)
    np.testing.assert_array_equal(np.asarray(updated.priority).reshape(-1), expected)


def test_a_priority_that_is_not_finite_is_not_stored(full):
    replay, _ = full
    bad = jnp.array([jnp.nan, jnp.inf, 7.0])
    updated = ring.update_priorities(replay, jnp.arange(3), bad).priority.reshape(-1)
    before = np.asarray(replay.priority).reshape(-1)
    np.testing.assert_array_equal(updated[:3], [before[0], before[1], 7.0])


def test_new_rows_get_the_largest_priority_so_far(full):
    replay, _ = full
    row = as_row([play(np.random.default_rng(0), 1)[0]] * ENVS)
    empty = ring.init_replay(SPEC, rows=ROWS, num_envs=ENVS)
    np.testing.assert_array_equal(add(empty, row).priority[0], 1)
    position = int(replay.count) % ROWS
    highest = jnp.max(replay.priority)
    np.testing.assert_array_equal(add(replay, row).priority[position], highest)
    lower = replay.replace(priority=jnp.full_like(replay.priority, 0.25))
    np.testing.assert_array_equal(add(lower, row).priority[position], 0.25)


def test_a_ring_of_the_planned_size_holds_the_capacity():
    capacity = 20
    rows = ring.num_rows(capacity, ENVS, BEHIND + 1 + AHEAD)
    replay = fill([one_long_episode(3 * rows)] * ENVS, rows)
    allowed = ring.can_be_sampled(replay, behind=BEHIND, ahead=AHEAD)
    assert capacity <= np.asarray(allowed).sum() < capacity + 2 * ENVS


@pytest.mark.parametrize("length", [ROWS - 5, ROWS, ROWS + 1, 3 * ROWS + 7])
def test_positions_count_from_the_start_of_the_episode_as_far_as_it_is_kept(length):
    rng = np.random.default_rng(length)
    histories = [play(rng, length) for _ in range(ENVS)]
    positions = np.asarray(jax.jit(ring.episode_positions)(fill(histories)))
    oldest = max(0, length - ROWS)
    for env, history in enumerate(histories):
        begin = oldest
        for t in range(oldest, length):
            begin = t if history[t].is_first else begin
            assert positions[t % ROWS, env] == t - begin
