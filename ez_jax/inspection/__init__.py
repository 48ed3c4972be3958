"""One episode with all searches of the agent, as a page: see `ez_jax.inspect`."""

MAX_STEPS = 500  # default number of decisions shown
MAX_NODES = 64  # default number of nodes kept of each tree
