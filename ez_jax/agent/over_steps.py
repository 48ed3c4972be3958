"""One function of all steps of an unroll: one after the other, or all at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ez_jax.structs import Variables

StepFn = Callable[[Variables, Any], tuple[Any, Variables]]


def over_steps(
    function: StepFn, variables: Variables, steps: Any, *, at_once: bool
) -> tuple[Any, Variables]:
    """Results of `function(variables, step)` for K steps, and the variables after the last.

    The running statistics move step by step in either case, so both give the same up to rounding.
    At once there are fewer and larger operations, for which the results of a step may not depend
    on the running statistics.

    Args:
      function: gives a result and the variables, of which only the statistics may change.
      variables: before the first step.
      steps: a tree of arrays [K, ...].
      at_once: whether all steps are one batch.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})

    def apply(stats: dict, step: Any) -> tuple[dict, Any]:
        used = {"params": params, "batch_stats": stats} if stats else {"params": params}
        result, after = function(used, step)
        return after.get("batch_stats", {}), result

    if at_once:
        after, results = _at_once(apply, stats, steps)
    else:
        # Unrolled: as a loop the backward convolutions take three times the CPU time.
        after, results = jax.lax.scan(apply, stats, steps, unroll=True)
    return results, {**variables, "batch_stats": after} if stats else variables


def _at_once(
    apply: Callable[[dict, Any], tuple[dict, Any]], stats: dict, steps: Any
) -> tuple[dict, Any]:
    """Every step keeps a share of the statistics, which is their derivative, and adds to it."""
    ones = jax.tree.map(jnp.ones_like, stats)

    def alone(step: Any) -> tuple[dict, dict, Any]:
        """One step from the statistics before all of them; also the share that it keeps."""
        return jax.jvp(lambda stats: apply(stats, step), (stats,), (ones,), has_aux=True)

    def moved(before: Array, after: Array, kept: Array) -> Array:
        now = before
        for k in range(len(after)):
            now = kept[k] * now + (after[k] - kept[k] * before)
        return now

    after, kept, results = jax.vmap(alone)(steps)
    return jax.tree.map(moved, stats, after, kept), results
