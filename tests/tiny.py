"""The smallest settings, environments and batches that have every part."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ez_jax.agent.model import Model, make_model
from ez_jax.config import Config, NetworkConfig, override
from ez_jax.structs import Batch, EnvSpec, Variables

ACTIONS = 3
NETWORK = NetworkConfig(
    channels=4,
    head_channels=2,
    head_hidden=8,
    lstm_width=8,
    projection=8,
    predictor_hidden=8,
    support=5,
    vector_width=8,
    vector_blocks=1,
)


def make_spec(*shape: int, stack: int = 1, actions: int = ACTIONS) -> EnvSpec:
    """An environment with vector observations, or images if the shape has three axes."""
    return EnvSpec(
        game="Game",
        backend="gymnasium",
        task_id="Game-v0",
        num_actions=actions,
        observation_shape=shape,
        observation_dtype=np.dtype(np.uint8 if len(shape) == 3 else np.float32),
        frame_stack=stack,
        frame_skip=1,
    )


def make_config(changes: Mapping[str, Any] | None = None) -> Config:
    """Tiny sizes; `changes` by dotted key."""
    tiny = {
        "discount": 0.9,
        "total_agent_steps": 1_000,
        "search.num_simulations": 4,
        "targets.td_steps": 2,
        "learner.batch_size": 4,
        "learner.unroll_steps": 3,
        "learner.lstm_horizon_len": 2,
        "learner.start": 10,
        "learner.warmup_updates": 0,
        "learner.target_period": 4,
    }
    return override(Config(network=NETWORK), {**tiny, **(changes or {})})


def init(model: Model, seed: int = 0) -> Variables:
    """Variables whose last layers are not zero, so that every output depends on the input."""
    # This key compiles in a third of the time of the default one.
    variables = jax.jit(model.init)(jax.random.key(seed, impl="unsafe_rbg"))
    rng = np.random.default_rng(seed)
    noisy = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
    return {**variables, "params": jax.tree.map(noisy, variables["params"])}


def make_vector_model(config: Config, width: int = 2, stack: int = 1) -> Model:
    """A model of vector observations: the cheapest to compile."""
    return make_model(config, make_spec(width, stack=stack))


def random_batch(config: Config, spec: EnvSpec, seed: int = 0) -> Batch:
    """A batch of noise, all in the middle of long episodes."""
    rng = np.random.default_rng(seed)
    size, steps = config.learner.batch_size, config.learner.unroll_steps
    ahead = steps + config.targets.td_steps
    shape = (size, spec.frame_stack + ahead, *spec.observation_shape)
    policy = rng.dirichlet(np.ones(spec.num_actions), (size, steps + 1))
    observation = rng.integers(0, 256, shape) if spec.is_image else rng.normal(size=shape)
    return Batch(
        observation=jnp.asarray(observation, spec.observation_dtype),
        row=jnp.zeros(shape[:2], jnp.int32),
        action=jnp.asarray(rng.integers(0, spec.num_actions, (size, steps)), jnp.int32),
        reward=jnp.asarray(rng.normal(size=(size, ahead)), jnp.float32),
        discount=jnp.ones((size, ahead + 1)),
        policy=jnp.asarray(policy, jnp.float32),
        value=jnp.asarray(rng.normal(size=(size, steps + 1)), jnp.float32),
        searched=jnp.zeros((size, steps + 1), jnp.int32),
        last=jnp.full(size, ahead, jnp.int32),
        goes_on=jnp.ones(size, bool),
        position=jnp.zeros(size, jnp.int32),
        age=jnp.zeros(size, jnp.int32),
        index=jnp.arange(size),
        weight=jnp.asarray(rng.uniform(0.5, 1, size), jnp.float32),
    )
