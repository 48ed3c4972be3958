"""Gumbel MuZero with completed Qs on the scale of the whole tree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float

from ez_jax.agent.search import flat
from ez_jax.agent.search.tree import (
    NEVER_TAKEN,
    Found,
    PolicyFn,
    SearchInput,
    edge_qs,
    found_in_tree,
    qs_with_mixed_value,
)
from ez_jax.config import SearchConfig, search_budget


def completed_q(
    tree: mctx.Tree,
    node_index: Array,
    *,
    value_scale: float,
    maxvisit_init: float,
    min_q_range: float,
) -> Float[Array, " A"]:
    """σ(completed Q) of Gumbel MuZero on the scale of the whole tree; an mctx `qtransform`.

    mctx scales the Qs of every node to 0..1, so that with two actions noise decides between them.
    As in EfficientZero V2, here the smallest and largest Q of the tree are 0 and 1.

    Args:
      tree: one search tree, not batched.
      node_index: i32[], whose actions are wanted.
      value_scale: c_scale.
      maxvisit_init: c_visit.
      min_q_range: the smallest range of Qs to scale by.
    """
    visits = tree.children_visits[node_index]
    qs, all_qs = qs_with_mixed_value(tree, node_index), edge_qs(tree)
    expanded = tree.children_visits > 0
    low = jnp.min(jnp.where(expanded, all_qs, jnp.inf))
    high = jnp.max(jnp.where(expanded, all_qs, -jnp.inf))
    scaled = (qs - low) / jnp.maximum(high - low, min_q_range)
    # Before the first visit there is no scale and no difference: everything is 0.
    scaled = jnp.where(jnp.sum(visits) > 0, jnp.clip(scaled, 0.0, 1.0), 0.0)
    return (maxvisit_init + jnp.max(visits)) * value_scale * scaled


def selection(num_simulations: int, num_considered: int, qtransform: Any) -> dict[str, Any]:
    """Sequential halving at the root, deterministic choice below (mctx)."""
    return {
        "root_action_selection_fn": functools.partial(
            mctx.gumbel_muzero_root_action_selection,
            num_simulations=num_simulations,
            max_num_considered_actions=num_considered,
            qtransform=qtransform,
        ),
        "interior_action_selection_fn": functools.partial(
            mctx.gumbel_muzero_interior_action_selection, qtransform=qtransform
        ),
    }


def make_gumbel(config: SearchConfig, explore: bool) -> PolicyFn:
    """Gumbel MuZero (Danihelka et al., 2022), as EfficientZero V2 uses it.

    As `mctx.gumbel_muzero_policy`, except that the noise of every root comes from its own key.
    """
    qtransform = functools.partial(
        completed_q,
        value_scale=config.value_scale,
        maxvisit_init=config.maxvisit_init,
        min_q_range=config.min_q_range,
    )

    def policy(given: SearchInput) -> Found:
        # The temperature is not used: the winner of the halving is executed.
        invalid = given.invalid_actions
        if invalid is None:
            invalid = jnp.zeros(given.root.prior_logits.shape, bool)
        logits = jnp.where(invalid, NEVER_TAKEN, given.root.prior_logits)
        root = given.root.replace(prior_logits=logits)
        considered = search_budget(config, logits.shape[1]).max_considered_actions
        draw = lambda key: jax.random.gumbel(key, logits.shape[1:], logits.dtype)  # noqa: E731
        noise = jax.vmap(draw)(given.keys)
        noise = config.gumbel_scale * noise if explore else jnp.zeros_like(noise)
        select = selection(given.num_simulations, considered, qtransform)
        loop = flat.loop(given.variables, given.recurrent_fn, flat.everywhere(*select.values()))
        tree = mctx.search(
            *(given.variables, given.keys[0]),  # no other random numbers
            root=root,
            recurrent_fn=given.recurrent_fn,
            **select,
            num_simulations=given.num_simulations,
            invalid_actions=invalid,
            extra_data=mctx.GumbelMuZeroExtraData(root_gumbel=noise),
            loop_fn=loop if flat.is_chosen(config) else jax.lax.fori_loop,
        )
        summary = tree.summary()
        improved = logits + jax.vmap(qtransform, (0, None))(tree, mctx.Tree.ROOT_INDEX)
        is_finalist = summary.visit_counts == jnp.max(summary.visit_counts, -1, keepdims=True)
        score = jnp.where(is_finalist & ~invalid, noise + improved, -jnp.inf)
        return found_in_tree(
            *(root, tree),
            action=jnp.argmax(score, axis=-1).astype(jnp.int32),
            policy=jax.nn.softmax(jnp.where(invalid, NEVER_TAKEN, improved)),
            value=summary.value,
        )

    return policy
