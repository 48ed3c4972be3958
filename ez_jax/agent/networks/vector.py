"""A small perceptron modelled on EfficientZero V2's networks for state observations.

The value-prefix head is that of V1. With `network.kind=vector` images are accepted, too, flattened.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ez_jax.agent.networks.layers import (
    NORM_EPSILON,
    Dtype,
    LayerNorm,
    Linear,
    Norm,
    PerceptronBlock,
)
from ez_jax.agent.networks.network import Action, Network, Observation, State, Tower
from ez_jax.config import NetworkConfig
from ez_jax.structs import EnvSpec

SCALING_MOMENTUM = 0.999


class Scaling(nn.Module):
    """Takes the running mean from every number of an observation and divides by its deviation.

    The running statistics are used in training, too, so that acting and training are the same
    function. Before the first update observations stay as they are.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B stacked"], train: bool) -> Float[Array, "B stacked"]:
        """Return observations on a scale of about 1."""
        zeros = functools.partial(self.variable, "batch_stats", init_fn=jnp.zeros)
        moments = zeros("mean", shape=x.shape[1:]), zeros("square", shape=x.shape[1:])
        weight = zeros("weight", shape=())  # of all batches so far: below 1 at the beginning
        seen = jnp.maximum(weight.value, 1 - SCALING_MOMENTUM)
        mean, square = (jax.lax.stop_gradient(moment.value) / seen for moment in moments)
        variance = jnp.where(weight.value > 0, jnp.maximum(square - mean**2, 0.0), 1.0)
        if train and not self.is_initializing():
            # Deviates (scale of observations, V2): moments that fade instead of a running sum.
            news = x.mean(0), jnp.square(x).mean(0), jnp.ones(())
            for kept, new in zip((*moments, weight), news, strict=True):
                kept.value = SCALING_MOMENTUM * kept.value + (1 - SCALING_MOMENTUM) * new
        return (x - mean) * jax.lax.rsqrt(variance + NORM_EPSILON)


class VectorRepresentation(nn.Module):
    """Linear, layer norm, tanh, residual tower.

    Raw observations can have any scale: the layer norm after the first map bounds what follows.
    With components of very different size, `network.scale_observations` brings them to one scale.
    """

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, observation: Float[Array, "B stacked"], train: bool) -> State:
        """Return the state."""
        c = self.config
        # The first product is in float32: bfloat16 would round large or fine-grained observations.
        x = Linear(c.vector_width, jnp.float32, name="linear")(observation)
        x = jnp.tanh(LayerNorm(self.dtype, name="norm")(x, train))
        tower = Tower(PerceptronBlock, c.vector_blocks, c.vector_width, self.dtype, name="tower")
        return tower(x, train)


class VectorDynamics(nn.Module):
    """Perceptron of the state and an embedded action, add the state, then the tower.

    An action of a finite set is embedded as a one-hot vector, a continuous one as it is.
    """

    config: NetworkConfig
    spec: EnvSpec
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, action: Action, train: bool) -> State:
        """Return the next state."""
        width, dtype = self.config.vector_width, self.dtype
        if not self.spec.is_continuous:
            action = jax.nn.one_hot(action, self.spec.num_actions, dtype=dtype)
        embedded = Linear(width // 2, dtype, name="action")(action)
        embedded = nn.relu(LayerNorm(dtype, name="action_norm")(embedded, train))
        x = jnp.concatenate([state.astype(dtype), embedded], axis=-1)
        x = LayerNorm(dtype, name="norm")(x, train)
        x = nn.relu(Linear(2 * width, dtype, name="linear1")(x))
        x = state + Linear(width, dtype, name="linear2")(x)
        depth = self.config.vector_blocks
        return Tower(PerceptronBlock, depth, width, dtype, name="tower")(x, train)


class VectorNeck(nn.Module):
    """The input of a head from a vector state, whose residual stream is not yet normalised."""

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, train: bool) -> Float[Array, "B features"]:
        """Return one vector per sample."""
        return LayerNorm(self.dtype, name="norm")(state, train)


class VectorNetwork(Network):
    """Perceptrons for vectors with layer norm, so that acting and training agree exactly.

    Only the networks of the consistency loss, which acting does not use, have batch norm.
    """

    neck = VectorNeck

    @property
    def norm(self) -> Norm:
        """Layer norm, regardless of `network.norm`."""
        return LayerNorm

    def setup(self) -> None:
        """Create all parts."""
        super().setup()
        c = self.config
        self.scaling = Scaling()
        self.representation = VectorRepresentation(c, self.dtype)
        self.dynamics = VectorDynamics(c, self.spec, self.dtype)
        # Deviates (networks for vectors, V2): one block for policy and value, and layer norm.
        self.prediction_tower = Tower(PerceptronBlock, 1, c.vector_width, self.dtype)

    def represent(self, observation: Observation, train: bool) -> State:
        """Encode stacked vectors f32[B, F*D], oldest first, or small images, flattened."""
        observation = observation.reshape(len(observation), -1)
        if self.config.scale_observations:
            observation = self.scaling(observation, train)
        return self.representation(observation, train)


def make_vector_network(config: NetworkConfig, spec: EnvSpec, dtype: Dtype) -> VectorNetwork:
    """The network for vectors of any width."""
    return VectorNetwork(config, spec, dtype)
