"""EfficientZero's own PUCT on mctx's tree, without a fork of mctx (Ye et al., 2021, appendix A).

It differs from MuZero's PUCT, as in mctx, in four places. The visits that scale the priors are
those of the children, so every first choice at a node is a tie. A child without visits gets the
mean of its visited siblings and of the value that the node itself inherited. Qs are on the scale of
the whole tree, whose range counts as at least `search.min_q_range`. And the root's value is the sum
of the returns through it divided by one more than their number, without its own network value.

After every simulation the choice at *every* node is computed at once, in a few wide operations, and
the descent only looks it up. mctx computes it node by node on the way down.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Bool, Float, Int

from ez_jax.agent.search import flat
from ez_jax.agent.search.tree import (
    TINY,
    Found,
    PolicyFn,
    SearchInput,
    edge_qs,
    found_in_tree,
)
from ez_jax.config import SearchConfig

TIE = 1e-6  # scores this close to the best count as equal
NO_UNDERFLOW = 100  # nodes up to which shares, at least 2^-nodes, can be divided by each other


class Guide(flax.struct.PyTreeNode, kw_only=True):
    """Data of the M nodes beside mctx's tree, in `tree.extra_data`."""

    choice: Int[Array, "B M"]  # the action that a descent takes at each node
    tie_break: Float[Array, "B M A"]  # among equal scores the largest wins, then the lowest action


def _at(values: Array, node: Int[Array, "B M"]) -> Array:
    """`values[b, node[b, m]]`, for values [B, M]."""
    return jnp.take_along_axis(values, node, axis=1)


def _doubling(step: Callable[[Any], Any], start: Any) -> Any:
    """Apply a pointer-doubling step until it has covered a chain of all nodes.

    A loop in the program: unrolled, the compiler would fuse gathers into gathers, which takes
    minutes.
    """
    num_nodes = jax.tree.leaves(start)[0].shape[1]
    return jax.lax.fori_loop(0, num_nodes.bit_length(), lambda _, state: step(state), start)


def inherited_q(
    tree: mctx.Tree, qs: Float[Array, "B M A"], above: flat.Above | None = None
) -> Float[Array, "B M"]:
    """The Q of a child of each node before its first visit.

    At the root the mean Q of its visited children, 0 if there are none; below,
    m(node) = (m(parent) + Σ visited Q) / (1 + number of visited). This is linear in m(parent), so
    chains of any depth are composed by pointer doubling, or in one sum if the ancestors (`above`)
    are known.
    """
    visited = tree.children_visits > 0
    number = jnp.sum(visited, axis=-1)
    total = jnp.sum(jnp.where(visited, qs, 0.0), axis=-1)
    is_root = jnp.arange(number.shape[1]) == mctx.Tree.ROOT_INDEX
    # m(node) = offset + slope * m(parent)
    slope = jnp.where(is_root, 0.0, 1 / (1 + number))
    offset = total / jnp.where(is_root, jnp.maximum(number, 1), 1 + number)
    if above is not None and len(is_root) <= NO_UNDERFLOW:
        # m(node) = Σ over a above it of offset(a) * product of the slopes below a
        slope = jnp.where(is_root, 1.0, slope)
        share = jnp.prod(jnp.where(above, slope[:, None], 1.0), axis=-1)
        return share * jnp.sum(jnp.where(above, (offset / share)[:, None], 0.0), axis=-1)
    parent = jnp.maximum(tree.parents, mctx.Tree.ROOT_INDEX)

    def compose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        offset, slope, parent = state
        offset = offset + slope * _at(offset, parent)
        return offset, slope * _at(slope, parent), _at(parent, parent)

    return _doubling(compose, (offset, slope, parent))[0]


Bounds = tuple[Float[Array, "B 1 1"], Float[Array, "B 1 1"]]


def tree_bounds(tree: mctx.Tree, qs: Float[Array, "B M A"]) -> Bounds:
    """Smallest and largest Q of the tree; +inf and -inf before the first."""
    # Deviates (bounds of the search, V1): every reward is relative to its own parent.
    visited = tree.children_visits > 0
    low = jnp.min(qs, axis=(1, 2), keepdims=True, where=visited, initial=jnp.inf)
    high = jnp.max(qs, axis=(1, 2), keepdims=True, where=visited, initial=-jnp.inf)
    return low, high


