"""One game with all that the agent thought in it, as a page: see `ez_jax.inspect`."""

MAX_STEPS = 500  # decisions shown, unless told otherwise
MAX_NODES = 64  # kept of each tree, unless told otherwise
