"""What changes in the course of a run: updates due, temperature, learning rate, exponents.

Functions of the configuration and the clocks alone, so that nothing depends on the speed of the
machine or on where a run was stopped.
"""

import math

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ez_jax.config import Config, LearnerConfig, SearchConfig
from ez_jax.structs import Clocks


def updates_due(config: Config, clocks: Clocks) -> int:
    """Updates that the data collected so far is owed: exact pacing by `updates_per_step`.

    While data still comes they are made in whole groups of those that search together.
    """
    # Deviates (pacing): neither side ever runs ahead of the other.
    # The last step of all environments together can go past the end.
    steps = min(clocks.agent_steps, config.total_agent_steps)
    due = max(0, updates_owed(config, steps) - clocks.updates)
    waits = clocks.agent_steps < config.total_agent_steps
    return due - due % config.reanalyse.updates_per_search if waits else due


def updates_owed(config: Config, agent_steps: int) -> int:
    """All updates that so many agent steps are worth."""
    return int(max(0, agent_steps - config.learner.start) * config.updates_per_step)


def draws_ahead(config: Config) -> bool:
    """Whether the samples of a group of updates are drawn before the updates of the one before."""
    return config.replay.memory != "device"


def rows_ahead(config: Config) -> int:
    """Rows of replay that can be written after such a draw, up to the last of its updates.

    Steps enough for one group come in between. Of two rows of an environment in succession at
    least one counts as a step: the action on a final observation is not executed.
    """
    if not draws_ahead(config) or not config.updates_per_step:
        return 0
    steps = config.reanalyse.updates_per_search / config.updates_per_step
    return 2 * math.ceil(steps / config.actor.num_envs)


def handful(config: Config) -> int:
    """Updates made in one go past the data: about as many as between two decisions."""
    number = max(1, round(config.updates_per_step * config.actor.num_envs))
    group = config.reanalyse.updates_per_search
    return -(-number // group) * group


def updates_left(config: Config, clocks: Clocks) -> int:
    """A handful of the updates that run past the data; 0 when all are done."""
    return min(config.total_updates - clocks.updates, handful(config))


def periodic_clock(config: Config, clocks: Clocks) -> int:
    """What periods are counted by: agent steps, and past the data what the updates are worth."""
    past = clocks.updates - (config.total_updates - config.final_updates)
    if clocks.agent_steps < config.total_agent_steps or past <= 0:
        return clocks.agent_steps
    return clocks.agent_steps + round(past / (config.updates_per_step or 1))


def has_crossed(period: int, before: int, now: int) -> bool:
    """Whether a clock has passed a multiple of the period, which is never if that is 0."""
    return period > 0 and now // period > before // period


def temperature(config: Config, clocks: Clocks) -> float:
    """Of the actor's choice, by the share of the updates that is made."""
    planned = max(1, config.total_updates - config.final_updates)
    return acting_temperature(config.search, clocks.updates / planned)


def acting_temperature(config: SearchConfig, progress: float) -> float:
    """Temperature by the share of the training done, 0..1 (MuZero appendix D)."""
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
