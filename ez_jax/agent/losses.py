"""The unrolled loss: K imagined steps, four terms (EfficientZero §4.1-4.2, MuZero appendix G).

The entropy of the policy (EfficientZero V2, control) is a fifth if it has a weight.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ez_jax.agent import continuous, support
from ez_jax.agent.augment import augment, can_be_shifted
from ez_jax.agent.frames import stacks_at
from ez_jax.agent.model import Model
from ez_jax.agent.over_steps import StepFn, over_steps
from ez_jax.config import Config
from ez_jax.structs import Batch, Embedding, LossOutput, Targets, Variables

Terms = dict[str, Float[Array, "*steps B"]]  # by name, per sample

PRIORITY_FLOOR = 1e-6  # so that every row can be sampled
GAP_EVERY = 16  # every 16th sample is evaluated again in acting mode, which is cheap


def cross_entropy(
    target: Float[Array, "... S"], logits: Float[Array, "... S"]
) -> Float[Array, "..."]:
    """Cross entropy of soft targets, in float32."""
    return -jnp.sum(target * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def negative_cosine(online: Float[Array, "B P"], target: Float[Array, "B P"]) -> Float[Array, " B"]:
    """SimSiam's loss (Chen & He, 2021), norms floored at 1e-5."""
    return -jnp.sum(_unit(online) * _unit(target), axis=-1)


def mean_cosine(x: Float[Array, "B P"]) -> Float[Array, ""]:
    """Mean cosine of different samples: at 1 all are equal, and consistency teaches nothing."""
    count = len(x)
    summed = jnp.sum(_unit(x), axis=0)
    return (jnp.sum(summed**2) - count) / max(1, count * (count - 1))


def _unit(x: Float[Array, "B P"]) -> Float[Array, "B P"]:
    x = x.astype(jnp.float32)
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-10))


def loss_weights(config: Config) -> dict[str, float]:
    """The weight of every computed term."""
    loss = config.loss
    weights = {"policy": loss.policy, "value": loss.value, "value_prefix": loss.value_prefix}
    weights |= {"consistency": loss.consistency} if config.consistency else {}
    return weights | ({"entropy": loss.entropy} if loss.entropy else {})


def _views(batch: Batch, model: Model, config: Config, key: Array) -> tuple[Array, Array]:
    """Frames of the first observation [B, F, *obs] and of the next K [B, F-1+K, *obs].

    The two are augmented independently; all frames of the second share one draw, as in the official
    code.
    """
    stack, unroll_steps = model.spec.frame_stack, config.learner.unroll_steps
    first = stacks_at(batch.observation, 0, stack)
    following = batch.observation[:, 1 : stack + unroll_steps]
    shape, shift = model.spec.observation_shape, config.learner.augment_shift
    if not (config.learner.augment and can_be_shifted(shape, shift)):
        return first, following
    keys = jax.random.split(key)
    change = functools.partial(augment, shift=shift, intensity=config.learner.augment_intensity)
    return change(first, keys[0]), change(following, keys[1])


def _head_losses(logits: tuple[Array, Array], targets: Targets, config: Config) -> Terms:
    """Policy and value at all steps, f32[K+1, B]; 0 is the root."""
    policy_logits, value_logits = logits
    network, at_steps = config.network, functools.partial(jnp.moveaxis, source=1, destination=0)
    value_target = support.encode(targets.value.T, network.support, network.value_bin)
    if targets.candidates is None:
        policy = cross_entropy(at_steps(targets.policy), policy_logits)
        log_p = jax.nn.log_softmax(policy_logits.astype(jnp.float32))
        entropy = cross_entropy(jnp.exp(log_p), policy_logits)
    else:
        both = at_steps(targets.policy), at_steps(targets.candidates)
        policy = continuous.cross_entropy(*both, policy_logits)
        entropy = continuous.entropy(policy_logits)
    terms = {
        "policy": targets.policy_mask.T * policy,
        "value": targets.mask.T * cross_entropy(value_target, value_logits),
    }
    return terms | ({"entropy": -targets.policy_mask.T * entropy} if config.loss.entropy else {})


