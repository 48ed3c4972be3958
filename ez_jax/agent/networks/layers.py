"""Layers and heads of EfficientZero's networks, with PyTorch's conventions.

The published learning rate and the golden numbers depend on PyTorch's conventions. Flax differs in
three: initialisation, padding of strided convolutions, running variance. Parameters and statistics
are float32; `dtype` is the type of a layer's computation and result.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ez_jax.agent.networks import winograd
from ez_jax.config import NetworkConfig

Carry = tuple[Float[Array, "B L"], Float[Array, "B L"]]  # LSTM (cell, hidden)
Dtype = Any  # jnp.float32 or jnp.bfloat16

NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9  # 0.1 in PyTorch's terms
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1/sqrt(fan_in)


def uniform_init(bound: float) -> nn.initializers.Initializer:
    """Draw uniformly from -bound..bound."""

    def init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return init


class Linear(nn.Module):
    """Affine map of the last axis with PyTorch's initialisation; on an image a 1x1 convolution."""

    features: int
    dtype: Dtype = jnp.float32
    bound: float | None = None  # of the uniform initialisation; None: 1/sqrt(fan_in); 0: zeros
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b in"]) -> Float[Array, "*b out"]:
        """Return x W + b."""
        fan_in = x.shape[-1]
        init = uniform_init(1 / math.sqrt(fan_in) if self.bound is None else self.bound)
        kernel = self.param("kernel", init, (fan_in, self.features)).astype(self.dtype)
        y = x.astype(self.dtype) @ kernel
        if not self.bias:
            return y
        bias = self.param("bias", init, (self.features,)).astype(self.dtype)
        return y + jnp.broadcast_to(bias, y.shape)


def convolution(features: int, stride: int, dtype: Dtype, name: str) -> nn.Conv:
    """Make a 3x3 convolution without bias, padded by one on every side, as in PyTorch.

    "SAME" would pad an even-sized image on one side only when the stride is 2.
    """
    return nn.Conv(
        features,
        (3, 3),
        strides=stride,
        padding=((1, 1), (1, 1)),
        use_bias=False,
        dtype=dtype,
        kernel_init=KERNEL_INIT,
        conv_general_dilated=winograd.convolve,
        name=name,
    )


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, equal to PyTorch's.

    `flax.linen.BatchNorm` differs in one point: its running variance is the biased one. PyTorch
    normalises by the biased variance of the batch but tracks the unbiased one, which matters for
    small batches of vectors. Statistics are computed in float32.
    """

    dtype: Dtype = jnp.float32
    momentum: float = BATCH_NORM_MOMENTUM

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        """Normalise by the batch (train) or by the running statistics, f32[c] or f32[B, c]."""
        channels, x = x.shape[-1:], x.astype(jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        mean, var = running_mean.value, running_var.value
        if train:
            axes = tuple(range(x.ndim - 1))
            count = x.size // x.shape[-1]
            mean, var = _moments(x, axes, jax.lax.stop_gradient(mean))
            unbiased = var * (count / max(count - 1, 1))
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        elif mean.ndim > 1:  # of every sample, by its depth
            middle = tuple(range(1, x.ndim - 1))
            mean, var = jnp.expand_dims(mean, middle), jnp.expand_dims(var, middle)
        return _standardise(self, x, mean, var).astype(self.dtype)


def _moments(x: Array, axes: tuple[int, ...], near: Array) -> tuple[Array, Array]:
    """Mean and variance in one pass, so that devices that share a batch sum once, not twice.

    Squares of the differences from a value near the mean lose no digits; squares of x would.
    """
    x = x - jnp.broadcast_to(near, x.shape)
    mean, square = x.mean(axes), jnp.square(x).mean(axes)
    return near + mean, jnp.maximum(square - jnp.square(mean), 0.0)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, independent of the batch; `train` is ignored."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        """Normalise every vector separately, in float32."""
        x = x.astype(jnp.float32)
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return _standardise(self, x, mean, var).astype(self.dtype)


class SampleNorm(nn.Module):
    """Normalisation of every sample over all its axes; for a vector the same as `LayerNorm`.

    Acting and training are the same function; `train` is ignored.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B *hw c"], train: bool) -> Float[Array, "B *hw c"]:
        """Normalise every sample separately, in float32; each channel has its scale and shift."""
        x, axes = x.astype(jnp.float32), tuple(range(1, x.ndim))
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        return _standardise(self, x, mean, var).astype(self.dtype)


Norm = Callable[..., nn.Module]  # a dtype and a name to a module
# The choices of `network.norm`, for images.
NORMS: dict[str, type[nn.Module]] = {
    "batch": BatchNorm,
    "batch_per_depth": BatchNorm,  # `model.py` passes it the statistics of a depth
    "sample": SampleNorm,
    "layer": LayerNorm,
}


def norm_of(config: NetworkConfig) -> Norm:
    """The normalisation of an image network, by `network.norm` and `network.norm_momentum`."""
    if NORMS[config.norm] is BatchNorm:
        return functools.partial(BatchNorm, momentum=config.norm_momentum)
    return NORMS[config.norm]


