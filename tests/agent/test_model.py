"""The model's rules: value prefix, gradient halving, steps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest
import tiny

from ez_jax.agent import support
from ez_jax.agent.model import Model, scale_gradient
from ez_jax.agent.search import make_recurrent_fn, make_search

pytestmark = pytest.mark.usefixtures("quick_compiling")

BINS = 10  # support of the stub: it can tell prefixes of up to 100


class PrefixCounter:
    """Stands in for a network that is right where every step is worth 1.

    Its value prefix counts the steps since the carry was zero.
    """

    def apply(self, variables: Any, *inputs: Any, train: bool, method: str) -> Any:
        del variables, train
        return getattr(self, method)(*inputs)

    def initial_carry(self, batch: int):
        return jnp.zeros((batch, 1)), jnp.zeros((batch, 1))

    def represent(self, observation):
        return observation

    def transition(self, state, action):
        return 2 * state + action[:, None]

    def value_prefix(self, next_state, carry):
        count = carry[0] + 1
        prefix = support.encode(count[:, 0], BINS)
        return jnp.log(prefix + 1e-12), (count, carry[1])

    def predict(self, state):
        size = len(state)
        return jnp.zeros((size, tiny.ACTIONS)), jnp.zeros((size, 2 * BINS + 1))


def counting_model(horizon: int) -> Model:
    spec = tiny.make_spec(1)
    return Model(network=PrefixCounter(), spec=spec, horizon=horizon)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_every_step_of_a_counting_prefix_is_worth_one(horizon):
    model = counting_model(horizon)
    embedding = model.represent({}, jnp.zeros((2, 1, 1)))
    for k in range(12):
        embedding, reward = model.dynamics({}, embedding, jnp.zeros(2, jnp.int32))
        np.testing.assert_allclose(reward, 1, atol=1e-3)
        since_reset = (k + 1) % horizon
        np.testing.assert_array_equal(embedding.step, since_reset)
        np.testing.assert_allclose(embedding.carry[0], since_reset)
        np.testing.assert_allclose(embedding.value_prefix, since_reset, atol=1e-3)


@pytest.fixture(scope="module")
def grow_tree():
    """Return grow(horizon) -> the tree of 30 simulations; the horizon is traced."""

    @jax.jit
    def grow(horizon):
        model = counting_model(horizon)
        root = model.root({}, jnp.zeros((2, 1, 1)))
        # One action is far likelier, so that the tree gets deep.
        logits = root.policy_logits.at[:, 1].add(5.0)
        output = mctx.muzero_policy(
            {},
            jax.random.key(0),
            mctx.RootFnOutput(prior_logits=logits, value=root.value, embedding=root.embedding),
            make_recurrent_fn(model, 0.9),
            num_simulations=30,
        )
        return output.search_tree

    return lambda horizon: jax.device_get(grow(horizon))


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_every_edge_of_a_search_tree_over_a_counting_prefix_is_worth_one(grow_tree, horizon):
    tree = grow_tree(horizon)
    visited = tree.children_index != tree.UNVISITED
    assert visited.sum() == 2 * 30
    np.testing.assert_allclose(tree.children_rewards[visited], 1, atol=1e-3)
    assert tree.embeddings.state.max() >= 2**8 - 1, "deeper than any horizon"


def test_scaling_a_gradient_leaves_the_value():
    value, gradient = jax.value_and_grad(lambda x: scale_gradient(x, 0.5) ** 2)(3.0)
    assert (value, gradient) == (9.0, 3.0)


CONFIG = tiny.make_config({"learner.lstm_horizon_len": 2})


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.make_vector_model(CONFIG, stack=2)


@pytest.fixture(scope="module")
def variables(model):
    return tiny.init(model)


@pytest.fixture(scope="module")
def frames(model):
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2)), jnp.float32)


@pytest.fixture(scope="module")
def gradient(model, variables, frames):
    """Return gradient(train, readers) of a sum of what is read, weighted by reader.

    The readers: imagined state 1, imagined state 2, prefix logits 1.
    """

    def reads(params, readers, train):
        action = jnp.zeros(3, jnp.int32)
        embedding, _ = model.encode({"params": params}, frames, train=train)
        one, logits, _ = model.step({"params": params}, embedding, action, train=train)
        two, _, _ = model.step({"params": params}, one, action, train=train)
        read = jnp.stack([jnp.sum(x**2) for x in (one.state, two.state, logits)])
        return jnp.sum(readers * read)

    differentiate = jax.jit(jax.grad(reads), static_argnums=2)
    return lambda train, readers: differentiate(variables["params"], jnp.array(readers), train)


@pytest.mark.parametrize(("readers", "factor"), [([1.0, 0, 0], 0.5), ([0, 1.0, 0], 0.25)])
def test_training_halves_the_gradient_at_every_imagined_state(gradient, readers, factor):
    halved, full = gradient(True, readers), gradient(False, readers)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, factor * y, rtol=1e-4, atol=1e-7),
        halved["representation"],
        full["representation"],
    )


def test_the_prefix_head_reads_the_halved_state(gradient):
    halved, full = gradient(True, [0, 0, 1.0]), gradient(False, [0, 0, 1.0])
    for part, factor in [("dynamics", 0.5), ("prefix_head", 1.0)]:
        jax.tree.map(
            lambda x, y, factor=factor: np.testing.assert_allclose(
                x, factor * y, rtol=1e-4, atol=1e-7
            ),
            halved[part],
            full[part],
        )


def test_public_functions_jit_over_variables_and_embeddings(model, variables, frames):
    @jax.jit
    def imagine(variables, frames):
        embedding = model.represent(variables, frames)
        following, reward = model.dynamics(variables, embedding, jnp.zeros(3, jnp.int32))
        logits, value = model.predict(variables, following)
        return reward, logits, value, model.project(variables, following)

    reward, logits, value, projection = imagine(variables, frames)
    assert reward.shape == value.shape == (3,)
    assert logits.shape == (3, tiny.ACTIONS)
    assert projection.shape == (3, CONFIG.network.projection)


def test_dynamics_agree_with_the_network_called_by_hand(model, variables, frames):
    network, steps = model.network, 5
    call = lambda method, *xs: network.apply(variables, *xs, train=False, method=method)  # noqa: E731
    action = jnp.array([0, 1, 2])

    @jax.jit
    def by_hand(frames):
        state = call("represent", frames.reshape(3, -1))
        rewards = []
        for k in range(steps):
            if k % CONFIG.horizon == 0:
                carry, before = network.initial_carry(3), 0.0
            state = call("transition", state, action)
            logits, carry = call("value_prefix", state, carry)
            rewards.append(support.decode(logits) - before)
            before = support.decode(logits)
        return rewards, state

    @jax.jit
    def by_model(frames):
        def body(embedding, _):
            return model.dynamics(variables, embedding, action)

        embedding, rewards = jax.lax.scan(body, model.represent(variables, frames), length=steps)
        return rewards, embedding.state

    (rewards, state), (expected_rewards, expected_state) = by_model(frames), by_hand(frames)
    np.testing.assert_allclose(rewards, expected_rewards, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state, expected_state, rtol=1e-4, atol=1e-5)


def test_frames_are_stacked_oldest_first_in_the_channels():
    config = tiny.make_config()
    model = dataclasses.replace(
        tiny.make_vector_model(config),
        network=PrefixCounter(),
        spec=tiny.make_spec(4, 5, 3, stack=2),
    )
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 5, 3)).astype(np.uint8)
    state = model.represent({}, jnp.asarray(frames)).state
    expected = np.concatenate([frames[:, 0], frames[:, 1]], axis=-1) / 255
    np.testing.assert_allclose(state, expected, rtol=1e-6)


def test_search_values_a_counting_prefix_as_the_discounted_sum():
    # With one action there is one path: simulation k adds the return of k steps of 1.
    spec = tiny.make_spec(1, actions=1)

    class OneAction(PrefixCounter):
        def predict(self, state):
            return jnp.zeros((len(state), 1)), jnp.zeros((len(state), 2 * BINS + 1))

    model = Model(network=OneAction(), spec=spec, horizon=3)
    config = dataclasses.replace(CONFIG.search, policy="gumbel", num_simulations=8)
    search = make_search(config, model, discount=0.5, explore=False)
    root = model.root({}, jnp.zeros((1, 1, 1)))
    found = jax.jit(lambda: search({}, root, jax.random.key(0)))()
    returns = [sum(0.5**j for j in range(k)) for k in range(9)]
    np.testing.assert_allclose(found.value, np.mean(returns), rtol=2e-3)
