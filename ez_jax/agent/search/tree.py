"""What all searches share: their input, the values in mctx's tree, and their output."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Bool, Float, Key

from ez_jax.structs import SearchOutput, Variables


class SearchInput(NamedTuple):
    """The input of a search policy."""

    variables: Variables  # of the model, for `recurrent_fn`
    recurrent_fn: mctx.RecurrentFn  # the model; its embeddings are `Embedding`s
    num_simulations: int
    root: mctx.RootFnOutput  # prior_logits f32[B, A], value f32[B] and embedding of the network
    keys: Key[Array, " B"]  # one per root, the only source of its random numbers; consumed
    temperature: Float[Array, ""] | float  # of the acting policy
    invalid_actions: Bool[Array, "B A"] | None  # True where an action must not be taken at the root


# The result and the tree; a program that drops the tree does not store it.
Found = tuple[SearchOutput, mctx.Tree]
# A variant of search, made for a configuration by its entry in `SEARCHES`.
PolicyFn = Callable[[SearchInput], Found]


NEVER_TAKEN = jnp.finfo(jnp.float32).min  # logit of an action that must not be taken


def found_in_tree(
    root: mctx.RootFnOutput, tree: mctx.Tree, *, action: Array, policy: Array, value: Array
) -> Found:
    """The output of a search, with its gain over the network's policy."""
    qs = jax.vmap(lambda one: qs_with_mixed_value(one, mctx.Tree.ROOT_INDEX))(tree)
    gain = jnp.sum((policy - jax.nn.softmax(root.prior_logits)) * qs, axis=-1)
    return SearchOutput(action=action, policy=policy, value=value, gain=gain), tree


TINY = 1e-8


def qs_with_mixed_value(tree: mctx.Tree, node_index: Array | int) -> Float[Array, " A"]:
    """Qs of a node's actions; unvisited ones get the mixed value (Danihelka, 2022, eq. 33).

    Args:
      tree: one search tree, not batched.
      node_index: i32[], whose actions are wanted.
    """
    visits = tree.children_visits[node_index]
    prior = jax.nn.softmax(tree.children_prior_logits[node_index])
    qs, visited = edge_qs(tree)[node_index], visits > 0
    # Deviates (Gumbel search, V2): the network's value in the mixed value, not the node's mean.
    mean_q = jnp.sum(visited * prior * qs) / jnp.maximum(jnp.sum(visited * prior), TINY)
    num_visits = jnp.sum(visits)
    mixed = (tree.raw_values[node_index] + num_visits * mean_q) / (1 + num_visits)
    return jnp.where(visited, qs, mixed)


def edge_qs(tree: mctx.Tree) -> Float[Array, "*B M A"]:
    """Reward plus discounted mean value of every edge; arbitrary for unvisited edges."""
    return tree.children_rewards + tree.children_discounts * tree.children_values
