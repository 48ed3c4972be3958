"""What the model is trained towards: value, value prefix and policy (EfficientZero §4.2-4.3).

Episodes are contiguous in the replay, so sums and bootstraps cross no seam: the official code cuts
episodes into blocks of 400 steps and drops the bootstrap at their ends (`targets.block_length` does
so, too). Truncation is not termination: a truncated episode bootstraps from its final observation.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ez_jax.agent.frames import roots_at
from ez_jax.agent.model import Model
from ez_jax.config import Config
from ez_jax.structs import Batch, Targets, Variables

# (target variables, reanalysed batch, updates made) -> Targets
TargetsFn = Callable[[Variables, Batch, Array], Targets]
# The same, but of values only: f32[B, K+1].
ValueTargetFn = Callable[[Variables, Batch, Array], Array]


def corrected_td_steps(
    age: Int[Array, " B"], *, td_steps: int, steps_per_decrement: float, max_td_steps: int = 0
) -> Int[Array, " B"]:
    """Off-policy correction: a step less per `steps_per_decrement` agent steps of age, at least 1.

    EfficientZero §4.3: the older the data, the further its actions are from the present policy.
    """
    older = jnp.floor(age / steps_per_decrement).astype(jnp.int32)
    # Deviates (more than five steps): the ceiling is a setting.
    return jnp.clip(td_steps - older, 1, max_td_steps or td_steps)


def steps_ahead(
    batch: Batch, td_steps: Int[Array, " B"], *, unroll_steps: int
) -> Int[Array, "B K+1"]:
    """Steps from each unroll position to its bootstrap: `td_steps`, fewer at an episode's end."""
    left = batch.last[:, None] - jnp.arange(unroll_steps + 1)
    return jnp.clip(left, 0, td_steps[:, None])


def n_step_value(
    batch: Batch,
    bootstrap: Float[Array, "B K+1"],
    steps: Int[Array, "B K+1"],
    *,
    discount: float,
) -> Float[Array, "B K+1"]:
    """Discounted rewards of the next steps plus the discounted value after them.

    z_k = Σ_{j<n} γ^j u_{k+j+1} + γ^n v_{k+n}, n = steps_k, where v is 0 at a terminal observation.
    At a truncated end n shrinks and the bootstrap stays.

    Args:
      batch: the sampled sequences.
      bootstrap: values of the observations k + n.
      steps: n, from `steps_ahead`.
      discount: γ per agent step.
    """
    num_positions = steps.shape[1]
    max_steps = batch.reward.shape[1] - num_positions + 1
    position = jnp.arange(num_positions)
    ahead = position[:, None] + jnp.arange(max_steps)  # [K+1, max_steps]
    counts = jnp.arange(max_steps) < steps[..., None]  # [B, K+1, max_steps]
    rewards = jnp.where(counts, batch.reward[:, ahead], 0.0)
    summed = jnp.sum(rewards * discount ** jnp.arange(max_steps), axis=-1)
    # Deviates (truncation): only a termination has discount 0.
    arriving = jnp.take_along_axis(batch.discount, position + steps, axis=1)
    return summed + discount**steps * arriving * bootstrap


def target_end(batch: Batch, block_length: int) -> Int[Array, " B"]:
    """Time of the first row without a target: the episode's last row, or the end of its block.

    Official blocks begin with their episode and are `block_length` steps long; 0 means none.
    """
    # Deviates (episodes in replay): the official code always cuts them.
    if not block_length:
        return batch.last
    # An episode that goes on after the last row known ends later.
    return jnp.minimum(batch.last + batch.goes_on, block_length - batch.position % block_length)


def value_prefixes(batch: Batch, *, unroll_steps: int, horizon: int) -> Float[Array, "B K"]:
    """Undiscounted reward since the last reset, which comes every `horizon` steps of the unroll."""
    steps = jnp.arange(unroll_steps)
    reward = jnp.where(steps < batch.last[:, None], batch.reward[:, :unroll_steps], 0.0)
    same_prefix = (steps[:, None] // horizon == steps // horizon) & (steps[:, None] >= steps)
    # Not a matrix product, which would round to TF32 on a GPU.
    return jnp.sum(jnp.where(same_prefix, reward[:, None], 0.0), axis=-1)


def make_td_value(config: Config, model: Model) -> ValueTargetFn:
    """Published V1: n steps of reward, then the value of the target network."""
    unroll_steps, block_length = config.learner.unroll_steps, config.targets.block_length
    is_corrected, fraction = config.off_policy_correction, config.targets.age_fraction
    correct = functools.partial(
        corrected_td_steps,
        td_steps=config.targets.td_steps,
        steps_per_decrement=fraction * config.total_agent_steps,
        max_td_steps=config.targets.max_td_steps,
    )

    def td_value(variables: Variables, batch: Batch, updates: Array) -> Array:
        del updates
        most = correct(batch.age if is_corrected else jnp.zeros_like(batch.age))
        steps = steps_ahead(batch, most, unroll_steps=unroll_steps)
        position = jnp.arange(unroll_steps + 1)
        bootstrap = roots_at(model, variables, batch, position + steps).value.T
        if block_length:
            # The rewards of the next block count, the value after them does not: as official.
            end = target_end(batch, block_length)
            bootstrap = jnp.where(position + most[:, None] < end[:, None], bootstrap, 0.0)
        return n_step_value(batch, bootstrap, steps, discount=config.discount)

    return td_value


def make_search_value(config: Config, model: Model) -> ValueTargetFn:
    """Search-based value estimation (EfficientZero V2 §3.3): the root's own search value."""
    del model
    num_positions = config.learner.unroll_steps + 1

    def search_value(variables: Variables, batch: Batch, updates: Array) -> Array:
        del variables, updates
        # A final observation has nothing to search: it is worth 0 if the episode terminated.
        return batch.value * batch.discount[:, :num_positions]

    return search_value


def make_mixed_value(config: Config, model: Model) -> ValueTargetFn:
    """EfficientZero V2 (§3.3): n steps of reward at first and for new data, then search values."""
    td_value, search_value = make_td_value(config, model), make_search_value(config, model)
    settings = config.targets

    def mixed_value(variables: Variables, batch: Batch, updates: Array) -> Array:
        by_td = (updates < settings.mixed_updates) | (batch.age < settings.mixed_newest)
        given = variables, batch, updates
        return jnp.where(by_td[:, None], td_value(*given), search_value(*given))

    return mixed_value


VALUE_TARGETS: dict[str, Callable[[Config, Model], ValueTargetFn]] = {
    "td": make_td_value,
    "search": make_search_value,
    "mixed": make_mixed_value,
}


def make_targets(config: Config, model: Model) -> TargetsFn:
    """Targets of a batch, by the target network.

    Values bootstrap from its predictions; policies are those of the batch, and so are values where
    `targets.value` wants those of searches.
    """
    value_target = VALUE_TARGETS[config.targets.value](config, model)
    unroll_steps, horizon = config.learner.unroll_steps, config.horizon
    block_length = config.targets.block_length

    def targets(variables: Variables, batch: Batch, updates: Array) -> Targets:
        value = value_target(variables, batch, updates)
        position, end = jnp.arange(unroll_steps + 1), target_end(batch, block_length)[:, None]
        return Targets(
            value=jnp.where(position < end, value, 0.0) if block_length else value,
            value_prefix=value_prefixes(batch, unroll_steps=unroll_steps, horizon=horizon),
            policy=batch.policy,
            mask=(position <= end).astype(jnp.float32),
            policy_mask=(position < end).astype(jnp.float32),
        )

    return targets
