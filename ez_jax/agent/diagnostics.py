"""Is the agent learning what it should? Metrics from what the updates compute anyway.

On the device, `measure` compares predictions with their targets, for sums over many updates. On the
host, `readings` turns the sums into ratios. `complaints.py` warns about those that look broken.
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ez_jax.agent import support
from ez_jax.config import Config
from ez_jax.structs import Batch, LossOutput, SearchOutput, Targets

# Moments of predictions and their targets within a batch. They are averaged over updates before
# they become ratios, because with rare rewards many single batches have no variance.
MOMENTS = ("variance", "target_variance", "covariance")
HEADS = ("prefix", "value")

TINY = 1e-6  # a smaller variance, in squared units of reward, counts as zero


def mean_where(mask: Array, x: Array, axis: int | None = None) -> Float[Array, "..."]:
    """Mean over the mask; 0 if the mask is empty."""
    total = jnp.sum(jnp.where(mask > 0, x, 0.0), axis)
    return total / jnp.maximum(jnp.sum(mask > 0, axis), 1)


def _moments(predicted: Array, target: Array, mask: Array) -> dict[str, Array]:
    """Central moments, which float32 can represent however large the values are."""
    off_predicted = predicted - mean_where(mask, predicted)
    off_target = target - mean_where(mask, target)
    products = off_predicted**2, off_target**2, off_predicted * off_target
    return {
        name: mean_where(mask, product) for name, product in zip(MOMENTS, products, strict=True)
    }


def measure(
    output: LossOutput, targets: Targets, batch: Batch, config: Config
) -> dict[str, Float[Array, ""]]:
    """How well predictions follow their targets in one update, and how even the batch is.

    `prefix/error_k` and `value/error_k` are mean absolute errors after k imagined steps, in units
    of reward; `value/clipped` and `prefix/clipped` are shares of targets beyond their supports;
    `norm/value_gap` is the distance between root values in acting and in training mode.
    """
    real = batch.weight > 0  # the others only fill the batch while the replay is short
    mask = targets.mask.T * real  # [K+1, B]
    prefix, prefix_target = output.value_prefix, targets.value_prefix.T
    value, value_target = output.value, targets.value.T
    found = {"value/bias": mean_where(mask[0], value[0] - value_target[0])}
    found["norm/value_gap"] = output.value_gap
    prefix_errors = mean_where(mask[1:], jnp.abs(prefix - prefix_target), axis=1)
    value_errors = mean_where(mask[1:], jnp.abs(value - value_target)[1:], axis=1)
    for k in range(1, len(mask)):
        found[f"prefix/error_{k}"] = prefix_errors[k - 1]
        found[f"value/error_{k}"] = value_errors[k - 1]
    moments = {
        "prefix": _moments(prefix, prefix_target, mask[1:]),
        "value": _moments(value[0], value_target[0], mask[0]),
    }
    found |= {f"{head}/{name}": x for head in HEADS for name, x in moments[head].items()}
    network = config.network
    beyond = lambda x, width: jnp.abs(support.transform(x)) > network.support * width  # noqa: E731
    total, squares = jnp.sum(batch.weight), jnp.sum(batch.weight**2)
    if config.consistency:
        found["consistency/alike"] = output.alike
    return found | {
        "value/clipped": mean_where(mask, 1.0 * beyond(value_target, network.value_bin)),
        "prefix/clipped": mean_where(mask[1:], 1.0 * beyond(prefix_target, network.prefix_bin)),
        "replay/effective_share": total**2 / jnp.maximum(len(real) * squares, TINY),
    }


def searched(found: SearchOutput, counts: Bool[Array, " B"]) -> dict[str, Float[Array, ""]]:
    """The gain of the searches over the policy of the network alone, and their number."""
    gain = jnp.sum(jnp.where(counts, found.gain, 0.0))
    return {"search/gain": gain, "search/count": jnp.sum(counts, dtype=jnp.float32)}


def names(config: Config) -> list[str]:
    """Names of the sums of `measure` and `searched`."""
    depths = range(1, config.learner.unroll_steps + 1)
    by_depth = [f"{head}/error_{k}" for head in HEADS for k in depths]
    moments = [f"{head}/{name}" for head in HEADS for name in MOMENTS]
    alike = ["consistency/alike"] if config.consistency else []
    others = ["value/bias", "value/clipped", "prefix/clipped", "norm/value_gap"]
    others += ["replay/effective_share", "search/gain", "search/count"]
    return [*by_depth, *moments, *alike, *others]


def readings(means: Mapping[str, float]) -> dict[str, float]:
    """Metrics with ratios in place of moments, unless the divisor is zero.

    `correlation` is that of predictions and targets, `spread` the ratio of their standard
    deviations, `explained` the share of the targets' variance explained by the predictions (1 is
    perfect, 0 as good as the mean), and `slope` how much the target rises per unit of prediction
    (1 is calibrated; below 1, predictions are exaggerated). `norm/value_gap_share` is the gap as a
    share of the standard deviation of the values.
    """
    found = dict(means)
    for head in HEADS:
        moments = [found.pop(f"{head}/{name}", 0.0) for name in MOMENTS]
        variance, target_variance, covariance = moments
        if target_variance < TINY:
            continue
        residual = variance + target_variance - 2 * covariance
        found[f"{head}/spread"] = math.sqrt(variance / target_variance)
        found[f"{head}/explained"] = 1 - residual / target_variance
        both = math.sqrt(variance * target_variance)
        found[f"{head}/correlation"] = covariance / both if both > TINY else 0.0
        if variance > TINY:
            found[f"{head}/slope"] = covariance / variance
            if head == "value" and "norm/value_gap" in found:
                found["norm/value_gap_share"] = found["norm/value_gap"] / math.sqrt(variance)
    return found
