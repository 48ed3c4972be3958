"""Small programs on four devices that communicate a known amount; prints XLA's text of each.

Run by test_scaling.py in a process of its own, which has the devices by force.
"""

import json
import sys

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ez_jax.system import devices

FLOATS = jax.ShapeDtypeStruct((4096,), jnp.float32)  # 1,024 of them, 4 KiB, on each device
RING = [(0, 1), (1, 2), (2, 3), (3, 0)]


def psum(x):
    return jax.lax.psum(x, "data")


def halves(x):
    return jax.lax.psum(x.astype(jnp.bfloat16), "data", axis_index_groups=[[0, 1], [2, 3]])


def all_gather(x):
    return jax.lax.all_gather(x, "data", tiled=True)


def reduce_scatter_in_a_loop(x):
    def body(i, x):
        part = jax.lax.psum_scatter(x, "data", scatter_dimension=0, tiled=True)
        return jnp.tile(part, 4) * i

    return jax.lax.fori_loop(0, 7, body, x)


def loops_in_loops(x):
    one = lambda i, x: jax.lax.psum(x, "data") * 0.1 * i  # noqa: E731
    return jax.lax.fori_loop(0, 5, lambda i, x: jax.lax.fori_loop(0, 3, one, x) + i, x)


def open_loop(x):
    return jax.lax.while_loop(lambda x: x[0] > 1, lambda x: jax.lax.psum(x, "data") * 0.1, x)


def all_to_all(x):
    return jax.lax.all_to_all(x.reshape(4, -1), "data", 0, 0).reshape(-1)


def permute(x):
    return jax.lax.ppermute(x, "data", RING)


def branches(x):
    few = lambda x: jnp.tile(jax.lax.psum(x[:8], "data"), 128)  # noqa: E731
    return jax.lax.cond(x[0] > 0, few, psum, x)


def side_by_side(x):
    return jax.lax.ppermute(jnp.sin(x), "data", RING) + jax.lax.psum(jnp.cos(x), "data")


def in_a_row(x):
    return psum(jnp.sin(psum(jnp.sin(psum(x)))))


def product(x):
    return jax.lax.map(lambda row: (x.reshape(16, 64) @ row.reshape(64, 16)).sum(), x[None])[0] * x


PROGRAMS = (psum, halves, all_gather, reduce_scatter_in_a_loop, loops_in_loops, open_loop)
PROGRAMS += (all_to_all, permute, branches, side_by_side, in_a_row, product)


def gradient(weights, x):
    """Of a small network, where the compiler puts in what is to be exchanged."""
    loss = lambda w: jnp.mean(jnp.tanh(x @ w) @ w.T)  # noqa: E731
    return weights - jax.grad(loss)(weights)


def convolution(kernel, images):
    return jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def main():
    jax.set_mesh(devices.make_mesh(jax.devices()))
    split = PartitionSpec("data")
    texts = {}
    for function in PROGRAMS:
        spread = jax.shard_map(function, in_specs=split, out_specs=split, check_vma=False)
        texts[function.__name__] = jax.jit(spread).lower(FLOATS).compile().as_text()
    for function, shapes in (
        (gradient, ((64, 128), (256, 64))),
        (convolution, ((3, 3, 8, 16), (16, 9, 9, 8))),
    ):
        places = devices.shardings((devices.WHOLE, devices.SPLIT))
        args = [
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
            for shape, place in zip(shapes, places, strict=True)
        ]
        texts[function.__name__] = jax.jit(function).lower(*args).compile().as_text()
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    main()