def _standardise(module: nn.Module, x: Array, mean: Array, var: Array) -> Array:
    """Return (x - mean) / sqrt(var + epsilon), scaled and shifted by parameters of the module."""
    scale = module.param("scale", nn.initializers.ones, x.shape[-1:])
    bias = module.param("bias", nn.initializers.zeros, x.shape[-1:])
    mean, inverse = jnp.broadcast_to(mean, x.shape), jax.lax.rsqrt(var + NORM_EPSILON)
    factor = jnp.broadcast_to(inverse, x.shape) * jnp.broadcast_to(scale, x.shape)
    return (x - mean) * factor + jnp.broadcast_to(bias, x.shape)


class LSTM(nn.Module):
    """One step of a PyTorch LSTM: gates in the order i, f, g, o; two biases that are added."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B in"], carry: Carry) -> Carry:
        """Return the next (cell, hidden)."""
        cell, hidden = (c.astype(self.dtype) for c in carry)
        bound = 1 / math.sqrt(self.width)
        gates = Linear(4 * self.width, self.dtype, bound, name="input")(x)
        gates += Linear(4 * self.width, self.dtype, bound, name="hidden")(hidden)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
        return cell, nn.sigmoid(o) * jnp.tanh(cell)


class ResidualBlock(nn.Module):
    """conv-norm-relu-conv-norm, add the input, relu; with stride 2 the shortcut is a convolution.

    The shortcut convolution has no normalisation, as in the official code.
    """

    channels: int
    dtype: Dtype = jnp.float32
    stride: int = 1
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"], train: bool) -> Float[Array, "B h2 w2 c2"]:
        """Return `channels` planes, reduced by the stride."""
        y = convolution(self.channels, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(self.norm(self.dtype, name="norm1")(y, train))
        y = convolution(self.channels, 1, self.dtype, "conv2")(y)
        y = self.norm(self.dtype, name="norm2")(y, train)
        if self.stride != 1:
            x = convolution(self.channels, self.stride, self.dtype, "shortcut")(x)
        return nn.relu(x + y)


class PerceptronBlock(nn.Module):
    """Pre-norm residual block of EfficientZero V2: norm-linear-relu-linear, add the input."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B width"], train: bool) -> Float[Array, "B width"]:
        """Return vectors of the same width; the hidden layer has twice as many units."""
        y = LayerNorm(self.dtype, name="norm")(x, train)
        y = nn.relu(Linear(2 * self.width, self.dtype, name="linear1")(y))
        return x + Linear(self.width, self.dtype, name="linear2")(y)


ACTIVATIONS = {"relu": nn.relu, "elu": nn.elu}


class Head(nn.Module):
    """Linear-norm-activation (V2, control: twice), then linear to float32 logits, first zero."""

    config: NetworkConfig
    outputs: int
    norm: Norm
    dtype: Dtype
    hidden: int = 0  # 0: the configured width

    @nn.compact
    def __call__(self, x: Float[Array, "B features"], train: bool) -> Float[Array, "B outputs"]:
        """Return logits."""
        c = self.config
        for i in range(c.head_layers):
            number = str(i) if i else ""
            x = Linear(self.hidden or c.head_hidden, self.dtype, name=f"hidden{number}")(x)
            x = self.norm(self.dtype, name=f"norm{number}")(x, train)
            x = ACTIVATIONS[c.head_activation](x)
        # Deviates (heads of control, V2): zeros, so that a new network predicts 0.
        return Linear(self.outputs, bound=0.0, name="out")(x)


class PrefixHead(nn.Module):
    """The value prefix: an LSTM over the states of an imagined path (EfficientZero section 4.2).

    With `network.lstm_width=0` there is none: the reward of a step is read off its state.
    """

    config: NetworkConfig
    outputs: int
    norm: Norm
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "B features"], carry: Carry, train: bool
    ) -> tuple[Float[Array, "B S"], Carry]:
        """Return logits and the next carry."""
        width = self.config.lstm_width
        if width:
            carry = LSTM(width, self.dtype, name="lstm")(x, carry)
            x = nn.relu(self.norm(self.dtype, name="norm")(carry[1], train))
        head = Head(self.config, self.outputs, self.norm, self.dtype, name="head")
        return head(x, train), carry


class Projector(nn.Module):
    """SimSiam's projector: three linear-norm with relu in between (EfficientZero section 4.1).

    With batch norm for vectors, too: without batch statistics all projections would collapse (Chen
    and He, 2021, section 4.4).
    """

    width: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B flat"], train: bool) -> Float[Array, "B P"]:
        """Return float32 projections."""
        # Deviates (projector for vectors, V2): batch norm.
        for i in range(2):
            x = Linear(self.width, self.dtype, name=f"linear{i}")(x)
            x = nn.relu(BatchNorm(self.dtype, name=f"norm{i}")(x, train))
        x = Linear(self.width, self.dtype, name="linear2")(x)
        return BatchNorm(jnp.float32, name="norm2")(x, train)


class Predictor(nn.Module):
    """SimSiam's predictor: linear-norm-relu-linear, on the trained branch."""

    hidden: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B P"], train: bool) -> Float[Array, "B P"]:
        """Return float32 predictions of the other projection."""
        outputs = x.shape[-1]
        x = Linear(self.hidden, self.dtype, name="linear0")(x)
        x = nn.relu(BatchNorm(self.dtype, name="norm0")(x, train))
        return Linear(outputs, name="linear1")(x)