def _consistency(
    model: Model, variables: Variables, imagined: Embedding, frames: Array
) -> tuple[Float[Array, "K B"], Float[Array, ""], Variables]:
    """Compare imagined states [K, B] with encodings of the observations, which get no gradient.

    Also returns how similar the predictions of different samples are.
    """

    def project(variables: Variables, given: tuple) -> tuple[tuple[Array, Array], Variables]:
        imagined, frames = given
        depth = imagined.depth
        online, variables = model.projections(variables, imagined.state, predict=True, depth=depth)
        # Stopped at the parameters, so that nothing of this branch is kept for a gradient. (Not at
        # the statistics: `over_steps` follows how these move.)
        frozen = {**variables, "params": jax.lax.stop_gradient(variables["params"])}
        # Deviates (consistency targets): no prediction is made from the observed states.
        seen, frozen = model.encode(frozen, frames, train=True)
        target, frozen = model.projections(frozen, seen.state, predict=False, depth=seen.depth)
        return (online, target), {**frozen, "params": variables["params"]}

    (online, target), variables = _over_steps(model, project, variables, (imagined, frames))
    alike = jnp.mean(jax.vmap(mean_cosine)(online))
    return negative_cosine(online, target), alike, variables


def _over_steps(
    model: Model, function: StepFn, variables: Variables, steps: Any
) -> tuple[Any, Variables]:
    """In the way that the network asks for; a model of one's own need not say."""
    network = getattr(model, "network", None)
    at_once = getattr(network, "steps_at_once", False)
    return over_steps(function, variables, steps, at_once=at_once)


def _value_gap(
    model: Model, variables: Variables, frames: Array, trained: Float[Array, " B"]
) -> Float[Array, ""]:
    """Mean distance between root values in acting and in training mode, for some samples.

    Zero for networks without running statistics (other than those of the consistency loss).
    """
    if variables.get("batch_stats", {}).keys() <= {"projector", "predictor", "center", "scaling"}:
        return jnp.zeros(())
    frozen, some = jax.lax.stop_gradient(variables), slice(None, None, GAP_EVERY)
    return jnp.mean(jnp.abs(model.root(frozen, frames[some]).value - trained[some]))


def _variables(params: dict, batch_stats: dict) -> Variables:
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


class Unrolled(NamedTuple):
    """Result of one pass over a batch, before summing and weighting."""

    at_root: Terms  # policy and value, f32[B]
    steps: Terms  # all terms, f32[K, B]
    value: Array  # f32[K+1, B], predicted
    value_prefix: Array  # f32[K, B], predicted
    alike: Array  # f32[], mean cosine of the projections of different samples
    value_gap: Array  # f32[], of root values in acting and in training mode
    batch_stats: dict  # after the pass


def unroll_terms(
    variables: Variables,
    key: Array,
    batch: Batch,
    targets: Targets,
    *,
    model: Model,
    config: Config,
) -> Unrolled:
    """Unroll the model along the actions and compare each step with its targets.

    Terms are masked; the key is consumed.
    """
    stack, network = model.spec.frame_stack, config.network
    first, following = _views(batch, model, config, key)
    before = variables

    root, variables = model.encode(variables, first, train=True)
    imagined, prefix_logits, variables = _imagined(
        model, variables, root, jnp.moveaxis(batch.action, 1, 0)
    )
    logits, variables = _heads(model, variables, root, imagined)
    terms = _head_losses(logits, targets, config)
    at_root, steps = ({name: x[part] for name, x in terms.items()} for part in (0, slice(1, None)))
    prefix_target = support.encode(targets.value_prefix.T, network.support, network.prefix_bin)
    steps["value_prefix"] = targets.mask.T[1:] * cross_entropy(prefix_target, prefix_logits)
    alike = jnp.zeros(())
    if config.consistency:
        frames = jnp.stack([stacks_at(following, k, stack) for k in range(len(prefix_logits))])
        cosine, alike, variables = _consistency(model, variables, imagined, frames)
        steps["consistency"] = targets.mask.T[1:] * cosine
    values = support.decode(logits[1], network.value_bin)
    return Unrolled(
        at_root=at_root,
        steps=steps,
        value=values,
        value_prefix=support.decode(prefix_logits, network.prefix_bin),
        alike=alike,
        value_gap=_value_gap(model, before, first, values[0]),
        batch_stats=variables.get("batch_stats", {}),
    )


