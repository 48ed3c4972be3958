"""The networks, one per file; `networks.py` lists them."""

from ez_jax.agent.networks.network import Network, normalise_state
from ez_jax.agent.networks.networks import make_network

__all__ = ["Network", "make_network", "normalise_state"]
