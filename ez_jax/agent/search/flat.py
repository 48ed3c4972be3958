"""mctx's tree search without loops of unknown length, for accelerators.

mctx walks down and up node by node, and after each node the host of a GPU has to ask whether that
was the last one. Here a simulation is a fixed number of wide operations on all M nodes:

- ancestors are stored: `above[m, a]`, M x M flags per root;
- a node is on the path if the choice at every ancestor leads to the next, and the leaf is the last
  such node, because a child always comes after its parent;
- each node on the path gets the sum of the rewards below it, weighted by the discounts in between.

It replaces only mctx's loop (`loop_fn`): root, model and result are the same. On a CPU, walking is
faster.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Bool, Float, Int, Key

from ez_jax.config import SearchConfig
from ez_jax.system import devices

Above = Bool[Array, "B M M"]  # [b, m, a]: a is m or an ancestor of it
LoopFn = Callable[[int, int, Any, tuple[Array, mctx.Tree]], tuple[Array, mctx.Tree]]
LEAST_DISCOUNT = 1e-30  # its logarithm is still finite


class ChooseFn(Protocol):
    """The action that a descent would take at every node, including nodes not yet expanded."""

    def __call__(self, key: Key[Array, ""], tree: mctx.Tree, above: Above) -> Int[Array, "B M"]:
        """Choose at all nodes; the key is consumed."""
        ...


class Edges(flax.struct.PyTreeNode, kw_only=True):
    """Data of each node beside mctx's tree; `reward` and `discount` are those of its edge."""

    above: Above
    reward: Float[Array, "B M"]
    discount: Float[Array, "B M"]
    log_discount: Float[Array, "B M"]  # of the whole path from the root


def is_chosen(config: SearchConfig) -> bool:
    """Whether to use this tree, by the configuration or the kind of device."""
    return config.tree == "flat" or (config.tree == "auto" and devices.platform() != "cpu")


def everywhere(root_fn: Callable, interior_fn: Callable) -> ChooseFn:
    """mctx's choices at the root and below it, for all nodes at once."""

    def choose(key: Key[Array, ""], tree: mctx.Tree, above: Above) -> Int[Array, "B M"]:
        batch, size = tree.node_visits.shape
        keys = jax.random.split(key, (batch, size))
        depth = jnp.sum(above, axis=-1) - 1
        nodes = jnp.arange(size)
        at_nodes = jax.vmap(interior_fn, (0, None, 0, 0))
        choice = jax.vmap(at_nodes, (0, 0, None, 0))(keys, tree, nodes, depth)
        at_root = jax.vmap(root_fn, (0, 0, None))(keys[:, 0], tree, mctx.Tree.ROOT_INDEX)
        return choice.at[:, mctx.Tree.ROOT_INDEX].set(at_root)

    return choose


def loop(params: Any, recurrent_fn: mctx.RecurrentFn, choose: ChooseFn) -> LoopFn:
    """A `loop_fn` for mctx that builds the tree itself.

    Args:
      params: passed to `recurrent_fn`.
      recurrent_fn: the model.
      choose: the search policy.
    """

    def simulate(i: Array, state: tuple[Array, mctx.Tree, Edges]) -> tuple[Array, mctx.Tree, Edges]:
        key, tree, edges = state
        choose_key, expand_key = jax.random.split(jax.random.fold_in(key, i))
        choice = choose(choose_key, with_children(tree, edges), edges.above)
        visited = on_the_way(tree, edges, choice) & (jnp.arange(choice.shape[1]) <= i)
        leaf = jnp.max(jnp.where(visited, jnp.arange(choice.shape[1]), 0), axis=1)
        of_leaf = lambda x: x[jnp.arange(len(leaf)), leaf]  # noqa: E731
        action, embedding = of_leaf(choice), jax.tree.map(of_leaf, tree.embeddings)
        step, embedding = recurrent_fn(params, expand_key, action, embedding)
        edges = add_edge(edges, i + 1, visited, leaf, step)
        tree = add_node(tree, i + 1, (leaf, action), step, embedding)
        return key, back_up(tree, edges, i + 1, visited), edges

    def grow(first: int, end: int, body: Any, start: tuple[Array, mctx.Tree]):
        del body
        key, tree = start
        state = key, tree, no_edges(tree)
        key, tree, edges = jax.lax.fori_loop(first, end, simulate, state)
        return key, with_children(tree, edges)

    return grow