def _imagined(
    model: Model, variables: Variables, root: Embedding, actions: Shaped[Array, "K B *act"]
) -> tuple[Embedding, Float[Array, "K B S"], Variables]:
    """The K embeddings that follow a root, one after the other, and the logits of the prefixes."""

    def imagine(
        carry: tuple[Variables, Embedding], action: Array
    ) -> tuple[tuple[Variables, Embedding], tuple[Embedding, Array]]:
        variables, embedding = carry
        embedding, logits, variables = model.step(variables, embedding, action, train=True)
        return (variables, embedding), (embedding, logits)

    # Unrolled: in a loop, the backward convolutions take three times the CPU time.
    (variables, _), (imagined, logits) = jax.lax.scan(
        imagine, (variables, root), actions, unroll=True
    )
    return imagined, logits, variables


def _heads(
    model: Model, variables: Variables, root: Embedding, imagined: Embedding
) -> tuple[tuple[Float[Array, "K+1 B A"], Float[Array, "K+1 B S"]], Variables]:
    """Logits of policy and value at the root and all that follow it."""
    every = jax.tree.map(
        lambda one, more: jnp.concatenate([one[None], more]),
        *((root.state, root.depth), (imagined.state, imagined.depth)),
    )
    return _over_steps(
        model,
        lambda variables, given: model.heads(variables, given[0], train=True, depth=given[1]),
        *(variables, every),
    )


def _weighted_sum(terms: Terms, weights: dict[str, float]) -> Float[Array, " B"]:
    """Sum the terms; a term without a weight, or a weight without a term, is an error."""
    if terms.keys() != weights.keys():
        raise ValueError(f"loss terms {sorted(terms)} and weights {sorted(weights)} differ")
    return functools.reduce(operator.add, (weights[name] * terms[name] for name in weights))


def unroll_loss(
    params: dict,
    batch_stats: dict,
    key: Array,
    batch: Batch,
    targets: Targets,
    *,
    model: Model,
    config: Config,
) -> tuple[Float[Array, ""], LossOutput]:
    """The loss: terms summed over steps, weighted by name and importance, mean over the batch.

    EfficientZero §4.1-4.2. The returned loss, which is differentiated, has the published factor
    1/K; `LossOutput.loss` does not.

    Args:
      params: of the network; the gradient is taken with respect to these.
      batch_stats: of the network; {} if it has none.
      key: of the augmentation; consumed.
      batch: sampled sequences, `B` of them with frames.
      targets: of that batch, from `make_targets`.
      model: of the game.
      config: of the run.

    Returns:
      The loss f32[], and a `LossOutput`: terms, predictions, new priorities f32[B].

    Raises:
      ValueError: a term without a weight of its name in `loss_weights`, or the reverse.

    Examples:
      >>> given = variables["params"], variables["batch_stats"], jax.random.key(0), batch, targets
      >>> loss, output = unroll_loss(*given, model=model, config=config)
      >>> sorted(output.terms), output.priority.shape
      (['consistency', 'policy', 'value', 'value_prefix'], (4,))
    """
    variables = _variables(params, batch_stats)
    unrolled = unroll_terms(variables, key, batch, targets, model=model, config=config)
    terms = jax.tree.map(lambda x: jnp.sum(x, axis=0), unrolled.steps)
    terms |= {name: terms[name] + value for name, value in unrolled.at_root.items()}
    loss = jnp.mean(batch.weight * _weighted_sum(terms, loss_weights(config)))
    error = jnp.abs(unrolled.value[0] - targets.value[:, 0])
    output = LossOutput(
        loss=loss,
        terms=jax.tree.map(jnp.mean, terms),
        priority=jax.lax.stop_gradient(error) + PRIORITY_FLOOR,
        value=unrolled.value,
        value_prefix=unrolled.value_prefix,
        alike=unrolled.alike,
        value_gap=unrolled.value_gap,
        batch_stats=unrolled.batch_stats,
    )
    return loss / config.learner.unroll_steps, output
