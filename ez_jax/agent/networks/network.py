"""The six functions of EfficientZero as one Flax Linen module: the base of all networks.

`model.py` calls a network by `net.apply(variables, ..., train, method="represent")` and so on. With
`train=True`, pass `mutable=["batch_stats"]`, because batch statistics are then used and tracked.

Parameters and normalisation statistics are always float32. `dtype` is the type of convolutions,
matrix products, states and LSTM carries; logits and projections are returned as float32.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ez_jax.agent.networks.layers import (
    Carry,
    Dtype,
    Head,
    Norm,
    Predictor,
    PrefixHead,
    Projector,
    norm_of,
)
from ez_jax.config import NetworkConfig
from ez_jax.structs import EnvSpec
from ez_jax.system import devices

Observation = Float[Array, "B *stacked"]  # [B, H, W, F*C], 0..1, oldest frame first, or [B, F*D]
Action = Shaped[Array, "B *act"]  # i32[B], or f32[B, D] in -1..1 if continuous
State = Float[Array, "B *state"]  # [B, h, w, c] of images, [B, width] of vectors


def normalise_state(state: State) -> State:
    """Scale every sample to 0..1 by its smallest and largest entry, over all axes but the batch.

    MuZero's latent normalisation; an option of the official code that EfficientZero leaves off.
    There is no epsilon, so a constant state becomes NaN, as in the official code.
    """
    flat = state.reshape(state.shape[0], -1)
    # By index: the gradient of a plain maximum compares with it, which becomes 0/0 if the compiler
    # computes the state twice.
    entry = lambda index: jnp.take_along_axis(flat, index[:, None], axis=1)  # noqa: E731
    low, high = entry(jnp.argmin(flat, axis=1)), entry(jnp.argmax(flat, axis=1))
    return ((flat - low) / (high - low)).reshape(state.shape)


class Tower(nn.Module):
    """A sequence of residual blocks that keep the shape of the state."""

    block: Callable[..., nn.Module]  # ResidualBlock | PerceptronBlock
    depth: int
    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: State, train: bool) -> State:
        """Return a state of the same shape."""
        for i in range(self.depth):
            x = self.block(self.features, self.dtype, name=f"block{i}")(x, train)
        return x


class Network(nn.Module):
    """The methods of all networks; each network creates its own parts.

    The next state is returned before anything is predicted from it (`transition`, then
    `value_prefix`, `predict`, `project`), so that the caller can scale the gradient in between.
    """

    config: NetworkConfig
    spec: EnvSpec
    dtype: Dtype = jnp.float32

    neck: ClassVar[Callable[..., nn.Module]]  # from a state to the input of a head

    @property
    def steps_at_once(self) -> bool:
        """Whether the loss predicts from all steps of the unroll as one batch.

        On a CPU images are quicker one after the other, whose activations stay in cache.
        """
        return devices.platform() != "cpu"

    @property
    def norm(self) -> Norm:
        """By `network.norm`; the networks of the consistency loss always have batch norm."""
        return norm_of(self.config)

    def setup(self) -> None:
        """Create heads and SimSiam networks; subclasses create representation and dynamics."""
        c, bins = self.config, 2 * self.config.support + 1
        layers = self.norm, self.dtype
        self.prefix_neck = self.neck(c, self.dtype)
        self.prefix_head = PrefixHead(c, bins, *layers)
        self.policy_neck = self.neck(c, self.dtype)
        self.policy_head = Head(c, self.spec.policy_size, *layers, c.policy_hidden)
        self.value_neck = self.neck(c, self.dtype)
        self.value_head = Head(c, bins, *layers)
        self.projector = Projector(c.projection, self.dtype)
        self.predictor = Predictor(c.predictor_hidden, self.dtype)

    def represent(self, observation: Observation, train: bool) -> State:
        """Encode stacked observations: f32[B, H, W, F*C] in 0..1, oldest first, or f32[B, F*D]."""
        return self.representation(observation, train)

    def transition(self, state: State, action: Action, train: bool) -> State:
        """Imagine the state after an action."""
        return self.dynamics(state, action, train)

    def value_prefix(
        self, next_state: State, carry: Carry, train: bool
    ) -> tuple[Float[Array, "B S"], Carry]:
        """Predict the sum of rewards since the carry was zero, up to the step into next_state."""
        return self.prefix_head(self.prefix_neck(next_state, train), carry, train)

    def predict(self, state: State, train: bool) -> tuple[Float[Array, "B A"], Float[Array, "B S"]]:
        """Return policy logits (if actions are continuous [B, 2 D]) and value logits."""
        x = self.prediction_tower(state, train)
        policy_logits = self.policy_head(self.policy_neck(x, train), train)
        return policy_logits, self.value_head(self.value_neck(x, train), train)

    def project(self, state: State, train: bool) -> Float[Array, "B P"]:
        """Project a state into the space in which the consistency loss compares states."""
        return self.projector(state.reshape(state.shape[0], -1), train)

    def predict_projection(
        self, projection: Float[Array, "B P"], train: bool
    ) -> Float[Array, "B P"]:
        """Predict the projection of the observed state from that of the imagined one."""
        return self.predictor(projection, train)

    @nn.nowrap
    def initial_carry(self, batch: int) -> Carry:
        """Return the LSTM carry of a root and after every reset: zeros."""
        zeros = jnp.zeros((batch, self.config.lstm_width), self.dtype)
        return zeros, zeros

    def __call__(self, observation: Observation, train: bool = False) -> None:
        """Run every method once, so that `init` finds all variables."""
        state = self.represent(observation, train)
        self.predict(state, train)
        batch = state.shape[0]
        action = jnp.zeros((batch, *self.spec.action_shape), self.spec.action_dtype)
        state = self.transition(state, action, train)
        self.value_prefix(state, self.initial_carry(batch), train)
        self.predict_projection(self.project(state, train), train)