def no_edges(tree: mctx.Tree) -> Edges:
    """For a tree that is only a root."""
    zeros, size = jnp.zeros_like(tree.node_values), tree.node_values.shape[1]
    root = jnp.arange(size) == mctx.Tree.ROOT_INDEX
    return Edges(
        above=jnp.broadcast_to(root[:, None] & root, (*zeros.shape, size)),
        reward=zeros,
        discount=zeros,
        log_discount=zeros,
    )


def with_children(tree: mctx.Tree, edges: Edges) -> mctx.Tree:
    """Look up, for each node, the data that mctx keeps at its parent."""
    child = tree.children_index
    index = jnp.maximum(child, 0).reshape(len(child), -1)

    def of_child(x: Array) -> Array:
        taken = jnp.take_along_axis(x, index, axis=1).reshape(child.shape)
        return jnp.where(child == mctx.Tree.UNVISITED, 0, taken)

    return tree.replace(
        children_visits=of_child(tree.node_visits),
        children_values=of_child(tree.node_values),
        children_rewards=of_child(edges.reward),
        children_discounts=of_child(edges.discount),
    )


def on_the_way(tree: mctx.Tree, edges: Edges, choice: Int[Array, "B M"]) -> Bool[Array, "B M"]:
    """Whether a descent that follows the choices passes each existing node."""
    parent = jnp.maximum(tree.parents, mctx.Tree.ROOT_INDEX)
    is_chosen = jnp.take_along_axis(choice, parent, axis=1) == tree.action_from_parent
    is_chosen = is_chosen.at[:, mctx.Tree.ROOT_INDEX].set(True)
    return jnp.all(is_chosen[:, None] | ~edges.above, axis=-1)


def add_edge(
    edges: Edges, new: Array, visited: Array, leaf: Array, step: mctx.RecurrentFnOutput
) -> Edges:
    """Data of the new node and its path."""
    log_before = edges.log_discount[jnp.arange(len(leaf)), leaf]
    log_discount = log_before + jnp.log(jnp.maximum(step.discount, LEAST_DISCOUNT))
    return Edges(
        above=_put(edges.above, new, visited | (jnp.arange(visited.shape[1]) == new)),
        reward=_put(edges.reward, new, step.reward),
        discount=_put(edges.discount, new, step.discount),
        log_discount=_put(edges.log_discount, new, log_discount),
    )


def add_node(
    tree: mctx.Tree,
    new: Array,
    edge: tuple[Array, Array],
    step: mctx.RecurrentFnOutput,
    embedding: Any,
) -> mctx.Tree:
    """The tree with one more node, at `(leaf, action)` of every root."""
    leaf, action = edge
    return tree.replace(
        node_visits=_put(tree.node_visits, new, jnp.ones_like(leaf)),
        raw_values=_put(tree.raw_values, new, step.value),
        node_values=_put(tree.node_values, new, step.value),
        parents=_put(tree.parents, new, leaf),
        action_from_parent=_put(tree.action_from_parent, new, action),
        children_index=tree.children_index.at[jnp.arange(len(leaf)), leaf, action].set(new),
        children_prior_logits=_put(tree.children_prior_logits, new, step.prior_logits),
        embeddings=jax.tree.map(lambda x, y: _put(x, new, y), tree.embeddings, embedding),
    )


def back_up(tree: mctx.Tree, edges: Edges, new: Array, visited: Array) -> mctx.Tree:
    """Add the visit and its return at every node on the path.

    The return of a node is the sum of the discounted rewards of the nodes below it on the path,
    plus the discounted value of the new node.
    """
    nodes = jnp.arange(visited.shape[1])
    reward = edges.reward + jnp.where(nodes == new, edges.discount * tree.node_values, 0.0)
    is_below = (visited | (nodes == new))[:, None] & (nodes > nodes[:, None])
    parent = jnp.maximum(tree.parents, mctx.Tree.ROOT_INDEX)
    log_before = jnp.take_along_axis(edges.log_discount, parent, axis=1)
    weight = jnp.exp(log_before[:, None] - edges.log_discount[..., None])
    returns = jnp.sum(jnp.where(is_below, weight * reward[:, None], 0.0), axis=-1)
    mean = (tree.node_values * tree.node_visits + returns) / (tree.node_visits + 1)
    return tree.replace(
        node_visits=tree.node_visits + visited,
        node_values=jnp.where(visited, mean, tree.node_values),
    )


def _put(values: Array, node: Array, value: Array) -> Array:
    """Replace the entries of one node in `values` [B, M, ...]."""
    if values.ndim == 2:  # reading and writing everything fuses into one kernel
        return jnp.where(jnp.arange(values.shape[1]) == node, value[:, None], values)
    return jax.lax.dynamic_update_index_in_dim(values, value.astype(values.dtype), node, 1)
