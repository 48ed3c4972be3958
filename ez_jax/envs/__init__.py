"""Environments: N copies side by side behind one interface, for every library."""

from ez_jax.envs.vector_env import VectorEnv, make_env, runs_on_device

__all__ = ["VectorEnv", "make_env", "runs_on_device"]
