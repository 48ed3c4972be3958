"""The available networks, one per file, and the choice between them."""

from collections.abc import Callable

import jax.numpy as jnp

from ez_jax.agent.networks.image import make_image_network
from ez_jax.agent.networks.layers import Dtype
from ez_jax.agent.networks.network import Network
from ez_jax.agent.networks.vector import make_vector_network
from ez_jax.config import NetworkConfig
from ez_jax.structs import EnvSpec

NETWORKS: dict[str, Callable[[NetworkConfig, EnvSpec, Dtype], Network]] = {
    "image": make_image_network,
    "vector": make_vector_network,
}


def make_network(config: NetworkConfig, spec: EnvSpec, dtype: Dtype = jnp.float32) -> Network:
    """The configured network for an environment; `auto` chooses by its observations.

    Raises:
        BadInput: the network does not take such observations.
    """
    by_observations = "image" if spec.is_image else "vector"
    kind = by_observations if config.kind == "auto" else config.kind
    return NETWORKS[kind](config, spec, dtype)
