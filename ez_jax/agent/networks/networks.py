"""The six functions of EfficientZero as one Flax Linen module: images or vectors, same methods.

`ImageNetwork` is the published residual network (EfficientZero appendix A.1; layer by layer the
official code, without the layers it never calls). `VectorNetwork` is a small perceptron modelled on
EfficientZero V2's networks for state observations, with the value-prefix head of V1. `model.py`
calls either through `net.apply(variables, ..., train, method="represent")` and the like; with
`train=True` pass `mutable=["batch_stats"]`, for batch statistics are then used and tracked.

Parameters and normalisation statistics are always float32. `dtype` is the type of convolutions,
matrix products, states and LSTM carries; logits and projections leave as float32.
"""

import functools
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ez_jax.agent.networks.layers import (
    NORMS,
    Carry,
    Dtype,
    Head,
    LayerNorm,
    Linear,
    Norm,
    PerceptronBlock,
    Predictor,
    PrefixHead,
    Projector,
    ResidualBlock,
    convolution,
)
from ez_jax.agent.networks.stems import PatchStem, Stem
from ez_jax.config import BadInput, NetworkConfig
from ez_jax.structs import EnvSpec

Observation = Float[Array, "B *stacked"]  # [B, H, W, F*C], 0..1, oldest frame first, or [B, F*D]
State = Float[Array, "B *state"]  # [B, h, w, c] of images, [B, width] of vectors


def normalise_state(state: State) -> State:
    """Scale every sample to 0..1 by its smallest and largest entry, over all axes but the batch.

    MuZero's latent normalisation; an option of the official code that EfficientZero leaves off.
    There is no epsilon, so a constant state becomes NaN, as it does there.
    """
    flat = state.reshape(state.shape[0], -1)
    # By index: the gradient of a plain maximum compares with it, which a compiler that computes
    # the state twice turns into 0/0.
    entry = lambda index: jnp.take_along_axis(flat, index[:, None], axis=1)  # noqa: E731
    low, high = entry(jnp.argmin(flat, axis=1)), entry(jnp.argmax(flat, axis=1))
    return ((flat - low) / (high - low)).reshape(state.shape)


def downsampling(height: int, width: int) -> int:
    """Tell by what factor the image stem shrinks an observation: 16, 4 or 1.

    By the longer side: from 64 pixels the published stem (96 -> 6, 84 -> 6), from 17 a shorter one
    (32 -> 8, 28 -> 7); grid worlds of up to 16 cells keep their resolution, every cell counts.
    """
    longer = max(height, width)
    if longer >= 64:
        return 16
    return 4 if longer > 16 else 1


def make_network(config: NetworkConfig, spec: EnvSpec, dtype: Dtype = jnp.float32) -> "Network":
    """Choose the network for an environment by its observations.

    The perceptron takes images as well (`network.kind=vector`), flattened.

    Raises:
        BadInput: `config.kind` asks for images where there are none.
    """
    kind = config.kind
    if kind == "auto":
        kind = "image" if spec.is_image else "vector"
    if kind == "image" and not spec.is_image:
        raise BadInput(
            f"network.kind=image does not fit {spec.game}, whose observations of shape "
            f"{spec.observation_shape} need network.kind=vector (or auto)"
        )
    if kind == "vector":
        return VectorNetwork(config, spec.num_actions, dtype)
    height, width, _ = spec.observation_shape
    return ImageNetwork(config, spec.num_actions, dtype, downsampling(height, width))


class Tower(nn.Module):
    """Residual blocks in a row that keep the shape of the state."""

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


def _image_tower(config: NetworkConfig, dtype: Dtype, name: str | None = None) -> Tower:
    block = functools.partial(ResidualBlock, norm=NORMS[config.norm])
    return Tower(block, config.blocks, config.channels, dtype, name=name)


