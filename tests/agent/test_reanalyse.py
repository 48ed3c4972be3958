"""Searching old data anew: which rows, how often, and with what result."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.learner import make_prepare, no_metrics
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.search import make_search
from ez_jax.agent.targets import make_targets
from ez_jax.structs import Batch, Embedding, Replay, Root, Row, SearchOutput

ENVS, ROWS, STACK, UNROLL, TD = 2, 40, 2, 3, 2
CONFIG = {
    "learner.unroll_steps": UNROLL,
    "learner.batch_size": 4,
    "targets.td_steps": TD,
    "prioritised": False,
}
NOW = 100  # updates made

pytestmark = pytest.mark.usefixtures("quick_compiling")


class Reader:
    """Stands in for a model: the value of a state is the number in its newest frame."""

    def __init__(self, *shape: int):
        self.spec = tiny.make_spec(*shape, stack=STACK)

    def root(self, variables, frames):
        del variables
        size = len(frames)
        number = frames[:, -1].reshape(size, -1)[:, 0].astype(jnp.float32)
        nothing = jnp.zeros((size, 1))
        embedding = Embedding(
            state=frames,
            carry=(nothing, nothing),
            value_prefix=jnp.zeros(size),
            step=jnp.zeros(size, jnp.int32),
        )
        return Root(embedding=embedding, policy_logits=jnp.zeros((size, 3)), value=number)


def search(variables, root, key) -> SearchOutput:
    """Find twice the value, and a policy that tells which root it is of."""
    del variables, key
    policy = jnp.stack([root.value, root.value + 1, jnp.ones_like(root.value)], axis=-1)
    action = jnp.zeros(len(root.value), jnp.int32)
    return SearchOutput(action=action, policy=policy, value=2 * root.value, gain=root.value)


def make_replay(shape: tuple[int, ...], searched: np.ndarray) -> Replay:
    """Numbered rows in episodes of seven, with policies and values that are yet to be renewed."""
    spec = tiny.make_spec(*shape)
    replay = ring.init_replay(spec, rows=ROWS, num_envs=ENVS)
    add = jax.jit(ring.add)
    for t in range(ROWS):
        numbers = np.arange(ENVS) + ENVS * t
        frames = np.broadcast_to(numbers.reshape(ENVS, *(1,) * len(shape)), (ENVS, *shape))
        row = Row(
            observation=frames.astype(spec.observation_dtype),
            reward=np.zeros(ENVS, np.float32),
            discount=np.ones(ENVS, np.float32),
            is_first=np.full(ENVS, t % 7 == 0),
            action=np.zeros(ENVS, np.int32),
            policy=np.full((ENVS, 3), -1, np.float32),
            value=np.full(ENVS, -1, np.float32),
            searched=searched[t].astype(np.int32),
        )
        replay = add(replay, row)
    return replay


def draw(replay: Replay, config, seed: int = 0) -> Batch:
    drawn = ring.draw(
        replay,
        jax.random.key(seed),
        batch_size=config.learner.batch_size,
        unroll_steps=UNROLL,
        td_steps=TD,
        frame_stack=STACK,
        priority_exponent=0.0,
        importance_exponent=jnp.float32(0),
    )
    return ring.with_frames(replay, drawn)


def reanalysed(changes, searched, shape=(1,), seed=0):
    """(batch before, what came of it, replay before)."""
    config = tiny.make_config({**CONFIG, **changes})
    replay = make_replay(shape, np.broadcast_to(searched, (ROWS, ENVS)))
    batch = draw(replay, config, seed)
    reanalyse = jax.jit(make_reanalyse(config, Reader(*shape), search))
    done = reanalyse({}, jax.random.key(0), batch, replay, jnp.int32(NOW))
    return jax.device_get((batch, done, replay))


def numbers_of(batch: Batch) -> np.ndarray:
    """The number of the row at every unroll position [B, K+1]; the frame before it stands first."""
    newest = batch.observation[:, STACK - 1 :][:, : UNROLL + 1]
    return newest.reshape(*newest.shape[:2], -1)[..., 0].astype(np.float32)


images = pytest.mark.parametrize("shape", [(1,), (2, 2, 1)], ids=["vector", "image"])


@images
@pytest.mark.parametrize(("ratio", "num_fresh"), [(0.0, 0), (0.5, 2), (0.3, 1), (1.0, 4)])
def test_batch_mode_searches_some_of_the_samples_evenly(shape, ratio, num_fresh):
    before, done, replay = reanalysed({"reanalyse.ratio": ratio}, 0, shape)
    numbers = numbers_of(before)
    fresh = [i for i in range(4) if (i + 1) * num_fresh // 4 > i * num_fresh // 4]
    assert len(fresh) == num_fresh
    np.testing.assert_array_equal(done.batch.value[fresh], 2 * numbers[fresh])
    np.testing.assert_array_equal(done.batch.policy[fresh, :, 0], numbers[fresh])
    np.testing.assert_array_equal(done.batch.searched[fresh], NOW)
    for name in ("value", "policy", "searched"):
        kept, stored = (np.delete(getattr(b, name), fresh, 0) for b in (done.batch, before))
        np.testing.assert_array_equal(kept, stored)
    assert done.searches == num_fresh * (UNROLL + 1)
    jax.tree.map(np.testing.assert_array_equal, done.replay, replay)


def test_without_a_mode_everything_stays_as_it_was_stored():
    before, done, replay = reanalysed({"reanalyse.mode": "none"}, 0)
    jax.tree.map(np.testing.assert_array_equal, (done.batch, done.replay), (before, replay))
    assert done.searches == 0


@images
@pytest.mark.parametrize("chunk", [1, 5, 16, 100])
def test_buffer_mode_searches_what_is_too_old_once_and_keeps_it(shape, chunk):
    searched = np.random.default_rng(0).integers(0, NOW, (ROWS, ENVS))
    changes = {"reanalyse.mode": "buffer", "reanalyse.max_age": 50, "reanalyse.chunk": chunk}
    before, done, replay = reanalysed({**changes, "learner.batch_size": 8}, searched, shape)
    numbers = numbers_of(before).astype(int)
    ages = NOW - searched.reshape(-1)  # by the number of the row
    drawn = np.unique(numbers)
    old = drawn[ages[drawn] > 50]
    assert 0 < len(old) < len(drawn)
    assert len(drawn) < numbers.size, "some rows are drawn more than once"

    assert done.searches == len(old)
    after = done.replay.rows
    is_new = np.isin(np.arange(ROWS * ENVS), old)
    np.testing.assert_array_equal(
        after.value.reshape(-1), np.where(is_new, 2 * np.arange(ROWS * ENVS), -1)
    )
    np.testing.assert_array_equal(
        after.searched.reshape(-1), np.where(is_new, NOW, searched.reshape(-1))
    )
    np.testing.assert_array_equal(after.observation, replay.rows.observation)
    np.testing.assert_array_equal(done.replay.priority, replay.priority)
    # What is used is what the replay has, and nothing of it is too old.
    for name in ("value", "policy", "searched"):
        stored = getattr(after, name).reshape(ROWS * ENVS, *getattr(after, name).shape[2:])
        np.testing.assert_array_equal(getattr(done.batch, name), stored[numbers])
    assert np.all(NOW - done.batch.searched <= 50)


def test_with_no_age_allowed_buffer_mode_is_batch_mode_with_everything_searched():
    config = tiny.make_config({**CONFIG, "search.policy": "puct_ez"})
    model = tiny.make_vector_model(config, width=1, stack=STACK)
    variables = tiny.init(model)
    replay = make_replay((1,), np.zeros((ROWS, ENVS)))
    found = {}
    for mode in ("batch", "buffer"):
        changes = {"reanalyse.mode": mode, "reanalyse.max_age": 0, "reanalyse.ratio": 1.0}
        config = tiny.make_config({**CONFIG, **changes})
        # Without noise: what is found does not depend on how the roots are grouped.
        run = make_search(config.search, model, discount=0.9, explore=False)
        reanalyse = make_reanalyse(config, model, run)
        updates_for = functools.partial(make_targets(config, model), variables)

        @jax.jit
        def both(batch, replay, reanalyse=reanalyse, updates_for=updates_for):
            done = reanalyse(variables, jax.random.key(0), batch, replay, jnp.int32(NOW))
            return done, updates_for(done.batch, jnp.int32(NOW))

        found[mode] = jax.device_get(both(draw(replay, config), replay))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, found["batch"][1], found["buffer"][1])
    np.testing.assert_array_equal(found["buffer"][0].batch.searched, NOW)
    assert found["buffer"][0].searches <= found["batch"][0].searches


def test_rows_just_searched_are_not_searched_again():
    changes = {"reanalyse.mode": "buffer", "reanalyse.max_age": 0}
    _, done, _ = reanalysed(changes, NOW)
    assert done.searches == 0
    np.testing.assert_array_equal(done.batch.value, -1)


@pytest.mark.parametrize("mode", ["batch", "buffer"])
def test_updates_that_are_searched_together_get_what_they_get_alone(mode):
    # Priorities and target network stand still here, so the only difference is the grouping.
    model, replay = Reader(1), make_replay((1,), np.zeros((ROWS, ENVS)))
    key, prepared, searches = jax.random.key(0), {}, {}
    for group in (1, 3):
        changes = {
            "reanalyse.mode": mode,
            "reanalyse.ratio": 0.5,
            "reanalyse.max_age": 0,
            "reanalyse.updates_per_search": group,
        }
        config = tiny.make_config({**CONFIG, **changes})
        reanalyse = make_reanalyse(config, model, search)
        prepare = make_prepare(config, model, reanalyse, make_targets(config, model))
        parts, metrics = [], no_metrics(config)
        for first in range(0, 3, group):
            ring_copy = jax.tree.map(jnp.copy, replay)
            made, _, metrics = prepare({}, ring_copy, metrics, key, jnp.int32(NOW + first))
            parts.append(made)
        prepared[group] = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
        searches[group] = float(metrics.by_name()["reanalyse/searches"])
    one, three = (prepared[group] for group in (1, 3))
    jax.tree.map(np.testing.assert_array_equal, one.targets, three.targets)
    np.testing.assert_array_equal(one.batch.index, three.batch.index)
    assert one.batch.index.shape == (4, 3)
    assert searches[3] == searches[1] if mode == "batch" else searches[3] <= searches[1]
