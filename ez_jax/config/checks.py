"""Checks of a configuration before a run starts: ranges, choices, combinations.

`problems(config)` yields one sentence per problem, each with its fix; `validate` raises the first.
"""

import difflib
import math
import re
from collections.abc import Iterator
from typing import Any

from ez_jax.config.conversion import flatten
from ez_jax.config.errors import BadInput, shown
from ez_jax.config.settings import Config

CHOICES = {
    "precision": ("auto", "float32", "bfloat16"),
    "env.backend": ("auto", "envpool", "gymnasium"),
    "network.kind": ("auto", "image", "vector"),
    "network.norm": ("batch", "batch_per_depth", "sample", "layer"),
    "network.head_activation": ("relu", "elu"),
    "search.policy": ("puct_ez", "puct", "gumbel"),
    "search.tree": ("auto", "mctx", "flat"),
    "search.minmax": ("parent", "official"),
    "search.candidate_target": ("auto", "improved", "winner"),
    "replay.memory": ("device", "host", "auto"),
    "reanalyse.mode": ("batch", "buffer", "none"),
    "targets.value": ("td", "search", "mixed"),
    "learner.optimizer": ("sgd", "adam"),
}

# No number may be negative. Numbers that are in none of these lists may be 0.
AT_LEAST_ONE = (
    "total_agent_steps", "env.image_size", "env.frame_stack", "env.frame_skip",
    "env.max_episode_steps", "env.eval_max_episode_steps", "network.channels",
    "network.head_channels", "network.head_hidden", "network.head_layers", "network.projection",
    "network.predictor_hidden", "network.support", "network.vector_width", "search.widening",
    "search.root_candidates", "search.node_candidates", "actor.num_envs",
    "replay.capacity", "reanalyse.chunk", "reanalyse.updates_per_search", "targets.td_steps",
    "learner.batch_size", "learner.unroll_steps", "learner.lstm_horizon_len",
    "learner.decay_every", "learner.target_period", "eval.episodes", "eval.num_envs",
    "checkpoint.keep", "log.every",
)  # fmt: skip
SHARES = (
    "discount", "env.sticky_actions", "eval.epsilon", "search.dirichlet_fraction",
    "reanalyse.ratio", "replay.priority_exponent", "replay.importance_exponent",
    "replay.importance_exponent_final", "replay.min_weight", "learner.decay_rate",
    "learner.momentum", "network.norm_momentum", "search.widened",
)  # fmt: skip
POSITIVE = (
    "discount", "network.value_bin", "network.prefix_bin", "search.dirichlet_alpha",
    "search.pb_c_base", "search.min_q_range",
    "targets.age_fraction", "learner.learning_rate", "learner.max_grad_norm",
)  # fmt: skip
SEEDS = ("seed", "eval.seed")
# Far beyond any use. Larger values would take memory or time before anything else refuses them.
AT_MOST = {
    "updates_per_step": 10_000,
    "env.image_size": 1_024,
    "env.frame_stack": 1_024,
    "env.frame_skip": 1_024,
    "network.channels": 2**14,
    "network.patch": 1_024,
    "network.blocks": 100,
    "network.action_channels": 2**14,
    "network.head_channels": 2**14,
    "network.head_hidden": 2**16,
    "network.head_layers": 100,
    "network.policy_hidden": 2**16,
    "network.lstm_width": 2**16,
    "network.projection": 2**16,
    "network.predictor_hidden": 2**16,
    "network.support": 2**16,
    "network.vector_width": 2**16,
    "network.vector_blocks": 100,
    "search.num_simulations": 2**16,
    "search.root_candidates": 2**12,
    "search.node_candidates": 2**12,
    "actor.num_envs": 2**14,
    "reanalyse.chunk": 2**24,
    "reanalyse.updates_per_search": 1_000,
    "targets.td_steps": 1_000,
    "learner.batch_size": 2**24,
    "learner.unroll_steps": 1_000,
    "learner.augment_shift": 1_024,
    "eval.episodes": 10**6,
    "eval.num_envs": 2**14,
    "replay.capacity": 2**53,  # the memory plan says what fits
}
LARGEST = 2**31 - 1  # for all other numbers; integers are int32 on the device


def problems(config: Config) -> Iterator[str]:
    """Yield a sentence for every problem of a configuration, the simplest kinds first."""
    values = flatten(config)
    yield from _wrong_choices(values)
    yield from _out_of_range(values)
    yield from _bad_schedules(config)
    yield from _impossible_sizes(config)
    yield from _impossible_switches(config)


def _wrong_choices(values: dict[str, Any]) -> Iterator[str]:
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            nearest = difflib.get_close_matches(values[key], choices, n=1)
            hint = f" (did you mean {nearest[0]}?)" if nearest else ""
            yield f"{key} is {shown(values[key])}: choose {' or '.join(choices)}{hint}"
    if not re.fullmatch("all|local|[1-9][0-9]{0,5}", values["devices"]):
        yield f"devices is {shown(values['devices'])}: write a number, all or local"
    if not values["name"].strip():
        yield "name is empty: give the run a name, such as name=first"
    parts = values["name"].split("/")
    if parts[0] in ("", "~") or {".", ".."} & set(parts):
        yield f"name is {shown(values['name'])}: set a folder elsewhere with run_dir="


