"""What all searches share: the values in a tree of mctx, and what was found in it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float

from ez_jax.structs import SearchOutput

# What was found and the tree it was found in; a program that drops the tree does not keep it.
Found = tuple[SearchOutput, mctx.Tree]


# The same as SearchFn, over mctx's root and recurrent_fn, with the tree: one of `SEARCHES`.
PolicyFn = Callable[..., Found]


NEVER_TAKEN = jnp.finfo(jnp.float32).min  # logit of an action that must not be taken


def found_in_tree(
    root: mctx.RootFnOutput, tree: mctx.Tree, *, action: Array, policy: Array, value: Array
) -> Found:
    """What a search found, with what it wins over the network's own policy."""
    qs = jax.vmap(lambda one: qs_with_mixed_value(one, mctx.Tree.ROOT_INDEX))(tree)
    gain = jnp.sum((policy - jax.nn.softmax(root.prior_logits)) * qs, axis=-1)
    return SearchOutput(action=action, policy=policy, value=value, gain=gain), tree


def found_by_mctx(root: mctx.RootFnOutput, output: mctx.PolicyOutput) -> Found:
    """As `found_in_tree`, of a whole policy of mctx."""
    return found_in_tree(
        root,
        output.search_tree,
        action=output.action,
        policy=output.action_weights,
        value=output.search_tree.summary().value,
    )


TINY = 1e-8


def qs_with_mixed_value(tree: mctx.Tree, node_index: Array | int) -> Float[Array, " A"]:
    """Qs of a node's actions; those not visited get the mixed value (Danihelka, 2022, eq. 33).

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
    """Reward plus discounted mean value of every edge; anything where none was followed."""
    return tree.children_rewards + tree.children_discounts * tree.children_values
