"""What the model is trained towards: value, value prefix and policy (EfficientZero §4.2-4.3).

Episodes are contiguous in the replay, so sums and bootstraps cross no seam: the official code cuts
episodes into blocks of 400 steps and drops the bootstrap at their ends (spec §0.4). Truncation is
not termination: a truncated episode bootstraps from its final observation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ez_jax.config import Config
from ez_jax.model import Model
from ez_jax.search import SearchFn
from ez_jax.structs import Batch, Root, SearchOutput, Targets, Variables

# (target variables, key, batch) -> Targets; the key is consumed.
TargetsFn = Callable[[Variables, Array, Batch], Targets]


def corrected_td_steps(
    age: Int[Array, " B"], *, td_steps: int, steps_per_decrement: float
) -> Int[Array, " B"]:
    """Off-policy correction: a step less per `steps_per_decrement` agent steps of age, at least 1.

    EfficientZero §4.3: the older the data, the further its actions are from the present policy.
    """
    older = jnp.floor(age / steps_per_decrement).astype(jnp.int32)
    return jnp.clip(td_steps - older, 1, td_steps)


def n_step_value(
    batch: Batch,
    bootstrap: Float[Array, "B W"],
    td_steps: Int[Array, " B"],
    *,
    unroll_steps: int,
    discount: float,
) -> Float[Array, "B K+1"]:
    """Discounted rewards of up to `td_steps` steps plus the discounted value after them.

    With n = min(td_steps, steps left), for each unroll position k:
    z_k = Σ_{j<n} γ^j u_{k+j+1} + γ^n v_{k+n}, where v is 0 at a terminal observation. At a
    truncated end n shrinks and the bootstrap stays.

    Args:
      batch: the sampled sequences; W = K + n + 1 positions.
      bootstrap: values of the observations 0..K+n.
      td_steps: per sample, at most W - K - 1.
      unroll_steps: K.
      discount: γ per agent step.
    """
    max_steps = bootstrap.shape[1] - unroll_steps - 1
    position = jnp.arange(unroll_steps + 1)
    steps = jnp.clip(batch.last[:, None] - position, 0, td_steps[:, None])  # [B, K+1]
    ahead = position[:, None] + jnp.arange(max_steps)  # [K+1, n]
    counts = jnp.arange(max_steps) < steps[..., None]  # [B, K+1, n]
    rewards = jnp.where(counts, batch.reward[:, ahead], 0.0)
    summed = jnp.sum(rewards * discount ** jnp.arange(max_steps), axis=-1)
    end = jnp.minimum(position + steps, batch.last[:, None])
    value_after = jnp.take_along_axis(bootstrap * batch.discount, end, axis=1)
    return summed + discount**steps * value_after


def value_prefixes(batch: Batch, *, unroll_steps: int, horizon: int) -> Float[Array, "B K"]:
    """Undiscounted reward since the last reset, which comes every `horizon` steps of the unroll."""
    steps = jnp.arange(unroll_steps)
    reward = jnp.where(steps < batch.last[:, None], batch.reward[:, :unroll_steps], 0.0)
    same_prefix = (steps[:, None] // horizon == steps // horizon) & (steps[:, None] >= steps)
    # Not a matrix product, which would round to TF32 on a GPU.
    return jnp.sum(jnp.where(same_prefix, reward[:, None], 0.0), axis=-1)


def _search_roots(search: SearchFn, variables: Variables, roots: Root, key: Array) -> SearchOutput:
    """Search roots [G, B, ...] as one batch."""
    groups, batch = roots.value.shape
    flat = jax.tree.map(lambda x: x.reshape(groups * batch, *x.shape[2:]), roots)
    found = search(variables, flat, key)
    return jax.tree.map(lambda x: x.reshape(groups, batch, *x.shape[1:]), found)


def _time_second(x: Array) -> Array:
    return jnp.moveaxis(x, 0, 1)


def make_targets(config: Config, model: Model, search: SearchFn) -> TargetsFn:
    """Targets of a batch; the first `reanalyse.ratio` of it is made anew by the target network.

    Each observation is encoded once and serves as the root of a search and as a bootstrap. The
    rest of the batch keeps the policy and the root values that the actor's search found.
    """
    unroll_steps, stack = config.learner.unroll_steps, model.spec.frame_stack
    td_steps = config.targets.td_steps
    positions = unroll_steps + td_steps + 1
    num_fresh = round(config.reanalyse.ratio * config.learner.batch_size)
    decrement = config.targets.age_fraction * config.total_agent_steps

    def encode(variables: Variables, batch: Batch) -> Root:
        """Roots of all positions of the fresh samples, [K+n+1, fresh, ...].

        One position at a time bounds the memory of large images (chunks of one batch still fill
        a device); small observations go through at once.
        """
        frames = jnp.stack([batch.observation[:num_fresh, k : k + stack] for k in range(positions)])
        one = lambda x: model.root(variables, x)  # noqa: E731
        return jax.lax.map(one, frames) if model.spec.is_image else jax.vmap(one)(frames)

    def reanalyse(variables: Variables, key: Array, batch: Batch) -> tuple[Array, Array, Array]:
        """Bootstrap values, policies and values at the roots: stored ones, the first made anew."""
        bootstrap, policy = batch.value, batch.policy
        root_value = batch.value[:, : unroll_steps + 1]
        if num_fresh:
            roots = encode(variables, batch)
            bootstrap = bootstrap.at[:num_fresh].set(_time_second(roots.value))
            first = jax.tree.map(lambda x: x[: unroll_steps + 1], roots)
            found = _search_roots(search, variables, first, key)
            policy = policy.at[:num_fresh].set(_time_second(found.policy))
            root_value = root_value.at[:num_fresh].set(_time_second(found.value))
        return bootstrap, policy, root_value

    def td_value(batch: Batch, bootstrap: Array, root_value: Array) -> Array:
        """Published V1: n steps of reward, then the value of the target network."""
        del root_value
        steps = jnp.full_like(batch.age, td_steps)
        if config.off_policy_correction:
            steps = corrected_td_steps(batch.age, td_steps=td_steps, steps_per_decrement=decrement)
        return n_step_value(
            batch, bootstrap, steps, unroll_steps=unroll_steps, discount=config.discount
        )

    def search_value(batch: Batch, bootstrap: Array, root_value: Array) -> Array:
        """Search-based value estimation (EfficientZero V2 §3.3): the root's own search value."""
        del bootstrap
        # A final observation has nothing to search: it is worth 0 if the episode terminated.
        return root_value * batch.discount[:, : unroll_steps + 1]

    value_target = {"td": td_value, "search": search_value}[config.targets.value]

    def targets(variables: Variables, key: Array, batch: Batch) -> Targets:
        bootstrap, policy, root_value = reanalyse(variables, key, batch)
        position = jnp.arange(unroll_steps + 1)
        inside = position <= batch.last[:, None]
        acting = position < batch.last[:, None]
        return Targets(
            value=value_target(batch, bootstrap, root_value),
            value_prefix=value_prefixes(batch, unroll_steps=unroll_steps, horizon=config.horizon),
            policy=policy,
            mask=inside.astype(jnp.float32),
            policy_mask=acting.astype(jnp.float32),
        )

    return targets