def official_bounds(tree: mctx.Tree, qs: Float[Array, "B M A"]) -> Bounds:
    """The bounds of the official code, which takes rewards relative to the wrong node.

    It walks the tree with a stack and subtracts from each value prefix that of the node popped just
    before. This is the parent for only one child of a node: its highest action. For the others it
    is the last node below the next higher sibling.
    """
    del qs
    parent = jnp.maximum(tree.parents, mctx.Tree.ROOT_INDEX)
    sibling, has_sibling = _next_sibling(tree, parent)
    popped_before = jnp.where(has_sibling, _at(_last_below(tree), sibling), parent)
    base = tree.embeddings.value_prefix
    edge = (jnp.arange(len(parent))[:, None], parent, jnp.maximum(tree.action_from_parent, 0))
    prefix = tree.children_rewards[edge] + _at(base, parent)
    q = prefix - _at(base, popped_before) + tree.children_discounts[edge] * tree.node_values
    is_child = tree.parents >= 0
    low = jnp.min(q, axis=1, where=is_child, initial=jnp.inf)
    high = jnp.max(q, axis=1, where=is_child, initial=-jnp.inf)
    return low[:, None, None], high[:, None, None]


def _last_below(tree: mctx.Tree) -> Int[Array, "B M"]:
    """The node popped last of a node and its descendants: the lowest action at every level."""
    visited = tree.children_visits > 0
    lowest = jnp.argmax(visited, axis=-1)[..., None]
    child = jnp.take_along_axis(tree.children_index, lowest, axis=-1)[..., 0]
    itself = jnp.broadcast_to(jnp.arange(child.shape[1]), child.shape)
    pointer = jnp.where(jnp.any(visited, axis=-1), child, itself)
    return _doubling(lambda pointer: _at(pointer, pointer), pointer)


def _next_sibling(
    tree: mctx.Tree, parent: Int[Array, "B M"]
) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
    """The visited sibling of each node with the next higher action, and whether it exists."""
    actions = jnp.arange(tree.num_actions)
    siblings = jnp.take_along_axis(tree.children_index, parent[..., None], axis=1)
    higher = (siblings >= 0) & (actions > tree.action_from_parent[..., None])
    exists = jnp.any(higher, axis=-1) & (tree.parents >= 0)
    first = jnp.argmax(higher, axis=-1)[..., None]
    sibling = jnp.take_along_axis(siblings, first, axis=-1)[..., 0]
    return jnp.where(exists, sibling, 0), exists


BOUNDS: dict[str, Callable[[mctx.Tree, Array], Bounds]] = {
    "parent": tree_bounds,
    "official": official_bounds,
}


def choices(
    tree: mctx.Tree,
    tie_break: Float[Array, "B M A"],
    *,
    pb_c_init: float,
    pb_c_base: float,
    min_q_range: float,
    bounds: Callable[[mctx.Tree, Array], Bounds],
    above: flat.Above | None = None,
) -> Int[Array, "B M"]:
    """The action that maximises PUCT at every node (MuZero appendix B, with the changes above)."""
    qs, visits = edge_qs(tree), tree.children_visits
    completed = jnp.where(visits > 0, qs, inherited_q(tree, qs, above)[..., None])
    low, high = bounds(tree, qs)
    scaled = (completed - low) / jnp.maximum(high - low, min_q_range)
    value = jnp.clip(jnp.where(high > low, scaled, completed), 0.0, 1.0)
    total = jnp.sum(visits, axis=-1, keepdims=True)
    rate = pb_c_init + jnp.log((total + pb_c_base + 1) / pb_c_base)
    prior = jax.nn.softmax(tree.children_prior_logits)
    score = value + prior * rate * jnp.sqrt(total) / (1 + visits)
    is_root = (jnp.arange(score.shape[1]) == mctx.Tree.ROOT_INDEX)[:, None]
    forbidden = is_root & (tree.root_invalid_actions[:, None] > 0)
    score = jnp.where(forbidden, -jnp.inf, score)
    ties = score >= jnp.max(score, axis=-1, keepdims=True) - TIE
    return jnp.argmax(jnp.where(ties, tie_break, -1.0), axis=-1).astype(jnp.int32)


