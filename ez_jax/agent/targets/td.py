"""The n-step value with the target network: EfficientZero's value target (§4.3)."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ez_jax.agent.frames import roots_at
from ez_jax.agent.model import Model
from ez_jax.agent.targets.value_target import ValueTargetFn, target_end
from ez_jax.config import Config
from ez_jax.structs import Batch, Variables


def corrected_td_steps(
    age: Int[Array, " B"], *, td_steps: int, steps_per_decrement: float, max_td_steps: int = 0
) -> Int[Array, " B"]:
    """Off-policy correction: a step less per `steps_per_decrement` agent steps of age, at least 1.

    EfficientZero §4.3: the older the data, the further its actions are from the current policy.
    """
    older = jnp.floor(age / steps_per_decrement).astype(jnp.int32)
    # Deviates (more than five steps): the limit is a setting.
    return jnp.clip(td_steps - older, 1, max_td_steps or td_steps)


def steps_ahead(
    batch: Batch, td_steps: Int[Array, " B"], *, unroll_steps: int
) -> Int[Array, "B K+1"]:
    """Steps from each unroll position to its bootstrap: `td_steps`, fewer near an episode's end."""
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


def make_td_value(config: Config, model: Model) -> ValueTargetFn:
    """The published V1 target: n steps of reward, then the value of the target network."""
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
            # Rewards of the next block count, the value after them does not: as official.
            end = target_end(batch, block_length)
            bootstrap = jnp.where(position + most[:, None] < end[:, None], bootstrap, 0.0)
        return n_step_value(batch, bootstrap, steps, discount=config.discount)

    return td_value
