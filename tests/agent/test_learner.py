"""Learning: schedule, target copies, skipped updates, and draws that depend on the clock alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.learner import (
    init_train_state,
    make_learn,
    make_prepare,
    no_metrics,
    refresh_targets,
)
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.replay.draw import make_draw
from ez_jax.agent.schedules import importance_exponent, learning_rate
from ez_jax.agent.search import make_search
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config, LearnerConfig, override
from ez_jax.structs import Replay, Row, TrainState

pytestmark = pytest.mark.usefixtures("quick_compiling")

CONFIG = tiny.make_config(
    {
        "search.policy": "gumbel",
        "search.num_simulations": 2,
        "reanalyse.ratio": 0.5,
        "learner.unroll_steps": 1,
        "learner.target_period": 2,
        "learner.optimizer": "adam",
        "learner.learning_rate": 0.01,
    }
)
ROWS, ENVS = 16, 2
ONE_WINDOW = CONFIG.learner.unroll_steps + CONFIG.targets.td_steps + 1


@pytest.mark.parametrize(
    ("update", "rate"),
    [
        (0, 0.0),
        (1, 0.0002),
        (500, 0.1),
        (1_000, 0.2),
        (100_999, 0.2),
        (101_000, 0.02),
        (200_999, 0.02),
        (201_000, 0.002),
    ],
)
def test_the_learning_rate_warms_up_and_falls_in_steps(update, rate):
    assert float(learning_rate(LearnerConfig())(update)) == pytest.approx(rate, rel=1e-4)


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert float(learning_rate(CONFIG.learner)(0)) == pytest.approx(0.01)


def test_the_importance_exponent_rises_linearly_over_the_run():
    config = Config()
    betas = [float(importance_exponent(config, u)) for u in (0, 59_000, 118_000, 200_000)]
    assert config.total_updates == 118_000
    np.testing.assert_allclose(betas, [0.4, 0.7, 1.0, 1.0], rtol=1e-5)


def test_the_target_is_one_to_two_periods_old():
    period = 3
    number = lambda x: jnp.asarray(x, jnp.int32)  # noqa: E731
    start = {"variables": number(0), "next_target": number(0), "target": number(0)}
    counts = dict.fromkeys(("updates", "skipped", "skipped_in_a_row"), number(0))
    train = TrainState(**start, opt_state=(), **counts)
    for update in range(1, 20):
        train = train.replace(variables=number(update), updates=number(update))
        train = refresh_targets(train, period)
        expected = max(0, (update // period - 1) * period)
        assert int(train.target) == expected
        assert update < 2 * period or period <= update - expected < 2 * period


@pytest.fixture(scope="module")
def model():
    return tiny.make_vector_model(CONFIG)


@pytest.fixture(scope="module")
def initial(model):
    """Return make() -> a fresh learner, for `learn` consumes it."""
    variables = tiny.init(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "init", lambda *_: variables)
        train = init_train_state(CONFIG, model, jax.random.key(0))
    return lambda: jax.tree.map(jnp.copy, train)


@pytest.fixture(scope="module")
def full_replay(model):
    """Return make() -> a full ring of noise, for `learn` consumes it."""
    rng = np.random.default_rng(0)
    replay = ring.init_replay(model.spec, rows=ROWS, num_envs=ENVS)
    add = jax.jit(ring.add)
    for t in range(ROWS):
        row = Row(
            observation=rng.normal(size=(ENVS, 2)).astype(np.float32),
            reward=rng.normal(size=ENVS).astype(np.float32),
            discount=np.ones(ENVS, np.float32),
            is_first=np.full(ENVS, t == 0),
            action=rng.integers(0, tiny.ACTIONS, ENVS).astype(np.int32),
            policy=rng.dirichlet(np.ones(tiny.ACTIONS), ENVS).astype(np.float32),
            value=rng.normal(size=ENVS).astype(np.float32),
            searched=np.zeros(ENVS, np.int32),
        )
        replay = add(replay, row)
    return lambda: jax.tree.map(jnp.copy, replay)


@pytest.fixture(scope="module")
def learner(model):
    """Return (learn(train, replay, number of updates, seed=), list that grows at every trace)."""
    search = make_search(CONFIG.search, model, discount=CONFIG.discount, explore=True)
    reanalyse, traces = make_reanalyse(CONFIG, model, search), []

    def counted(*args):
        traces.append(args)
        return reanalyse(*args)

    prepare = make_prepare(CONFIG, model, counted, make_targets(CONFIG, model))
    learn = make_learn(CONFIG, model)

    def run(train: TrainState, replay: Replay, number: int, seed: int = 0):
        metrics, key = no_metrics(CONFIG), jax.random.key(seed)
        for _ in range(number):
            prepared, replay, metrics = prepare(train.target, replay, metrics, key, train.updates)
            train, replay, metrics = learn(train, replay, metrics, key, prepared, jnp.int32(0))
        return jax.device_get((train, replay, metrics.by_name()))

    return run, traces


def assert_trees_equal(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.long
def test_updates_go_on_from_a_saved_state_as_if_nothing_had_happened(learner, initial, full_replay):
    run, _ = learner
    train, replay, metrics = run(initial(), full_replay(), 3)
    first, replay_after_one, _ = run(initial(), full_replay(), 1)
    saved = jax.tree.map(jnp.asarray, (first, replay_after_one))
    resumed = run(*saved, 2)
    assert_trees_equal((train, replay), resumed[:2])
    assert train.updates == metrics["count"] == 3


@pytest.mark.parametrize("rows", [ONE_WINDOW, ROWS])
def test_importance_weights_have_a_floor_unless_nothing_was_drawn(model, full_replay, rows):
    replay = full_replay().replace(count=jnp.int32(rows))
    few = rows < ROWS  # the others drawn to fill the batch weigh nothing
    weights = {}
    for floor in (0.0, 0.7):
        changes = {"replay.min_weight": floor, "replay.importance_exponent": 1.0}
        draw = make_draw(override(CONFIG, changes), model)
        priority = 2.0 ** jnp.arange(ROWS * ENVS).reshape(ROWS, ENVS)
        batch = draw(replay.replace(priority=priority), jax.random.key(0), jnp.int32(0))
        weights[floor] = np.asarray(batch.weight)
    plain, floored = weights.values()
    assert np.any((plain > 0) & (plain < 0.7))
    assert np.any(plain == 0) == few
    np.testing.assert_array_equal(floored, np.where(plain > 0, np.maximum(plain, 0.7), 0))


def test_draws_depend_on_the_key_and_the_number_of_the_update(learner, initial, full_replay):
    run, _ = learner

    def drawn(seed: int, update: int) -> list[int]:
        train = initial().replace(updates=jnp.int32(update))
        replay = full_replay().replace(priority=jnp.ones((ROWS, ENVS)))
        return np.flatnonzero(run(train, replay, 1, seed)[1].priority != 1).tolist()

    assert drawn(0, 1) == drawn(0, 1)
    assert drawn(0, 1) != drawn(0, 2)
    assert drawn(0, 1) != drawn(1, 1)


def test_all_updates_share_one_compilation(learner, initial, full_replay):
    run, traces = learner
    run(initial(), full_replay(), 3)
    assert len(traces) == 1


def test_updates_refresh_the_priorities_of_what_was_drawn(learner, initial, full_replay):
    run, _ = learner
    before = full_replay()
    _, after, _ = run(initial(), before.replace(priority=jnp.ones((ROWS, ENVS))), 1)
    changed = np.sum(after.priority != 1)
    assert changed == CONFIG.learner.batch_size
    rows = full_replay().rows
    assert_trees_equal(after.rows, jax.device_get(rows))


def test_updates_refresh_the_target_networks(learner, initial, full_replay):
    run, _ = learner
    at_two, at_four = (run(initial(), full_replay(), n)[0] for n in (2, 4))
    assert_trees_equal(at_two.next_target, at_two.variables)
    assert_trees_equal(at_two.target, jax.device_get(initial().variables))
    assert_trees_equal(at_four.target, at_two.variables)


def test_an_update_that_is_not_finite_is_skipped_and_counted(learner, initial, full_replay):
    run, _ = learner
    start, replay = initial(), full_replay()
    rows = replay.rows.replace(reward=jnp.full_like(replay.rows.reward, jnp.nan))
    train, after, metrics = run(start, replay.replace(rows=rows), 2)
    assert (train.updates, train.skipped, train.skipped_in_a_row) == (2, 2, 2)
    assert_trees_equal(train.variables, jax.device_get(initial().variables))
    assert_trees_equal(train.opt_state, jax.device_get(initial().opt_state))
    assert np.all(np.isfinite(after.priority))
    assert metrics.pop("reanalyse/searches") > 0
    assert not any(metrics.values())
    again, _, _ = run(jax.tree.map(jnp.asarray, train), full_replay(), 1)
    assert (again.skipped, again.skipped_in_a_row) == (2, 0)


def test_the_loss_falls_while_the_same_few_rows_are_learned(learner, initial, full_replay):
    run, _ = learner

    def mean_loss(train, replay) -> float:
        metrics = run(*jax.tree.map(jnp.copy, (train, replay)), 5)[2]
        return float(metrics["loss/total"] / metrics["count"])

    train, replay, _ = run(initial(), full_replay(), 100)
    learned = jax.tree.map(jnp.asarray, (train, replay))
    # The cross entropy of soft targets does not fall to zero: with ten other keys to 0.41 to 0.62.
    assert mean_loss(*learned) < 0.7 * mean_loss(initial(), full_replay())
