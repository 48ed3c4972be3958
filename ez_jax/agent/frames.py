"""Frame stacks: updated while acting, and cut out of batches."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from ez_jax.agent.model import Model
from ez_jax.structs import Batch, EnvSpec, Root, TimeStep, Variables
from ez_jax.system import devices


def init_frames(spec: EnvSpec, num_envs: int) -> Shaped[Array, "N F *obs"]:
    """Empty frame stacks; the first observation of an episode fills its stack."""
    shape = (num_envs, spec.frame_stack, *spec.observation_shape)
    return jnp.zeros(shape, spec.observation_dtype)


def push_frame(frames: Shaped[Array, "N F *obs"], step: TimeStep) -> Shaped[Array, "N F *obs"]:
    """Append the newest frame to the stacks; at the start of an episode, fill them with it."""
    newest = jnp.asarray(step.observation)[:, None]
    first = jnp.asarray(step.is_first).reshape(-1, *(1,) * (frames.ndim - 1))
    return jnp.where(first, newest, jnp.concatenate([frames[:, 1:], newest], axis=1))


def roots_at(
    model: Model, variables: Variables, batch: Batch, position: Int[Array, "B K+1"]
) -> Root:
    """Roots [K+1, B, ...] of the samples at these positions.

    Images go through one position at a time, which bounds memory, and a batch still fills the
    device; vectors go through all at once.
    """

    def roots(at: Int[Array, " B"]) -> Root:
        return model.root(variables, stacks_at(batch.observation, at, model.spec.frame_stack))

    over_positions = jax.lax.map if model.spec.is_image else lambda f, xs: jax.vmap(f)(xs)
    return over_positions(roots, position.T)


def stacks_at(
    frames: Shaped[Array, "B W *obs"], position: Int[Array, "*B"] | int, stack: int
) -> Shaped[Array, "B F *obs"]:
    """The frame stack of each sample at a position (its own, or one for all), oldest frame first.

    Position 0 sees the first `stack` frames.
    """
    if not jnp.ndim(position):
        return jax.lax.dynamic_slice_in_dim(frames, position, stack, axis=1)
    one = lambda frames, at: jax.lax.dynamic_slice_in_dim(frames, at, stack)  # noqa: E731
    return jax.vmap(one)(frames, position)


def chosen_stacks(
    frames: Shaped[Array, "B W *obs"], sample: Int[Array, " C"], position: Int[Array, " C"],
    stack: int,
) -> Shaped[Array, "C F *obs"]:  # fmt: skip
    """As `stacks_at`, for some of the samples, which may be on any device."""
    return devices.read(frames, sample[:, None], position[:, None] + jnp.arange(stack))