class ImageRepresentation(nn.Module):
    """Stem and residual tower; the state is not negative and not bounded."""

    config: NetworkConfig
    downsample: int
    dtype: Dtype

    @nn.compact
    def __call__(self, observation: Float[Array, "B H W stacked"], train: bool) -> State:
        """Return the state."""
        c = self.config
        if c.patch and self.downsample == 16:
            stem = PatchStem(c.channels, c.patch, self.dtype, NORMS[c.norm], name="stem")
        else:
            stem = Stem(c.channels, self.downsample, self.dtype, NORMS[c.norm], name="stem")
        return _image_tower(c, self.dtype, "tower")(stem(observation, train), train)


class ActionEmbedding(nn.Module):
    """Planes made of the action plane, normalised together (EfficientZero V2's code)."""

    channels: int
    dtype: Dtype

    @nn.compact
    def __call__(self, plane: Float[Array, "B h w 1"], train: bool) -> Float[Array, "B h w c"]:
        """Return `channels` planes; every entry has a scale and a shift of its own."""
        planes = Linear(self.channels, self.dtype, name="linear")(plane)
        flat = LayerNorm(self.dtype, name="norm")(planes.reshape(len(planes), -1), train)
        return nn.relu(flat).reshape(planes.shape)


class ImageDynamics(nn.Module):
    """Convolution of the state and the action, plus the state, then the residual tower."""

    config: NetworkConfig
    num_actions: int
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, action: Int[Array, " B"], train: bool) -> State:
        """Return the next state."""
        c = self.config
        # The published encoding: not one-hot but one last plane filled with action / num_actions.
        fraction = (action / self.num_actions).astype(self.dtype)[:, None, None, None]
        planes = jnp.broadcast_to(fraction, (*state.shape[:-1], 1))
        if c.action_channels:
            planes = ActionEmbedding(c.action_channels, self.dtype, name="action")(planes, train)
        x = jnp.concatenate([state.astype(self.dtype), planes], axis=-1)
        x = convolution(c.channels, 1, self.dtype, "conv")(x)
        x = nn.relu(NORMS[c.norm](self.dtype, name="norm")(x, train) + state)
        return _image_tower(c, self.dtype, "tower")(x, train)


class VectorRepresentation(nn.Module):
    """Linear, layer norm, tanh, residual tower.

    Raw observations have any scale and nothing tracks it: the layer norm after the first map
    bounds what follows. Components of very different size should be rescaled by the environment.
    """

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, observation: Float[Array, "B stacked"], train: bool) -> State:
        """Return the state."""
        c = self.config
        x = observation.reshape(len(observation), -1)  # of a small image
        # The first product is float32: bfloat16 would round large or fine-grained observations.
        x = Linear(c.vector_width, jnp.float32, name="linear")(x)
        x = jnp.tanh(LayerNorm(self.dtype, name="norm")(x, train))
        tower = Tower(PerceptronBlock, c.vector_blocks, c.vector_width, self.dtype, name="tower")
        return tower(x, train)


class VectorDynamics(nn.Module):
    """Perceptron of the state and an embedded one-hot action, plus the state, then the tower."""

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


class ImageNeck(nn.Module):
    """What a head reads of an image state: a few channels (1x1 convolution), flattened."""

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, train: bool) -> Float[Array, "B features"]:
        """Return one vector per sample, in the order h, w, channel."""
        x = Linear(self.config.head_channels, self.dtype, name="reduce")(state)
        x = nn.relu(NORMS[self.config.norm](self.dtype, name="norm")(x, train))
        return x.reshape(x.shape[0], -1)


class VectorNeck(nn.Module):
    """What a head reads of a vector state, whose residual stream nothing has normalised yet."""

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, train: bool) -> Float[Array, "B features"]:
        """Return one vector per sample."""
        return LayerNorm(self.dtype, name="norm")(state, train)


