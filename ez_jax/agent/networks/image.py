"""The published residual network over images (EfficientZero appendix A.1).

The same layers as in the official code, without those that it never calls.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ez_jax.agent.networks.layers import (
    Dtype,
    LayerNorm,
    Linear,
    ResidualBlock,
    convolution,
    norm_of,
)
from ez_jax.agent.networks.network import Action, Network, State, Tower
from ez_jax.agent.networks.stems import PatchStem, Stem
from ez_jax.config import BadInput, NetworkConfig
from ez_jax.structs import EnvSpec


def downsampling(height: int, width: int) -> int:
    """The factor by which the image stem reduces the resolution: 16, 4 or 1.

    By the longer side: the published stem from 64 pixels (96 -> 6, 84 -> 6), a shorter one from 17
    (32 -> 8, 28 -> 7); grid worlds of up to 16 cells keep theirs, because every cell counts.
    """
    longer = max(height, width)
    if longer >= 64:
        return 16
    return 4 if longer > 16 else 1


CENTER_MOMENTUM = 0.99


class Center(nn.Module):
    """Subtracts a running mean image, because most of an Atari screen never changes.

    Not published. The running mean is used in training, too, so that acting and training are the
    same function.
    """

    @nn.compact
    def __call__(self, image: Float[Array, "B H W c"], train: bool) -> Float[Array, "B H W c"]:
        """Return the images minus the running mean image."""
        mean = self.variable("batch_stats", "mean", jnp.zeros, image.shape[1:])
        centered = image - jax.lax.stop_gradient(mean.value)
        if train and not self.is_initializing():
            keep = CENTER_MOMENTUM
            mean.value = keep * mean.value + (1 - keep) * _mean_image(image)
        return centered


def _mean_image(image: Float[Array, "B H W c"]) -> Float[Array, "H W c"]:
    """The mean over the batch, as a product: on a CPU 50 times as quick as a sum down the batch."""
    share = jnp.full(len(image), 1 / len(image))
    return jnp.einsum("b,bhwc->hwc", share, image, precision=jax.lax.Precision.HIGHEST)


def _image_tower(config: NetworkConfig, dtype: Dtype, name: str | None = None) -> Tower:
    block = functools.partial(ResidualBlock, norm=norm_of(config))
    return Tower(block, config.blocks, config.channels, dtype, name=name)


class ImageRepresentation(nn.Module):
    """Stem and residual tower; the state is non-negative and unbounded."""

    config: NetworkConfig
    downsample: int
    dtype: Dtype

    @nn.compact
    def __call__(self, observation: Float[Array, "B H W stacked"], train: bool) -> State:
        """Return the state."""
        c = self.config
        stem: nn.Module
        if c.patch and self.downsample == 16:
            stem = PatchStem(c.channels, c.patch, self.dtype, norm_of(c), name="stem")
        else:
            stem = Stem(c.channels, self.downsample, self.dtype, norm_of(c), name="stem")
        return _image_tower(c, self.dtype, "tower")(stem(observation, train), train)


class ActionEmbedding(nn.Module):
    """Planes computed from the action plane, normalised together (EfficientZero V2's code)."""

    channels: int
    dtype: Dtype

    @nn.compact
    def __call__(self, plane: Float[Array, "B h w 1"], train: bool) -> Float[Array, "B h w c"]:
        """Return `channels` planes; every entry has its own scale and shift."""
        planes = Linear(self.channels, self.dtype, name="linear")(plane)
        flat = LayerNorm(self.dtype, name="norm")(planes.reshape(len(planes), -1), train)
        return nn.relu(flat).reshape(planes.shape)


class ImageDynamics(nn.Module):
    """Convolution of the state and the action, plus the state, then the residual tower."""

    config: NetworkConfig
    spec: EnvSpec
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, action: Action, train: bool) -> State:
        """Return the next state."""
        c = self.config
        # The published encoding: not one-hot, but one more plane filled with action / num_actions;
        # of a continuous action a plane for each of its numbers.
        filled = action if self.spec.is_continuous else (action / self.spec.num_actions)[:, None]
        filled = filled.astype(self.dtype)[:, None, None, :]
        planes = jnp.broadcast_to(filled, (*state.shape[:-1], filled.shape[-1]))
        if c.action_channels:
            planes = ActionEmbedding(c.action_channels, self.dtype, name="action")(planes, train)
        x = jnp.concatenate([state.astype(self.dtype), planes], axis=-1)
        x = convolution(c.channels, 1, self.dtype, "conv")(x)
        x = nn.relu(norm_of(c)(self.dtype, name="norm")(x, train) + state)
        return _image_tower(c, self.dtype, "tower")(x, train)


class ImageNeck(nn.Module):
    """The input of a head from an image state: a few channels (1x1 convolution), flattened."""

    config: NetworkConfig
    dtype: Dtype

    @nn.compact
    def __call__(self, state: State, train: bool) -> Float[Array, "B features"]:
        """Return one vector per sample, in the order h, w, channel."""
        x = Linear(self.config.head_channels, self.dtype, name="reduce")(state)
        x = nn.relu(norm_of(self.config)(self.dtype, name="norm")(x, train))
        return x.reshape(x.shape[0], -1)


class ImageNetwork(Network):
    """Residual network for images, as published with batch norm (EfficientZero appendix A.1)."""

    downsample: int = 16

    neck = ImageNeck

    def setup(self) -> None:
        """Create all parts."""
        super().setup()
        c = self.config
        self.center = Center()
        self.representation = ImageRepresentation(c, self.downsample, self.dtype)
        self.dynamics = ImageDynamics(c, self.spec, self.dtype)
        self.prediction_tower = _image_tower(c, self.dtype)

    def represent(self, observation: Float[Array, "B H W stacked"], train: bool) -> State:
        """Encode stacked images in 0..1, oldest first."""
        if self.config.center:
            observation = self.center(observation, train)
        return self.representation(observation, train)


def make_image_network(config: NetworkConfig, spec: EnvSpec, dtype: Dtype) -> ImageNetwork:
    """The network for images.

    Raises:
        BadInput: the observations are not images.
    """
    if not spec.is_image:
        raise BadInput(
            f"network.kind=image does not fit {spec.game}, whose observations of shape "
            f"{spec.observation_shape} need network.kind=vector (or auto)"
        )
    height, width, _ = spec.observation_shape
    return ImageNetwork(config, spec, dtype, downsampling(height, width))
