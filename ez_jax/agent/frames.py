"""Stacks of frames: pushed while acting, cut out of a batch to reanalyse and to bootstrap from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from ez_jax.agent.model import Model
from ez_jax.structs import Batch, EnvSpec, Root, TimeStep, Variables


def init_frames(spec: EnvSpec, num_envs: int) -> Shaped[Array, "N F *obs"]:
    """Empty frame stacks; the first observation of an episode fills its stack."""
    shape = (num_envs, spec.frame_stack, *spec.observation_shape)
    return jnp.zeros(shape, spec.observation_dtype)


def push_frame(frames: Shaped[Array, "N F *obs"], step: TimeStep) -> Shaped[Array, "N F *obs"]:
    """The stacks with the newest frame last; where an episode begins, F copies of it."""
    newest = jnp.asarray(step.observation)[:, None]
    first = jnp.asarray(step.is_first).reshape(-1, *(1,) * (frames.ndim - 1))
    return jnp.where(first, newest, jnp.concatenate([frames[:, 1:], newest], axis=1))


def roots_at(
    model: Model, variables: Variables, batch: Batch, position: Int[Array, "B K+1"]
) -> Root:
    """Roots [K+1, B, ...] of the samples at the positions given.

    One unroll position at a time bounds the memory of large images, and a batch still fills a
    device; vectors go through at once.
    """

    def roots(at: Int[Array, " B"]) -> Root:
        return model.root(variables, _stacks(model, batch.observation, at))

    over_positions = jax.lax.map if model.spec.is_image else lambda f, xs: jax.vmap(f)(xs)
    return over_positions(roots, position.T)


def _stacks(model: Model, frames: Array, at: Int[Array, " B"]) -> Array:
    """The stack of frames that ends each sample's position."""
    stack = model.spec.frame_stack
    one = lambda frames, at: jax.lax.dynamic_slice_in_dim(frames, at, stack)  # noqa: E731
    return jax.vmap(one)(frames, at)
