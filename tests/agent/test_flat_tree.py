"""The tree without loops of unknown length is the tree that mctx grows."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from ez_jax.agent.search import flat, make_tree_search
from ez_jax.agent.search.puct_ez import inherited_q
from ez_jax.agent.search.search import SEARCHES
from ez_jax.agent.search.tree import edge_qs
from ez_jax.config import SearchConfig
from ez_jax.structs import Embedding, Root

pytestmark = pytest.mark.usefixtures("quick_compiling")

BATCH, ACTIONS, SIMULATIONS, HORIZON = 6, 5, 20, 3


class Hashed:
    """A model whose rewards, values and priors are hashes; rewards are differences of a prefix."""

    def dynamics(self, variables, embedding, action):
        del variables
        state = jnp.sin(embedding.state * 7.7 + 1.3 * action)
        reward, step = jnp.cos(5 * state), embedding.step + 1
        ends = step == HORIZON
        prefix = jnp.where(ends, 0.0, embedding.value_prefix + reward)
        step = jnp.where(ends, 0, step)
        following = embedding.replace(state=state, value_prefix=prefix, step=step)
        return following, (embedding.value_prefix + reward) - embedding.value_prefix

    def predict(self, variables, embedding):
        del variables
        logits = jnp.sin(31 * embedding.state[:, None] * jnp.arange(1, ACTIONS + 1))
        return logits, 3 * jnp.sin(3 * embedding.state)


def hashed_root() -> Root:
    state = jnp.asarray(np.random.default_rng(0).normal(size=BATCH), jnp.float32)
    zeros = jnp.zeros(BATCH)
    embedding = Embedding(
        state=state, carry=(zeros, zeros), value_prefix=zeros, step=zeros.astype(jnp.int32)
    )
    logits, value = Hashed().predict({}, embedding)
    return Root(embedding=embedding, policy_logits=logits, value=value)


@functools.cache
def grown(tree: str, policy: str, explore: bool, masked: bool, discount: float = 0.97):
    config = SearchConfig(
        policy=policy, num_simulations=SIMULATIONS, tree=tree, max_considered_actions=4
    )
    search = make_tree_search(config, Hashed(), discount=discount, explore=explore)
    invalid = np.zeros((BATCH, ACTIONS), bool)
    invalid[:, 1:3] = masked
    keys = jax.random.split(jax.random.key(2), BATCH)
    return jax.device_get(jax.jit(search)({}, hashed_root(), keys, 1.0, jnp.asarray(invalid)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("explore", "masked"), [(False, False), (True, True)], ids=["plain", "exploring, some invalid"]
)
@pytest.mark.parametrize("policy", sorted(SEARCHES))
def test_every_node_and_every_visit_is_that_of_mctx(policy, explore, masked):
    (found, tree), (expected, theirs) = (
        grown(name, policy, explore, masked) for name in ("flat", "mctx")
    )
    for name in ("parents", "action_from_parent", "children_index", "children_visits"):
        np.testing.assert_array_equal(tree[name], theirs[name], err_msg=name)
    np.testing.assert_array_equal(tree.node_visits, theirs.node_visits)
    for name in ("node_values", "raw_values", "children_values", "children_rewards"):
        np.testing.assert_allclose(tree[name], theirs[name], atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found.action, expected.action)
    for name in ("policy", "value", "gain"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6),
        *(tree.embeddings, theirs.embeddings),
    )
    assert tree.node_visits[:, 1:].max() > SIMULATIONS / 4, "deep enough to mean something"


@pytest.mark.parametrize(
    "discount", [0.97, *(pytest.param(x, marks=pytest.mark.long) for x in (0.0, 0.1, 1.0))]
)
def test_any_discount_backs_up_as_in_mctx(discount):
    (_, tree), (_, theirs) = (
        grown(name, "puct_ez", False, False, discount) for name in ("flat", "mctx")
    )
    np.testing.assert_array_equal(tree.children_visits, theirs.children_visits)
    np.testing.assert_allclose(tree.node_values, theirs.node_values, atol=2e-6)


def test_what_is_inherited_is_the_same_summed_or_doubled():
    _, tree = grown("mctx", "puct_ez", True, False)
    above = np.zeros((BATCH, SIMULATIONS + 1, SIMULATIONS + 1), bool)
    for b, m in np.ndindex(BATCH, SIMULATIONS + 1):
        node = m
        while node != mctx.Tree.NO_PARENT:
            above[b, m, node], node = True, tree.parents[b, node]
    tree = jax.tree.map(jnp.asarray, tree)
    qs = edge_qs(tree)
    doubled, summed = inherited_q(tree, qs), inherited_q(tree, qs, jnp.asarray(above))
    np.testing.assert_allclose(summed, doubled, atol=1e-6)


@pytest.mark.parametrize("policy", sorted(SEARCHES))
def test_no_loop_is_of_unknown_length(policy):
    def program(tree: str) -> str:
        config = SearchConfig(policy=policy, num_simulations=4, tree=tree)
        # Without root noise, whose own sampler loops until it has accepted a number.
        search = make_tree_search(config, Hashed(), discount=0.9, explore=False)
        return str(jax.make_jaxpr(lambda key: search({}, hashed_root(), key))(jax.random.key(0)))

    assert "while[" in program("mctx")
    assert "while[" not in program("flat")


def test_a_cpu_walks_unless_told_otherwise(monkeypatch):
    chosen = {tree: flat.is_chosen(SearchConfig(tree=tree)) for tree in ("auto", "mctx", "flat")}
    assert chosen == {"auto": False, "mctx": False, "flat": True}
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert flat.is_chosen(SearchConfig())
