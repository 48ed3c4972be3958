"""Stems reduce an image to the resolution of the state: published, shorter, and with patches."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ez_jax.agent.networks.layers import Dtype, Linear, Norm, ResidualBlock, convolution


class Stem(nn.Module):
    """Reduce an image to the latent resolution, by the factor `downsample`: 16, 4 or 1.

    16 is published: strided convolution, strided block and two average poolings, which divide by 9
    at the borders, too. 4 stops after the strided block; 1 is a convolution at full resolution.
    """

    channels: int
    downsample: int
    dtype: Dtype
    norm: Norm

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W stacked"], train: bool
    ) -> Float[Array, "B h w channels"]:
        """Return the feature planes."""
        c, dtype, norm = self.channels, self.dtype, self.norm
        if self.downsample == 1:
            x = convolution(c, 1, dtype, "conv")(x)
            return nn.relu(norm(dtype, name="norm")(x, train))
        x = convolution(c // 2, 2, dtype, "conv")(x)
        x = nn.relu(norm(dtype, name="norm")(x, train))
        if self.downsample == 16:
            x = ResidualBlock(c // 2, dtype, norm=norm, name="half_block")(x, train)
        x = ResidualBlock(c, dtype, 2, norm, name="strided_block")(x, train)
        if self.downsample == 16:
            for name in ("quarter_block", "eighth_block"):
                x = ResidualBlock(c, dtype, norm=norm, name=name)(x, train)
                x = _pool(x)
        return x


class PatchStem(nn.Module):
    """A stem for large images on small machines: first, every patch of pixels becomes a vector.

    Not published. A CPU spends most of the published stem on convolutions with few channels at high
    resolution; here one matrix product reduces 84 to 21 pixels (patches of 4), and two poolings to
    6. Images whose sides are not a multiple of the patch are padded with zeros.
    """

    channels: int
    patch: int
    dtype: Dtype
    norm: Norm

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W stacked"], train: bool
    ) -> Float[Array, "B h w channels"]:
        """Return the feature planes."""
        x = Linear(self.channels, self.dtype, bias=False, name="patches")(_patches(x, self.patch))
        x = nn.relu(self.norm(self.dtype, name="norm")(x, train))
        block = functools.partial(ResidualBlock, self.channels, self.dtype, norm=self.norm)
        for name in ("block", "half_block"):
            x = block(name=name)(x, train)
            x = _pool(x)
        return x


def _patches(x: Float[Array, "B H W c"], size: int) -> Float[Array, "B h w features"]:
    """Cut images into patches and flatten each."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.reshape(batch, rows, size, columns, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def _pool(x: Float[Array, "B H W c"]) -> Float[Array, "B h w c"]:
    """Halve the resolution by averages of 3x3, which divide by 9 at the borders, too."""
    return nn.pool(x, 0.0, jax.lax.add, (3, 3), (2, 2), ((1, 1), (1, 1))) / 9