class Network(nn.Module):
    """The methods that both networks have, over parts that each makes in its own way.

    The next state is returned before anything is predicted from it (`transition`, then
    `value_prefix`, `predict`, `project`), so that the caller can scale the gradient in between.
    """

    config: NetworkConfig
    num_actions: int
    dtype: Dtype = jnp.float32

    norm: ClassVar[Norm]
    neck: ClassVar[type[ImageNeck] | type[VectorNeck]]

    def setup(self) -> None:
        """Make the heads and the SimSiam networks; subclasses make representation and dynamics."""
        c, bins = self.config, 2 * self.config.support + 1
        layers = self.norm, c.head_activation, self.dtype
        self.prefix_neck = self.neck(c, self.dtype)
        self.prefix_head = PrefixHead(c.lstm_width, c.head_hidden, bins, *layers)
        self.policy_neck = self.neck(c, self.dtype)
        self.policy_head = Head(c.head_hidden, self.num_actions, *layers)
        self.value_neck = self.neck(c, self.dtype)
        self.value_head = Head(c.head_hidden, bins, *layers)
        self.projector = Projector(c.projection, self.dtype)
        self.predictor = Predictor(c.predictor_hidden, self.dtype)

    def represent(self, observation: Observation, train: bool) -> State:
        """Encode stacked observations: f32[B, H, W, F*C] in 0..1, oldest first, or f32[B, F*D]."""
        return self.representation(observation, train)

    def transition(self, state: State, action: Int[Array, " B"], train: bool) -> State:
        """Imagine the state after an action."""
        return self.dynamics(state, action, train)

    def value_prefix(
        self, next_state: State, carry: Carry, train: bool
    ) -> tuple[Float[Array, "B S"], Carry]:
        """Predict the rewards since the carry was zero, up to the one that led to next_state."""
        return self.prefix_head(self.prefix_neck(next_state, train), carry, train)

    def predict(self, state: State, train: bool) -> tuple[Float[Array, "B A"], Float[Array, "B S"]]:
        """Return policy logits and value logits."""
        x = self.prediction_tower(state, train)
        policy_logits = self.policy_head(self.policy_neck(x, train), train)
        return policy_logits, self.value_head(self.value_neck(x, train), train)

    def project(self, state: State, train: bool) -> Float[Array, "B P"]:
        """Map a state to where the consistency loss compares states."""
        return self.projector(state.reshape(state.shape[0], -1), train)

    def predict_projection(
        self, projection: Float[Array, "B P"], train: bool
    ) -> Float[Array, "B P"]:
        """Predict, from the projection of an imagined state, that of the observed one."""
        return self.predictor(projection, train)

    @nn.nowrap
    def initial_carry(self, batch: int) -> Carry:
        """Return the LSTM carry at a root and after every reset: zeros."""
        zeros = jnp.zeros((batch, self.config.lstm_width), self.dtype)
        return zeros, zeros

    def __call__(self, observation: Observation, train: bool = False) -> None:
        """Run every method once, for `init` to find all variables."""
        state = self.represent(observation, train)
        self.predict(state, train)
        batch = state.shape[0]
        state = self.transition(state, jnp.zeros(batch, jnp.int32), train)
        self.value_prefix(state, self.initial_carry(batch), train)
        self.predict_projection(self.project(state, train), train)


class ImageNetwork(Network):
    """Residual network over images, as published batch-normalised (EfficientZero appendix A.1)."""

    downsample: int = 16

    neck = ImageNeck

    @property
    def norm(self) -> Norm:
        """As `network.norm` says; the consistency loss is batch-normalised in any case."""
        return NORMS[self.config.norm]

    def setup(self) -> None:
        """Make all parts."""
        super().setup()
        c = self.config
        self.representation = ImageRepresentation(c, self.downsample, self.dtype)
        self.dynamics = ImageDynamics(c, self.num_actions, self.dtype)
        self.prediction_tower = _image_tower(c, self.dtype)


class VectorNetwork(Network):
    """Perceptrons over vectors, layer-normalised, so that acting and training agree exactly.

    Only the consistency loss, which acting never asks, is batch-normalised.
    """

    norm = LayerNorm
    neck = VectorNeck

    def setup(self) -> None:
        """Make all parts."""
        super().setup()
        c = self.config
        self.representation = VectorRepresentation(c, self.dtype)
        self.dynamics = VectorDynamics(c, self.num_actions, self.dtype)
        self.prediction_tower = Tower(PerceptronBlock, 1, c.vector_width, self.dtype)
