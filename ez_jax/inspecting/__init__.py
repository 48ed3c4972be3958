"""One episode with all that the agent thought in it, as a page: see `ez_jax.inspect`."""
