"""A small perceptron modelled on EfficientZero V2's networks for state observations.

The value-prefix head is that of V1. With `network.kind=vector` images are accepted, too, flattened.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ez_jax.agent.networks.layers import Dtype, LayerNorm, Linear, Norm, PerceptronBlock
from ez_jax.agent.networks.network import Network, State, Tower
from ez_jax.config import NetworkConfig
from ez_jax.structs import EnvSpec


class VectorRepresentation(nn.Module):
    """Linear, layer norm, tanh, residual tower.

    Raw observations can have any scale, which is not tracked: the layer norm after the first map
    bounds what follows. The environment should rescale components of very different size.
    """

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, observation: Float[Array, "B stacked"], train: bool) -> State:
        """Return the state."""
        c = self.config
        x = observation.reshape(len(observation), -1)  # flatten a small image
        # The first product is in float32: bfloat16 would round large or fine-grained observations.
        x = Linear(c.vector_width, jnp.float32, name="linear")(x)
        x = jnp.tanh(LayerNorm(self.dtype, name="norm")(x, train))
        tower = Tower(PerceptronBlock, c.vector_blocks, c.vector_width, self.dtype, name="tower")
        return tower(x, train)


class VectorDynamics(nn.Module):
    """Perceptron of the state and an embedded one-hot action, add the state, then the tower."""

    config: NetworkConfig
    num_actions: int
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, action: Int[Array, " B"], train: bool) -> State:
        """Return the next state."""
        width, dtype = self.config.vector_width, self.dtype
        one_hot = jax.nn.one_hot(action, self.num_actions, dtype=dtype)
        embedded = Linear(width // 2, dtype, name="action")(one_hot)
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
        self.representation = VectorRepresentation(c, self.dtype)
        self.dynamics = VectorDynamics(c, self.num_actions, self.dtype)
        self.prediction_tower = Tower(PerceptronBlock, 1, c.vector_width, self.dtype)


def make_vector_network(config: NetworkConfig, spec: EnvSpec, dtype: Dtype) -> VectorNetwork:
    """The network for vectors of any width."""
    return VectorNetwork(config, spec.num_actions, dtype)