def _numbers(value: Any) -> tuple[float, ...]:
    """The numbers of a setting."""
    if isinstance(value, str):
        return ()
    return value if isinstance(value, tuple) else (value,)


def _out_of_range(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        for number in _numbers(value):
            if not 0 <= number < math.inf and (key not in AT_LEAST_ONE or number > 0):
                yield f"{key} is {number}: it must be finite and not negative"
    limits = (
        (AT_LEAST_ONE, lambda number: number >= 1, "it must be at least 1"),
        (SHARES, lambda number: number <= 1, "it must lie between 0 and 1"),
        (POSITIVE, lambda number: number > 0, "it must be greater than 0"),
        (SEEDS, lambda number: number < 2**31, f"it must be below {2**31}"),
    )
    for limited, holds, rule in limits:
        for key in limited:
            if not holds(values[key]):
                yield f"{key} is {values[key]}: {rule}"
    for key, value in values.items():
        most = AT_MOST.get(key, LARGEST)
        for number in _numbers(value):
            if number > most:
                yield f"{key} is {number}: it must be at most {most}"


def _bad_schedules(config: Config) -> Iterator[str]:
    search, replay = config.search, config.replay
    fractions = search.temperature_fractions
    if len(search.temperatures) != len(fractions) + 1:
        yield (
            f"search.temperatures has {len(search.temperatures)} entries for {len(fractions)} "
            f"search.temperature_fractions: give {len(fractions) + 1} temperatures"
        )
    if list(fractions) != sorted(fractions) or any(fraction > 1 for fraction in fractions):
        yield (
            f"search.temperature_fractions is {list(fractions)}: "
            "give rising shares of the run's updates between 0 and 1"
        )
    if replay.importance_exponent > replay.importance_exponent_final:
        yield (
            f"replay.importance_exponent {replay.importance_exponent} is above "
            f"replay.importance_exponent_final {replay.importance_exponent_final}: lower the first"
        )
    if config.learner.momentum == 1:
        yield "learner.momentum is 1: it must be below 1"


def _impossible_sizes(config: Config) -> Iterator[str]:
    learner, replay = config.learner, config.replay
    if learner.batch_size > replay.capacity:
        yield (
            f"learner.batch_size {learner.batch_size} is above replay.capacity {replay.capacity}: "
            "lower the batch or raise the capacity"
        )
    # One sequence of every environment, with the states that its targets need.
    sequences = config.actor.num_envs * (learner.unroll_steps + config.targets.td_steps + 1)
    first_batch = sequences + learner.batch_size
    if replay.capacity < sequences:
        yield (
            f"replay.capacity {replay.capacity} does not hold one sequence of each of the "
            f"{config.actor.num_envs} environments: set replay.capacity to {sequences} or more"
        )
    if learner.start < first_batch:
        yield (
            f"learner.start {learner.start} does not fill the first batch of {learner.batch_size} "
            f"sequences from {config.actor.num_envs} environments: "
            f"set learner.start to {first_batch} or more"
        )
    if learner.start > config.total_agent_steps:
        yield (
            f"learner.start {learner.start} is above total_agent_steps "
            f"{config.total_agent_steps}, so nothing would be learned: "
            "raise total_agent_steps or lower learner.start"
        )
    if 2 * learner.augment_shift >= config.env.image_size:
        yield (
            f"learner.augment_shift {learner.augment_shift} moves a whole image of "
            f"env.image_size {config.env.image_size} out of view: lower learner.augment_shift"
        )


def _impossible_switches(config: Config) -> Iterator[str]:
    value, search = config.targets.value, config.search
    mode, ratio = config.reanalyse.mode, config.reanalyse.ratio
    if value != "td" and (mode == "none" or (mode == "batch" and ratio == 0)):
        yield (
            f"targets.value={value} needs fresh searches, but reanalyse.mode is {mode} and "
            f"reanalyse.ratio {ratio}: set reanalyse.mode=batch and reanalyse.ratio=1, or "
            "set targets.value=td"
        )
    if mode == "buffer" and ratio == 0:
        yield (
            "reanalyse.ratio is 0, but reanalyse.mode=buffer ignores it and searches: "
            "set reanalyse.mode=none"
        )
    if config.value_prefix and not config.network.lstm_width:
        yield (
            "network.lstm_width is 0, but a value prefix needs a memory: set a width, or "
            "value_prefix=false"
        )
    if search.node_candidates > search.root_candidates:
        yield (
            f"search.node_candidates {search.node_candidates} is above search.root_candidates "
            f"{search.root_candidates}: lower the first"
        )
    if search.num_simulations == 0 and search.policy != "gumbel":
        yield (
            "search.num_simulations is 0, which works for search.policy=gumbel only: "
            f"set a number for {search.policy}"
        )
    if config.total_updates == 0:
        yield (
            "the run would make no update: raise updates_per_step, total_agent_steps "
            "or final_updates"
        )


def validate(config: Config) -> Config:
    """Check a configuration, and return it unchanged.

    Raises:
        BadInput: the first impossible value or combination, with its fix.
    """
    for problem in problems(config):
        raise BadInput(problem)
    return config
