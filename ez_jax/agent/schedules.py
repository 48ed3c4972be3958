"""What changes during a run: updates due, temperature, learning rate, exponents.

All are functions of the configuration and the clocks, so that nothing depends on the speed of the
machine or on where a run was interrupted.
"""

import math

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ez_jax.config import Config, LearnerConfig, SearchConfig
from ez_jax.structs import Clocks


def updates_due(config: Config, clocks: Clocks) -> int:
    """Updates that are due for the data collected so far: exact pacing by `updates_per_step`.

    While data is still collected, they are made in whole groups that are searched together.
    """
    # Deviates (pacing): acting and learning never run ahead of each other.
    # The last step of all environments together can exceed the total.
    steps = min(clocks.agent_steps, config.total_agent_steps)
    due = max(0, updates_owed(config, steps) - clocks.updates)
    waits = clocks.agent_steps < config.total_agent_steps
    return due - due % config.reanalyse.updates_per_search if waits else due


def updates_owed(config: Config, agent_steps: int) -> int:
    """All updates that this number of agent steps calls for."""
    return int(max(0, agent_steps - config.learner.start) * config.updates_per_step)


def draws_ahead(config: Config) -> bool:
    """Whether the samples of a group of updates are drawn before the previous group's updates."""
    return config.replay.memory != "device"


def rows_ahead(config: Config) -> int:
    """Rows that can be written to the replay between such a draw and the last of its updates.

    The steps for one group come in between. Of two consecutive rows of an environment at least
    one counts as a step: the action after a final observation is not executed.
    """
    if not draws_ahead(config) or not config.updates_per_step:
        return 0
    steps = config.reanalyse.updates_per_search / config.updates_per_step
    return 2 * math.ceil(steps / config.actor.num_envs)


def handful(config: Config) -> int:
    """Updates per round after the last step: about as many as between two decisions."""
    number = max(1, round(config.updates_per_step * config.actor.num_envs))
    group = config.reanalyse.updates_per_search
    return -(-number // group) * group


def updates_left(config: Config, clocks: Clocks) -> int:
    """The next round of updates after the last step; 0 when all are done."""
    return min(config.total_updates - clocks.updates, handful(config))


def periodic_clock(config: Config, clocks: Clocks) -> int:
    """The clock for periods: agent steps, and after the last step the equivalent of updates."""
    past = clocks.updates - (config.total_updates - config.final_updates)
    if clocks.agent_steps < config.total_agent_steps or past <= 0:
        return clocks.agent_steps
    return clocks.agent_steps + round(past / (config.updates_per_step or 1))


def has_crossed(period: int, before: int, now: int) -> bool:
    """Whether a clock has passed a multiple of the period; never if the period is 0."""
    return period > 0 and now // period > before // period


def temperature(config: Config, clocks: Clocks) -> float:
    """The temperature of the actor, by the share of updates done."""
    planned = max(1, config.total_updates - config.final_updates)
    return acting_temperature(config.search, clocks.updates / planned)


def acting_temperature(config: SearchConfig, progress: float) -> float:
    """The temperature by the share of training done, 0..1 (MuZero appendix D)."""
    phase = sum(progress >= begin for begin in config.temperature_fractions)
    return config.temperatures[phase]


def learning_rate(config: LearnerConfig) -> optax.Schedule:
    """Linear warm-up from 0, then a drop by `decay_rate` every `decay_every` updates."""
    decay = optax.exponential_decay(
        config.learning_rate, config.decay_every, config.decay_rate, staircase=True
    )
    warmup = optax.linear_schedule(0.0, config.learning_rate, max(1, config.warmup_updates))
    return optax.join_schedules([warmup, decay], [config.warmup_updates])


def importance_exponent(config: Config, updates: Int[Array, ""]) -> Array:
    """β of prioritised replay: linear over the run (Schaul et al., 2016, §3.4)."""
    first, last = config.replay.importance_exponent, config.replay.importance_exponent_final
    return first + (last - first) * jnp.minimum(1.0, updates / max(1, config.total_updates))
