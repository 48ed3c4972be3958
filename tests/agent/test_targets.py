"""Regression targets against the papers' sums, written as loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.targets import make_targets
from ez_jax.agent.targets.targets import value_prefixes
from ez_jax.agent.targets.td import corrected_td_steps, n_step_value, steps_ahead
from ez_jax.structs import Batch, Embedding, Root, Row, SearchOutput

pytestmark = pytest.mark.usefixtures("quick_compiling")

UNROLL, TD, DISCOUNT = 3, 4, 0.9
AHEAD = UNROLL + TD
NO_UPDATES = np.int32(0)  # made before
CONFIG = {
    "discount": DISCOUNT,
    "learner.unroll_steps": UNROLL,
    "targets.td_steps": TD,
    "off_policy_correction": False,
}


def ended(batch: Batch, last: np.ndarray, terminated: np.ndarray) -> Batch:
    """The batch with the episode of each sample ending at `last`, by termination or otherwise."""
    discount = np.ones((len(last), AHEAD + 1), np.float32)
    for b in range(len(last)):
        discount[b, last[b] :] = 0.0 if terminated[b] else 1.0
    return batch.replace(discount=jnp.asarray(discount), last=jnp.asarray(last, jnp.int32))


def random_batch(seed: int, size: int = 16) -> Batch:
    """Episodes that go on after the window, terminate or are truncated within it."""
    config = tiny.make_config({**CONFIG, "learner.batch_size": size})
    rng = np.random.default_rng(seed)
    last = rng.integers(0, AHEAD + 1, size)
    return ended(
        tiny.random_batch(config, tiny.make_spec(1, stack=Stub.STACK), seed),
        last,
        rng.random(size) < 0.5,
    )


def value_by_hand(batch: Batch, worth: np.ndarray, b: int, k: int, td_steps: int) -> float:
    """MuZero, appendix G: z_k = sum_j gamma^j u_{k+j+1} + gamma^n v_{k+n}, within the episode.

    `worth` f32[B, K+n+1] holds v of every observation of the window.
    """
    last = int(batch.last[b])
    steps = min(td_steps, last - k)
    total = 0.0
    for j in range(steps):
        total += DISCOUNT**j * batch.reward[b, k + j]  # entry k + j is u_{k+j+1}
    is_terminal = batch.discount[b, k + steps] == 0
    return total + (0.0 if is_terminal else DISCOUNT**steps * worth[b, k + steps])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_values_are_n_step_returns_within_the_episode(seed):
    batch = random_batch(seed)
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=batch.discount.shape).astype(np.float32)
    td_steps = rng.integers(1, TD + 1, len(batch.last)).astype(np.int32)
    values = jitted_n_step(batch, worth, td_steps)
    batch = jax.device_get(batch)
    for b in range(len(batch.last)):
        for k in range(min(UNROLL, batch.last[b]) + 1):
            expected = value_by_hand(batch, worth, b, k, td_steps[b])
            assert values[b, k] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@jax.jit
def jitted_n_step(batch, worth, td_steps):
    steps = steps_ahead(batch, td_steps, unroll_steps=UNROLL)
    bootstrap = jnp.take_along_axis(worth, jnp.arange(UNROLL + 1) + steps, axis=1)
    return n_step_value(batch, bootstrap, steps, discount=DISCOUNT)


@pytest.mark.long
def test_a_constant_reward_has_one_value_throughout_a_long_episode():
    # Reward 1 for ever is worth 1 / (1 - gamma) at every step, and the network says so: a seam
    # anywhere, or a bootstrap dropped, would show.
    length, value = 450, 1 / (1 - DISCOUNT)
    replay = ring.init_replay(tiny.make_spec(1), rows=500, num_envs=1)
    for t in range(length + 20):
        is_first = t in (0, length)  # truncated after 449 steps
        row = Row(
            observation=np.ones((1, 1), np.float32),
            reward=np.array([0.0 if is_first else 1.0], np.float32),
            discount=np.ones(1, np.float32),
            is_first=np.array([is_first]),
            action=np.zeros(1, np.int32),
            policy=np.full((1, tiny.ACTIONS), 1 / tiny.ACTIONS, np.float32),
            value=np.full(1, -1e6, np.float32),  # what the actor's search said plays no part
            searched=np.zeros(1, np.int32),
        )
        replay = add(replay, row)
    size = 449 + 20 - AHEAD  # all that can be sampled
    drawn = ring.draw(
        replay,
        jax.random.key(0),
        batch_size=size,
        unroll_steps=UNROLL,
        td_steps=TD,
        frame_stack=Stub.STACK,
        priority_exponent=0.0,
        importance_exponent=0.0,
    )
    batch = ring.with_frames(replay, drawn)
    config = tiny.make_config({**CONFIG, "learner.batch_size": size, "reanalyse.ratio": 0.0})
    variables = {"scale": value}
    targets = make_targets(config, Stub((1,)))(variables, batch, NO_UPDATES)
    assert np.all(batch.weight > 0)
    inside = np.asarray(targets.mask) == 1
    np.testing.assert_allclose(np.asarray(targets.value)[inside], value, rtol=1e-5)


add = jax.jit(ring.add, donate_argnums=0)


@pytest.mark.parametrize(
    ("age", "expected"), [(0, 5), (99, 5), (100, 4), (250, 3), (399, 2), (400, 1), (10_000, 1)]
)
def test_every_so_many_steps_of_age_take_one_step_of_reward(age, expected):
    steps = corrected_td_steps(jnp.array([age]), td_steps=5, steps_per_decrement=100.0)
    assert steps.tolist() == [expected]


def test_old_samples_get_shorter_returns():
    config = {**CONFIG, "learner.batch_size": 16, "reanalyse.ratio": 0.0}
    config |= {"off_policy_correction": True, "targets.age_fraction": 0.1}
    config = tiny.make_config(config)  # 1_000 agent steps in all: a step less per 100
    batch = random_batch(0).replace(age=jnp.arange(16) * 50)
    targets = make_targets(config, Stub((1,)))(SCALE, batch, NO_UPDATES)
    batch = jax.device_get(batch)
    for b in range(16):
        for k in range(min(UNROLL, batch.last[b]) + 1):
            steps = max(1, TD - b * 50 // 100)
            expected = value_by_hand(batch, network_values(batch), b, k, steps)
            assert targets.value[b, k] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_steps_of_a_value_have_a_ceiling_of_their_own():
    steps = functools.partial(corrected_td_steps, td_steps=8, steps_per_decrement=10.0)
    age = jnp.array([0, 10, 35, 200])
    np.testing.assert_array_equal(steps(age), [8, 7, 5, 1])
    np.testing.assert_array_equal(steps(age, max_td_steps=5), [5, 5, 5, 1])


@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_prefixes_sum_rewards_since_the_reset_without_discount(horizon):
    unroll_steps = 6
    changes = {**CONFIG, "learner.unroll_steps": unroll_steps, "learner.batch_size": 8}
    batch = tiny.random_batch(tiny.make_config(changes), tiny.make_spec(1))
    batch = batch.replace(last=jnp.arange(8))
    prefixes = value_prefixes(batch, unroll_steps=unroll_steps, horizon=horizon)
    for b in range(8):
        total = 0.0
        for k in range(unroll_steps):
            if k % horizon == 0:
                total = 0.0
            if k < batch.last[b]:  # past the end the sum stands still
                total += float(batch.reward[b, k])
            assert prefixes[b, k] == pytest.approx(total, rel=1e-5, abs=1e-6)


class Stub:
    """Stands in for a model: the value of an observation is its newest frame times `scale`."""

    STACK = 2

    def __init__(self, shape: tuple[int, ...]):
        self.spec = tiny.make_spec(*shape, stack=self.STACK)

    def root(self, variables, frames):
        size = len(frames)
        value = variables["scale"] * frames[:, -1].reshape(size, -1)[:, 0].astype(jnp.float32)
        embedding = Embedding(
            state=frames,
            carry=(jnp.zeros((size, 1)), jnp.zeros((size, 1))),
            value_prefix=jnp.zeros(size),
            step=jnp.zeros(size, jnp.int32),
        )
        return Root(embedding=embedding, policy_logits=jnp.zeros((size, 3)), value=value)


SCALE = {"scale": 10.0}  # the variables of the stub


def network_values(batch: Batch) -> np.ndarray:
    """What the stub says of the observations 0..K+n; frame t+1 of the stack of 2 is newest at t."""
    size = len(batch.last)
    return 10.0 * batch.observation[:, 1:].reshape(size, AHEAD + 1).astype(np.float32)


def stub_search(variables, root, key) -> SearchOutput:
    """A search that adds 1 to the value of the root and is sure of action 2."""
    del variables, key
    policy = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), root.policy_logits.shape)
    action = jnp.full(len(root.value), 2)
    return SearchOutput(action=action, policy=policy, value=root.value + 1, gain=root.value)


@pytest.fixture(scope="module", params=[(1,), (1, 1, 1)], ids=["vector", "image"])
def reanalysed(request):
    """Return make(ratio, value) -> (batch of 8, targets) with the stubs."""

    @functools.cache
    def make(ratio: float, value: str):
        changes = {**CONFIG, "learner.batch_size": 8, "reanalyse.ratio": ratio}
        config = tiny.make_config({**changes, "targets.value": value})
        model = Stub(request.param)
        batch = ended(
            tiny.random_batch(config, model.spec),
            np.array([7, 0, 2, 5] * 2),
            np.array([False, True, True, False] * 2),
        )
        reanalyse = make_reanalyse(config, model, stub_search)

        @jax.jit
        def targets(batch: Batch):
            done = reanalyse(SCALE, jax.random.key(0), batch, None, NO_UPDATES)
            return make_targets(config, model)(SCALE, done.batch, NO_UPDATES)

        return jax.device_get((batch, targets(batch)))

    return make


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_every_sample_bootstraps_from_the_network_whatever_is_searched(reanalysed, ratio):
    batch, targets = reanalysed(ratio, "td")
    for b in range(8):
        for k in range(min(UNROLL, batch.last[b]) + 1):
            expected = value_by_hand(batch, network_values(batch), b, k, TD)
            assert targets.value[b, k] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("ratio", "fresh"), [(0.5, (1, 3, 5, 7)), (1.0, range(8))])
def test_search_values_are_the_roots_except_at_termination(reanalysed, ratio, fresh):
    batch, targets = reanalysed(ratio, "search")
    searched = network_values(batch) + 1
    for b in range(8):
        root_value = searched if b in fresh else batch.value  # searched now, or by the actor
        for k in range(min(UNROLL, batch.last[b]) + 1):
            is_terminal = batch.discount[b, k] == 0
            value = 0.0 if is_terminal else root_value[b, k]
            assert targets.value[b, k] == pytest.approx(value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("updates", "newest"), [(0, 5), (9, 5), (10, 5), (11, 0), (11, 8)])
def test_mixed_values_are_searched_for_old_data_once_some_updates_were_made(updates, newest):
    changes = {"targets.mixed_updates": 10, "targets.mixed_newest": newest, "reanalyse.ratio": 1.0}
    model, age = Stub((1,)), np.arange(8, dtype=np.int32)
    values = {}
    for name in ("td", "search", "mixed"):
        changes |= {**CONFIG, "targets.value": name, "learner.batch_size": 8}
        config = tiny.make_config(changes)
        batch = tiny.random_batch(config, model.spec).replace(age=jnp.asarray(age))
        values[name] = make_targets(config, model)(SCALE, batch, jnp.int32(updates)).value
    by_td = (updates < 10) | (age < newest)
    np.testing.assert_array_equal(values["mixed"][by_td], values["td"][by_td])
    np.testing.assert_array_equal(values["mixed"][~by_td], values["search"][~by_td])
    assert np.all(values["td"] != values["search"])


def test_masks_end_with_the_final_observation(reanalysed):
    batch, targets = reanalysed(0.5, "td")
    for b in range(8):
        for k in range(UNROLL + 1):
            assert targets.mask[b, k] == (k <= batch.last[b])
            # In the final observation nothing was to be decided.
            assert targets.policy_mask[b, k] == (k < batch.last[b])
