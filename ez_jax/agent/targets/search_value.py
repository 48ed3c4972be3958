"""Root values of fresh searches (EfficientZero V2 §3.3)."""

from jaxtyping import Array

from ez_jax.agent.model import Model
from ez_jax.agent.targets.value_target import ValueTargetFn
from ez_jax.config import Config
from ez_jax.structs import Batch, Variables


def make_search_value(config: Config, model: Model) -> ValueTargetFn:
    """Search-based value estimation (EfficientZero V2 §3.3): the root's own search value."""
    del model
    num_positions = config.learner.unroll_steps + 1

    def search_value(variables: Variables, batch: Batch, updates: Array) -> Array:
        del variables, updates
        # There is nothing to search at a final observation: it is worth 0 after a termination.
        return batch.value * batch.discount[:, :num_positions]

    return search_value
