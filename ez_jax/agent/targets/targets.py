"""Training targets: value, value prefix and policy (EfficientZero §4.2-4.3).

Episodes are whole in the replay. The official code cuts them into blocks of 400 steps and drops the
bootstrap at their ends (`targets.block_length` does the same). Truncation is not termination: a
truncated episode bootstraps from its final observation.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from ez_jax.agent.model import Model
from ez_jax.agent.targets.mixed import make_mixed_value
from ez_jax.agent.targets.search_value import make_search_value
from ez_jax.agent.targets.td import make_td_value
from ez_jax.agent.targets.value_target import ValueTargetFn, target_end
from ez_jax.config import Config
from ez_jax.structs import Batch, Targets, Variables

# (target variables, reanalysed batch, updates made) -> Targets
TargetsFn = Callable[[Variables, Batch, Array], Targets]


def value_prefixes(batch: Batch, *, unroll_steps: int, horizon: int) -> Float[Array, "B K"]:
    """Undiscounted sums of rewards since the last reset, every `horizon` steps of the unroll."""
    steps = jnp.arange(unroll_steps)
    reward = jnp.where(steps < batch.last[:, None], batch.reward[:, :unroll_steps], 0.0)
    same_prefix = (steps[:, None] // horizon == steps // horizon) & (steps[:, None] >= steps)
    # Not a matrix product, which would round to TF32 on a GPU.
    return jnp.sum(jnp.where(same_prefix, reward[:, None], 0.0), axis=-1)


VALUE_TARGETS: dict[str, Callable[[Config, Model], ValueTargetFn]] = {
    "td": make_td_value,
    "search": make_search_value,
    "mixed": make_mixed_value,
}


def make_targets(config: Config, model: Model) -> TargetsFn:
    """Make the targets of a batch, with the target network (EfficientZero §4.2-4.3, V2 §3.3).

    Values bootstrap from its predictions. Policies are those of the batch, as are the values if
    `targets.value` asks for search values.

    Args:
      config: of the run; `targets` chooses among the value targets.
      model: of the game.

    Returns:
      `(target variables, reanalysed batch, updates made i32[]) -> Targets`, in units of reward.

    Examples:
      >>> made = jax.jit(make_targets(config, model))(variables, batch, jnp.int32(0))
      >>> made.value.shape, made.value_prefix.shape, made.policy.shape
      ((4, 2), (4, 1), (4, 2, 2))
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
            candidates=batch.candidates,
            mask=(position <= end).astype(jnp.float32),
            policy_mask=(position < end).astype(jnp.float32),
        )

    return targets
