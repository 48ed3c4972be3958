"""Searches over continuous actions, in problems whose best action is known."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.search import make_search, make_tree_search
from ez_jax.agent.search.candidates import root_widening
from ez_jax.config import BadInput, SearchConfig
from ez_jax.structs import Embedding, Root

pytestmark = pytest.mark.usefixtures("quick_compiling")

CONFIG = SearchConfig(
    policy="gumbel", num_simulations=32, max_considered_actions=16, gumbel_scale=0.0
)
BEST = np.array([[0.5, -0.5], [-0.9, 0.0], [0.0, 0.8]], np.float32)
SPEC = dataclasses.replace(tiny.make_spec(2, actions=0), action_size=2)


class Target:
    """Pays for the first action by how close it comes to the state, and nothing after that."""

    spec = SPEC

    def dynamics(self, variables, embedding, action):
        del variables
        is_first = embedding.step == 0
        reward = jnp.where(is_first, -jnp.abs(action - embedding.state).sum(-1), 0.0)
        return embedding.replace(step=embedding.step + 1), reward

    def predict(self, variables, embedding):
        del variables
        size = len(embedding.state)
        return jnp.zeros((size, 2 * SPEC.action_size)), jnp.zeros(size)


class TwoSteps(Target):
    """Pays a little for a first action below zero, and much for a second after one above zero."""

    def dynamics(self, variables, embedding, action):
        del variables
        is_first, is_above = embedding.step == 0, action[:, 0] > 0
        reward = jnp.where(is_first, 0.1 * ~is_above, embedding.state[:, 0])
        reached = jnp.where(is_first, 1.0 * is_above, 0.0)[:, None]
        state = jnp.broadcast_to(reached, embedding.state.shape)
        return embedding.replace(step=embedding.step + 1, state=state), reward


def root(state: np.ndarray) -> Root:
    size = len(state)
    embedding = Embedding(
        state=jnp.asarray(state),
        carry=(jnp.zeros((size, 1)), jnp.zeros((size, 1))),
        value_prefix=jnp.zeros(size),
        step=jnp.zeros(size, jnp.int32),
    )
    policy = jnp.zeros((size, 2 * SPEC.action_size))
    return Root(embedding=embedding, policy_logits=policy, value=jnp.zeros(size))


def searched(model=None, *, state=BEST, keys=None, explore=True, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    search = make_search(config, model or Target(), discount=0.9, explore=explore)
    keys = jax.random.key(0) if keys is None else keys
    return jax.device_get(jax.jit(search)({}, root(state), keys))


@pytest.mark.parametrize("tree", ["mctx", "flat"])
def test_the_best_candidate_is_found(tree):
    found = searched(tree=tree)
    distance = np.abs(found.candidates - BEST[:, None]).sum(-1)
    nearest = found.candidates[np.arange(len(BEST)), distance.argmin(-1)]
    np.testing.assert_array_equal(found.action, nearest)
    np.testing.assert_array_equal(found.policy, np.eye(16)[distance.argmin(-1)])


def test_the_improved_policy_prefers_better_candidates():
    found = searched(candidate_target="improved")
    np.testing.assert_allclose(found.policy.sum(-1), 1, rtol=1e-5)
    distance = np.abs(found.candidates - BEST[:, None]).sum(-1)
    for weights, far in zip(found.policy, distance, strict=True):
        assert (np.diff(weights[np.argsort(far)]) <= 1e-6).all()


def test_one_number_learns_the_improved_policy():
    spec = dataclasses.replace(SPEC, action_size=1)
    model = SimpleNamespace(spec=spec, dynamics=Target().dynamics, predict=_one_number)
    start = root(BEST[:, :1]).replace(policy_logits=jnp.zeros((len(BEST), 2)))
    search = make_search(CONFIG, model, discount=0.9, explore=True)
    found = jax.jit(search)({}, start, jax.random.key(0))
    assert found.candidates.shape == (len(BEST), 16, 1)
    assert ((found.policy > 0).sum(-1) > 1).all()


def _one_number(variables, embedding):
    del variables
    size = len(embedding.state)
    return jnp.zeros((size, 2)), jnp.zeros(size)


def test_a_later_reward_is_found_through_the_model():
    # Each candidate is visited twice before the first half is dropped.
    found = searched(TwoSteps(), num_simulations=64, max_considered_actions=8)
    assert (found.action[:, 0] > 0).all()
    assert (found.value > 0.1).all()


def test_what_a_root_draws_does_not_depend_on_its_company():
    keys = jax.random.split(jax.random.key(3), len(BEST))
    together, backwards = searched(keys=keys), searched(state=BEST[::-1], keys=keys[::-1])
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other[::-1], rtol=1e-5, atol=1e-6),
        *(together, backwards),
    )


def test_below_the_root_every_node_draws_its_own():
    search = make_tree_search(CONFIG, Target(), discount=0.9, explore=True)
    _, tree = jax.jit(search)({}, root(BEST), jax.random.key(0))
    below = np.asarray(tree.embeddings.candidates[0, 1:17])  # first visits of the candidates
    assert (below[:, 2:] == 0).all()
    assert len(np.unique(below[:, :2].reshape(-1, 2), axis=0)) == 32
    # Slots without a candidate are never taken.
    assert (np.asarray(tree.children_visits)[0, 1:, 2:] == 0).all()


def test_only_training_widens_the_policy():
    training, evaluation = (root_widening(CONFIG, explore=explore) for explore in (True, False))
    np.testing.assert_array_equal(training, [1] * 4 + [3] * 12)
    np.testing.assert_array_equal(evaluation, np.ones(16))


def test_a_search_that_needs_a_finite_set_is_refused():
    with pytest.raises(BadInput, match=r"set search\.policy=gumbel"):
        make_search(SearchConfig(policy="puct_ez"), Target(), discount=0.9, explore=True)
