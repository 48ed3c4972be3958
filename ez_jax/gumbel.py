"""What Gumbel MuZero adds to mctx's tree here: completed Qs on the scale of the whole tree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float

from ez_jax import puct_ez
from ez_jax.config import SearchConfig

TINY = 1e-8


def qs_with_mixed_value(tree: mctx.Tree, node_index: Array | int) -> Float[Array, " A"]:
    """Qs of a node's actions; those not visited get the mixed value (Danihelka, 2022, eq. 33).

    Args:
      tree: one search tree, not batched.
      node_index: i32[], whose actions are wanted.
    """
    visits = tree.children_visits[node_index]
    prior = jax.nn.softmax(tree.children_prior_logits[node_index])
    qs, visited = puct_ez.edge_qs(tree)[node_index], visits > 0
    # Deviates (Gumbel search, V2): the network's value in the mixed value, not the node's mean.
    mean_q = jnp.sum(visited * prior * qs) / jnp.maximum(jnp.sum(visited * prior), TINY)
    num_visits = jnp.sum(visits)
    mixed = (tree.raw_values[node_index] + num_visits * mean_q) / (1 + num_visits)
    return jnp.where(visited, qs, mixed)


def completed_q(
    tree: mctx.Tree,
    node_index: Array,
    *,
    value_scale: float,
    maxvisit_init: float,
    min_q_range: float,
) -> Float[Array, " A"]:
    """σ(completed Q) of Gumbel MuZero, on the scale of the whole tree; an mctx `qtransform`.

    mctx stretches the Qs of every node to 0..1, so that with two actions any noise decides between
    them; as in EfficientZero V2 the smallest and largest Q of the tree are 0 and 1 here.

    Args:
      tree: one search tree, not batched.
      node_index: i32[], whose actions are wanted.
      value_scale: c_scale.
      maxvisit_init: c_visit.
      min_q_range: a smaller range of Qs counts as this.
    """
    visits = tree.children_visits[node_index]
    qs, all_qs = qs_with_mixed_value(tree, node_index), puct_ez.edge_qs(tree)
    expanded = tree.children_visits > 0
    low = jnp.min(jnp.where(expanded, all_qs, jnp.inf))
    high = jnp.max(jnp.where(expanded, all_qs, -jnp.inf))
    scaled = (qs - low) / jnp.maximum(high - low, min_q_range)
    # Before the first visit there is no scale and no difference: everything is 0.
    scaled = jnp.where(jnp.sum(visits) > 0, jnp.clip(scaled, 0.0, 1.0), 0.0)
    return (maxvisit_init + jnp.max(visits)) * value_scale * scaled


def selection(config: SearchConfig, num_simulations: int, qtransform: Any) -> dict[str, Any]:
    """Sequential halving at the root, the deterministic choice below it (mctx)."""
    return {
        "root_action_selection_fn": functools.partial(
            mctx.gumbel_muzero_root_action_selection,
            num_simulations=num_simulations,
            max_num_considered_actions=config.max_considered_actions,
            qtransform=qtransform,
        ),
        "interior_action_selection_fn": functools.partial(
            mctx.gumbel_muzero_interior_action_selection, qtransform=qtransform
        ),
    }