def search(
    params: Any,
    key: Array,
    root: mctx.RootFnOutput,
    recurrent_fn: mctx.RecurrentFn,
    num_simulations: int,
    *,
    config: SearchConfig,
    tie_break: Float[Array, "B M A"],
    invalid_actions: Array | None = None,
) -> mctx.Tree:
    """Build a tree as mctx's policies do, but with these choices at the nodes.

    Args:
      params: passed to `recurrent_fn`.
      key: consumed.
      root: its prior already includes the noise.
      recurrent_fn: the model; its embedding is an `Embedding`.
      num_simulations: nodes to add; the tree has M = num_simulations + 1.
      config: constants of PUCT and the kind of bounds.
      tie_break: f32[B, M, A], non-negative; zeros prefer the lowest action.
      invalid_actions: bool[B, A], True where an action must not be taken at the root.
    """
    choose = functools.partial(
        choices,
        pb_c_init=config.pb_c_init,
        pb_c_base=config.pb_c_base,
        min_q_range=config.min_q_range,
        bounds=BOUNDS[config.minmax],
    )

    def simulate_all(first: int, end: int, simulate: Callable, start: tuple) -> tuple:
        """Before each of mctx's simulations, choose at all nodes."""

        def body(i: Array, state: tuple[Array, mctx.Tree]) -> tuple:
            key, tree = state
            guide = tree.extra_data
            guide = guide.replace(choice=choose(tree, guide.tie_break))
            return simulate(i, (key, tree.replace(extra_data=guide)))

        return jax.lax.fori_loop(first, end, body, start)

    def choose_all(key: Array, tree: mctx.Tree, above: flat.Above) -> Array:
        del key
        return choose(tree, tree.extra_data.tie_break, above=above)

    def look_up(key: Array, tree: mctx.Tree, node: Array, depth: Array | None = None) -> Array:
        del key, depth
        return tree.extra_data.choice[node]

    is_flat = flat.is_chosen(config)
    nothing = jnp.zeros(tie_break.shape[:2], jnp.int32)
    return mctx.search(
        params,
        key,
        root=root,
        recurrent_fn=recurrent_fn,
        root_action_selection_fn=look_up,
        interior_action_selection_fn=look_up,
        num_simulations=num_simulations,
        invalid_actions=invalid_actions,
        extra_data=Guide(choice=nothing, tie_break=tie_break),
        loop_fn=flat.loop(params, recurrent_fn, choose_all) if is_flat else simulate_all,
    )


def root_value(tree: mctx.Tree) -> Float[Array, " B"]:
    """The sum of the returns through the root divided by their number plus one, as published."""
    root = mctx.Tree.ROOT_INDEX
    return tree.node_values[:, root] - tree.raw_values[:, root] / tree.node_visits[:, root]


def make_puct_ez(config: SearchConfig, explore: bool) -> PolicyFn:
    """EfficientZero's published PUCT, with MuZero's root noise and acting temperature."""

    def draw(
        key: Array, prior: Float[Array, " A"], invalid: Bool[Array, " A"] | None, num_nodes: int
    ) -> tuple[Array, Array, Array]:
        """Noisy prior, random numbers to break ties, and a key for the action."""
        # Deviates (ties of the search, V1): broken by the key, not by the clock.
        noise_key, tie_key, act_key = jax.random.split(key, 3)
        if explore:
            noise = jax.random.dirichlet(noise_key, jnp.full(len(prior), config.dirichlet_alpha))
            if invalid is not None:  # Dirichlet noise among the valid actions
                noise = jnp.where(invalid, 0.0, noise)
                noise /= jnp.maximum(jnp.sum(noise), TINY)
            prior = prior + config.dirichlet_fraction * (noise - prior)
        return prior, jax.random.uniform(tie_key, (num_nodes, len(prior))), act_key

    def policy(given: SearchInput) -> Found:
        prior, tie_break, act_keys = jax.vmap(draw, (0, 0, 0, None))(
            given.keys,
            jax.nn.softmax(given.root.prior_logits),
            given.invalid_actions,
            given.num_simulations + 1,
        )
        tree = search(
            given.variables,
            given.keys[0],  # no other random numbers
            given.root.replace(prior_logits=jnp.log(prior)),
            given.recurrent_fn,
            given.num_simulations,
            config=config,
            tie_break=tie_break,
            invalid_actions=given.invalid_actions,
        )
        visits = tree.children_visits[:, mctx.Tree.ROOT_INDEX]
        drawn = jax.vmap(jax.random.categorical)(act_keys, jnp.log(visits) / given.temperature)
        return found_in_tree(
            given.root,
            tree,
            action=drawn if explore else jnp.argmax(visits, axis=-1),
            policy=visits / given.num_simulations,
            value=root_value(tree),
        )

    return policy
