"""What eight devices do together; `test_devices.py` runs this file where there are as many."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.actor import make_act
from ez_jax.agent.learner import make_learn, make_prepare
from ez_jax.agent.model import make_model
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.search import make_search
from ez_jax.agent.state import init_run_state, start_run_state
from ez_jax.agent.targets import make_targets
from ez_jax.structs import TimeStep
from ez_jax.system import devices

NUMBER = 8
BATCH, ENVS, STEPS, UPDATES = 16, 3, 24, 3


@pytest.fixture(scope="module")
def meshes():
    there = jax.devices()
    assert len(there) == NUMBER
    return {number: devices.make_mesh(there[:number]) for number in (1, NUMBER)}


@pytest.mark.parametrize("rows", [1, 7, 8, 20])
def test_rows_are_read_from_whoever_has_them(meshes, rows):
    rng = np.random.default_rng(rows)
    long = rng.integers(0, 256, (24, 3, 2)).astype(np.uint8)
    row, column = rng.integers(0, 24, (rows, 5)), rng.integers(0, 3, (rows, 1))
    with jax.set_mesh(meshes[NUMBER]):
        split = jax.device_put(long, devices.shardings(devices.SPLIT))
        found = jax.jit(devices.read)(split, row, column)
        whole_rows = jax.jit(devices.read)(split, row[:, 0])
    np.testing.assert_array_equal(found, long[row, column])
    np.testing.assert_array_equal(whole_rows, long[row[:, 0]])


def test_rows_are_written_by_whoever_has_them_and_past_the_end_by_nobody(meshes):
    long, rows = np.zeros((16, 2), np.float32), np.arange(1.0, 9.0, dtype=np.float32).reshape(4, 2)
    at = np.array([15, 0, 7, 16])
    with jax.set_mesh(meshes[NUMBER]):
        split = jax.device_put(long, devices.shardings(devices.SPLIT))
        written = jax.jit(devices.write, donate_argnums=0)(split, at, rows)
        again = jax.jit(devices.write)(written, jnp.int32(8), rows[3])
        assert written.sharding.spec == devices.SPLIT
    long[at[:3]] = rows[:3]
    np.testing.assert_array_equal(written, long)
    long[8] = rows[3]
    np.testing.assert_array_equal(again, long)


@pytest.mark.parametrize("rows", [3, 8, 13])
def test_each_device_has_its_part_of_the_rows(meshes, rows):
    def function(shared, rows):
        return {"sum": rows["x"] + shared, "of": jnp.full(len(rows["x"]), len(rows["x"]))}

    x = np.arange(float(rows))
    with jax.set_mesh(meshes[NUMBER]):
        found = jax.jit(lambda shared, rows: devices.spread(function, shared, rows=rows))(
            2.0, {"x": x}
        )
    np.testing.assert_array_equal(found["sum"], x + 2)
    np.testing.assert_array_equal(found["of"], -(-rows // NUMBER))


# The programs of a run.

IMAGE, VECTOR = (8, 8, 1), (3,)
CASES = {
    "published search, images, every sample searched anew": (
        IMAGE,
        {"search.policy": "puct_ez", "reanalyse.ratio": 0.8},
    ),
    "gumbel, vectors, kept searches, two updates at once": (
        VECTOR,
        {
            "search.policy": "gumbel",
            "reanalyse.mode": "buffer",
            "reanalyse.max_age": 1,
            "reanalyse.chunk": 20,
            "reanalyse.updates_per_search": 2,
        },
    ),
    "muzero's search, vectors": (VECTOR, {"search.policy": "puct"}),
}
COMMON = {
    "actor.num_envs": ENVS,
    "replay.capacity": 40,
    "learner.batch_size": BATCH,
    "env.frame_stack": 2,
    "learner.start": 60,
}


def time_step(shape, t):
    rng = np.random.default_rng(t)
    noise = rng.integers(0, 256, (ENVS, *shape)) if len(shape) == 3 else rng.normal(size=(ENVS, 3))
    is_first = np.array([(t + i) % 9 == 0 for i in range(ENVS)])
    is_last = np.array([(t + 1 + i) % 9 == 0 for i in range(ENVS)])
    return TimeStep(
        observation=noise.astype(np.uint8 if len(shape) == 3 else np.float32),
        reward=np.where(is_first, 0, rng.normal(size=ENVS)).astype(np.float32),
        score=np.zeros(ENVS, np.float32),
        discount=1 - is_last.astype(np.float32),
        is_first=is_first,
        is_last=is_last,
        game_over=is_last,
    )


def programs(shape, changes):
    config = tiny.make_config({**COMMON, **changes})
    model = make_model(config, tiny.make_spec(*shape, stack=2))
    search = make_search(config.search, model, discount=config.discount, explore=True)
    reanalyse, targets = make_reanalyse(config, model, search), make_targets(config, model)
    prepare = make_prepare(config, model, reanalyse, targets)
    return config, model, make_act(model, search), prepare, make_learn(config, model)


def played(shape, changes):
    """What a run of some decisions and updates leaves: actions, the state, and what was drawn."""
    config, model, act, prepare, learn = programs(shape, changes)
    state, key, actions, drawn = (
        start_run_state(functools.partial(init_run_state, config, model)),
        jax.random.key(1),
        [],
        [],
    )
    train, replay, sums, frames = state.train, state.replay, state.metrics, state.frames
    for t in range(STEPS):
        given = time_step(shape, t), key, np.float32(1), np.bool_(t < 5), train.updates
        action, replay, sums, frames = act(
            train.variables, replay, sums, frames, *jax.device_put(given, devices.everywhere())
        )
        actions.append(np.asarray(action))
    group = config.reanalyse.updates_per_search
    for _ in range(UPDATES):
        made, replay, sums = prepare(train.target, replay, sums, key, train.updates)
        drawn.append(jax.device_get(made))
        for i in range(group):
            train, replay, sums = learn(train, replay, sums, key, made, jnp.int32(i))
    recorded = jax.jit(ring.recorded_rows, static_argnums=2)(replay, 10, 5)
    small = train, ring.without_recorded(replay), sums
    return jax.device_get((actions, drawn, recorded, small))


def near(one, other):
    is_exact = np.issubdtype(np.asarray(one).dtype, np.integer)
    tolerance = {"rtol": 0, "atol": 0} if is_exact else {"rtol": 2e-3, "atol": 2e-4}
    np.testing.assert_allclose(other, one, **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_that_on_one(meshes, case):
    found = {}
    for number, mesh in meshes.items():
        with jax.set_mesh(mesh):
            found[number] = played(*CASES[case])
    (actions, drawn, recorded, small), others = found[1], found[NUMBER]
    np.testing.assert_array_equal(actions, others[0])
    for one, other in zip(drawn, others[1], strict=True):
        for name in ("index", "row", "age", "last", "observation", "reward", "action"):
            np.testing.assert_array_equal(getattr(one.batch, name), getattr(other.batch, name))
    jax.tree.map(near, drawn, others[1])
    jax.tree.map(np.testing.assert_array_equal, recorded, others[2])
    jax.tree.map(near, small, others[3])


def test_frames_lie_on_all_devices_and_are_never_gathered_on_one(meshes):
    shape, changes = CASES["published search, images, every sample searched anew"]
    with jax.set_mesh(meshes[NUMBER]):
        config, model, _, prepare, learn = programs(shape, changes)
        state = start_run_state(functools.partial(init_run_state, config, model))
        rows = state.replay.rows.observation
        assert rows.addressable_shards[0].data.shape[0] * NUMBER == rows.shape[0]
        assert rows.shape[0] >= len(state.replay.priority) > rows.shape[0] - NUMBER
        key, updates = jax.random.key(0), state.train.updates
        given = state.train.target, state.replay, state.metrics, key, updates
        text = prepare.lower(*given).compile().as_text()
        made = jax.eval_shape(prepare, *given)[0]
        made = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=devices.shardings(devices.SPLIT)
            ),
            made,
        )
        given = state.train, state.replay, state.metrics, key, made, jnp.int32(0)
        learned = learn.lower(*given).compile().as_text()
    collectives = [line for line in text.splitlines() if re.search(r"= \S+ (all|reduce)-", line)]
    moved = [line for line in collectives if "u8[" in line]
    assert moved
    assert all("reduce-scatter" in line for line in moved), moved
    assert not re.search(r"= u8\S+ all-", learned), "each device learns from its own samples"
    assert "all-reduce" in learned, "gradients are those of all"
