"""First n-step values, later search values (EfficientZero V2 §3.3)."""

import jax.numpy as jnp
from jaxtyping import Array

from ez_jax.agent.model import Model
from ez_jax.agent.targets.search_value import make_search_value
from ez_jax.agent.targets.td import make_td_value
from ez_jax.agent.targets.value_target import ValueTargetFn
from ez_jax.config import Config
from ez_jax.structs import Batch, Variables


def make_mixed_value(config: Config, model: Model) -> ValueTargetFn:
    """EfficientZero V2 (§3.3): n-step values at first and for new data, otherwise search values."""
    td_value, search_value = make_td_value(config, model), make_search_value(config, model)
    settings = config.targets

    def mixed_value(variables: Variables, batch: Batch, updates: Array) -> Array:
        by_td = (updates < settings.mixed_updates) | (batch.age < settings.mixed_newest)
        given = variables, batch, updates
        return jnp.where(by_td[:, None], td_value(*given), search_value(*given))

    return mixed_value
