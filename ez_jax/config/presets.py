"""Named sets of settings, as differences from the defaults of `settings.py`.

Precedence, low to high: defaults, preset, the preset's settings for this kind of game and for this
game, the kind of game, the game, protocol, compat and ablations (on the command line in the order
given), single keys. `compose` merges all but the last, for the command line and `make_config`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ez_jax.config import checks
from ez_jax.config import conversion as configs
from ez_jax.config.errors import BadInput, unknown
from ez_jax.config.families import FAMILIES, GAMES, Differences, merge, name_and_family
from ez_jax.config.settings import Config

# Settings for a laptop: a small network, few simulations, fewer updates.
_SMALL: Differences = {
    "updates_per_step": 0.5,
    "final_updates": 0,
    "network": {
        "channels": 16,
        "head_hidden": 32,
        "lstm_width": 64,
        "projection": 128,
        "predictor_hidden": 64,
    },
    "search": {"policy": "gumbel", "num_simulations": 16, "max_considered_actions": 4},
    "reanalyse": {"ratio": 0.25},
    "learner": {
        "batch_size": 64,
        "start": 500,
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "warmup_updates": 100,
        "weight_decay": 1e-5,
        "target_period": 50,
    },
    "eval": {"every": 2_500, "episodes": 20, "num_envs": 20},
    "checkpoint": {"every": 5_000},
    "log": {"every": 500},
}
# 51 bins for values up to 299 and rewards up to 2 (EfficientZero V2, control), rounded up so that
# a reward of 2, which DeepMind Control gives, is inside.
_BINS_OF_V2 = {"support": 25, "value_bin": 0.6648, "prefix_bin": 0.02937}
_CONTINUOUS_V2: Differences = {
    "value_prefix": False,
    "network": {"lstm_width": 0, "scale_observations": True, **_BINS_OF_V2},
    "search": {"num_simulations": 32, "max_considered_actions": 16, "gumbel_scale": 0.0},
    "loss": {"consistency": 2.0, "entropy": 0.05},
}
_SMALL_CONTINUOUS = merge(
    _CONTINUOUS_V2,
    {
        "actor": {"random_start": False},  # as V2
        # As V2, but of 64 samples. Half as many of 128 take four fifths of the time and learn
        # WalkerWalk more slowly (experiments/results/control).
        "updates_per_step": 1.0,
        "network": {"vector_width": 128, "vector_blocks": 1, "head_hidden": 128},
        "reanalyse": {"mode": "buffer", "max_age": 400, "chunk": 64},
        "learner": {"learning_rate": 1e-3, "start": 1_000},
        "eval": {"every": 10_000, "episodes": 10, "num_envs": 10},
    },
)
# For values up to 1,600 and rewards up to 120.
_BINS_OF_ANY: Differences = {"network": {"support": 50, "value_bin": 0.75, "prefix_bin": 0.2}}
_MANY_STEPS: Differences = {"updates_per_step": 0.25}  # of a run of several hours


# The published settings of EfficientZero V2 for discrete Atari. (Its value loss is halved twice,
# which gives 0.25 as well.)
_V2: Differences = {
    "off_policy_correction": False,
    "network": {"action_channels": 16, "head_activation": "elu", "predictor_hidden": 256},
    # 0: the number of actions decides.
    "search": {"policy": "gumbel", "num_simulations": 0, "max_considered_actions": 0},
    "actor": {"random_start": False},
    "replay": {"priority_exponent": 1.0, "importance_exponent": 1.0, "min_weight": 0.1},
    "reanalyse": {"ratio": 1.0},
    "targets": {"value": "mixed"},
    "loss": {"consistency": 5.0},
    "eval": {"episodes": 10, "num_envs": 10},
}

PRESETS: dict[str, Differences] = {
    # The published V1 settings are the defaults themselves.
    "efficientzero": {},
    "efficientzero_v2": _V2,
    # Those of EfficientZero V2 for control from images, for one's own games; discount and frames of
    # an observation belong to the game (there 0.99**2 and 4).
    "efficientzero_v2_visual": merge(
        _V2,
        _CONTINUOUS_V2,
        {
            "total_agent_steps": 200_000,
            "network": {"policy_hidden": 64, "scale_observations": False},
            "actor": {"num_envs": 8},
            "targets": {"mixed_updates": 40_000, "mixed_newest": 20_000},
            "loss": {"entropy": 0.005},
            "learner": {"warmup_updates": 2_000},
        },
    ),
    # The published network, losses and number of updates in less time on a GPU: search results stay
    # in the replay for 500 updates, eight updates are prepared at once, and 16 games are played.
    "fast": {
        "actor": {"num_envs": 16},
        "reanalyse": {"mode": "buffer", "max_age": 500, "chunk": 1_024, "updates_per_search": 8},
    },
    # EfficientZero with a network as large as MuZero's, for 200 million frames of Atari instead of
    # 400,000. From MuZero (Schrittwieser et al., 2020, Atari): a million updates of 1024 samples,
    # 16 blocks of 256 channels, scaled states, td_steps, discount, priorities, root noise,
    # learning rate and its decay, episodes of up to 30 minutes. Ours: what this amount of data
    # needs. From EfficientZero: everything else, so 4 stacked frames instead of 32 with their
    # actions, clipped rewards, and a lost life ends the episode.
    "muzero_large": {
        "total_agent_steps": 50_000_000,  # the 200 million frames of MuZero Reanalyze
        "updates_per_step": 0.02,  # a million; a step is sampled 20 times (Atari-100k: 300 times)
        "final_updates": 0,
        "discount": 0.997,
        "env": {"max_episode_steps": 27_000},
        "network": {"blocks": 16, "channels": 256, "state_norm": True},
        "search": {"dirichlet_alpha": 0.25},
        "actor": {"num_envs": 64, "random_start": False},
        # 28 GB of frames, kept in host memory if they do not fit on the device.
        "replay": {
            "capacity": 1_000_000,
            "memory": "auto",
            "priority_exponent": 1.0,
            "importance_exponent": 1.0,
        },
        # Within 1,000 updates each row is searched at most once: at this size for a sixth of the
        # samples.
        "reanalyse": {"mode": "buffer", "chunk": 1_024},
        # One step less per 100,000 agent steps of age: 10 for the newest data, 1 for the oldest.
        "targets": {"td_steps": 10, "age_fraction": 0.002},
        "learner": {
            "batch_size": 1_024,
            "start": 2_500,
            "learning_rate": 0.05,
            "decay_every": 350_000,
        },
        "eval": {"every": 1_000_000},
        "checkpoint": {"every": 1_000_000, "minutes": 30.0},
        "log": {"every": 50_000},
    },
    "small": _SMALL,
    # For one's own games with continuous actions; known ones have these settings with `small`.
    "continuous": merge(_SMALL, _SMALL_CONTINUOUS, _BINS_OF_ANY),
}

_SMALL_PERCEPTRON: Differences = {"kind": "vector", "vector_width": 64, "vector_blocks": 1}
_SLOWER: Differences = {"learning_rate": 1e-3, "target_period": 100}
_SAVED_SELDOM: Differences = {"checkpoint": {"every": 10_000}, "log": {"every": 1_000}}
_STATIC_SCREEN = {"norm": "batch_per_depth", "norm_momentum": 0.5, "center": True}
_OFTEN_REUSED: Differences = {"reanalyse": {"mode": "buffer", "max_age": 200, "chunk": 64}}

# What a preset sets for a family of games or for one game, on top of the above.
PRESETS_FOR: dict[tuple[str, str], Differences] = {
    # No augmentation, because a shift changes the contents of every patch: with it neither rewards
    # nor values of Breakout are learned (experiments/results/static_screens).
    ("small", "atari"): {
        "updates_per_step": 0.35,
        "env": {"image_size": 84, "grayscale": True},
        "network": {"patch": 6, "channels": 32, "support": 50, **_STATIC_SCREEN},
        "reanalyse": {"mode": "buffer", "max_age": 2_000, "chunk": 128},
        "learner": {"start": 2_000, **_SLOWER, "decay_every": 27_000, "augment": False},
        "eval": {"every": 10_000, "episodes": 10, "num_envs": 10},
        **_SAVED_SELDOM,
    },
    ("efficientzero_v2", "dm_control"): merge(
        _CONTINUOUS_V2,
        {
            "network": {
                "head_hidden": 256,
                "head_layers": 2,
                "head_activation": "relu",
                "projection": 512,
                "predictor_hidden": 512,
            },
            "targets": {"mixed_updates": 40_000, "mixed_newest": 20_000},
            "learner": {
                "optimizer": "adam",
                "learning_rate": 3e-4,
                "weight_decay": 2e-5,
                "decay_every": 300_000,
            },
        },
    ),
    # Values up to 355, because a reward of 2 per step is worth 334; and the learning rate falls in
    # the last fifth of a run (experiments/results/dm_control).
    ("small", "dm_control"): merge(
        _SMALL_CONTINUOUS, {"network": {"value_bin": 0.73}, "learner": {"decay_every": 80_000}}
    ),
    ("small", "continuous"): merge(_SMALL_CONTINUOUS, _BINS_OF_ANY),
    ("small", "LunarLanderContinuous"): _MANY_STEPS,
    ("small", "BipedalWalker"): _MANY_STEPS,
    ("small", "control"): {
        "network": {"support": 20, "vector_width": 64, "vector_blocks": 1},
        "targets": {"td_steps": 20},
        "eval": {"every": 1_000},
    },
    # As good as searching every sample of every update, with a tenth of the searches.
    ("small", "CartPole"): _OFTEN_REUSED,
    ("small", "gymnax:CartPole"): {**_OFTEN_REUSED, "replay": {"capacity": 20_000}},
    ("small", "LunarLander"): {
        "updates_per_step": 0.2,
        "actor": {"num_envs": 8},
        "learner": {"start": 2_000, "decay_every": 40_000},
        "eval": {"every": 25_000},
        "checkpoint": {"every": 25_000},
        "log": {"every": 5_000},
    },
    # A perceptron on the 10x10 cells: on a CPU, convolutions take many times as long. With them
    # Breakout scored 2.9 with norm=sample and 1.5 with batch (3 seeds: experiments/results/norm;
    # without sticky actions).
    ("small", "minatar"): {
        "updates_per_step": 0.25,
        "network": {**_SMALL_PERCEPTRON, "norm": "sample", "support": 30},
        "replay": {"capacity": 50_000},
        "reanalyse": {"mode": "buffer", "max_age": 500, "chunk": 32},
        "targets": {"td_steps": 10},
        "learner": {"start": 1_000, **_SLOWER},
        "eval": {"every": 10_000},
        **_SAVED_SELDOM,
    },
    ("small", "grid"): {
        "network": {"support": 20},
        "targets": {"td_steps": 10},
        "learner": {"batch_size": 32},
        "eval": {"every": 1_000},
    },
}

ABLATIONS: dict[str, Differences] = {
    "no_consistency": {"consistency": False},
    "no_value_prefix": {"value_prefix": False},
    "no_off_policy_correction": {"off_policy_correction": False},
    "no_reanalyse": {"reanalyse": {"mode": "none"}},
    "no_prioritised": {"prioritised": False},
    "no_augmentation": {"learner": {"augment": False}},
    "gumbel_search": {"search": {"policy": "gumbel"}},
    "puct_search": {"search": {"policy": "puct"}},
    "td_target": {"targets": {"value": "td"}},
    "search_target": {"targets": {"value": "search"}},
}

# The ideas that a study compares (`python -m ez_jax.ablate`). An idea is switched off by the first
# of its ablations that changes anything; a search or value target by choosing another one.
IDEAS: dict[str, tuple[str, ...]] = {
    "value_prefix": ("no_value_prefix",),
    "consistency": ("no_consistency",),
    "off_policy_correction": ("no_off_policy_correction",),
    "reanalysis": ("no_reanalyse",),
    "prioritisation": ("no_prioritised",),
    "search": ("gumbel_search", "puct_search"),
    "augmentation": ("no_augmentation",),
    "value_target": ("td_target", "search_target"),
}

# How games are played; the defaults are Atari-100k, and MinAtar as published.
PROTOCOLS: dict[str, Differences] = {
    "atari100k": {},
    "sticky": {"env": {"sticky_actions": 0.25}},
    "no_sticky": {"env": {"sticky_actions": 0.0}},
}

# Errors of the official code, to reproduce its numbers.
COMPAT: dict[str, Differences] = {
    "none": {},
    "official": {
        "search": {"policy": "puct_ez", "minmax": "official"},
        "targets": {"block_length": 400, "max_td_steps": 5},
    },
}


# Every named set, by the key of the command line that selects from it.
SETS: dict[str, dict[str, Differences]] = {
    "preset": PRESETS,
    "ablation": ABLATIONS,
    "protocol": PROTOCOLS,
    "compat": COMPAT,
}


def named(kind: str, name: str) -> Differences:
    """What a named set changes; `kind` is a key of `SETS`.

    Raises:
        BadInput: an unknown name; the message has the nearest ones.
    """
    if name not in SETS[kind]:
        raise BadInput(unknown(kind, name, SETS[kind]))
    return SETS[kind][name]


def compose(game: str, preset: str = "", chosen: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """All settings, nested, that follow from the named choices.

    Args:
        game: a name or id, in any case.
        preset: empty for the default preset of that kind of game.
        chosen: kinds and names of further sets, such as `("ablation", "no_consistency")`; the last
            one wins.

    Raises:
        BadInput: an unknown name.
    """
    game, family = name_and_family(game)
    preset = preset or ("efficientzero" if family == "atari" else "small")
    return merge(
        configs.to_dict(Config()),
        named("preset", preset),
        *(PRESETS_FOR.get((preset, scope), {}) for scope in (family, game)),
        FAMILIES[family],
        GAMES.get(game, (family, {}))[1],
        {"game": game, "preset": preset},
        *(named(kind, name) for kind, name in chosen),
    )


def make_config(
    game: str = "CartPole",
    preset: str = "",
    ablations: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    *,
    protocol: str = "atari100k",
    compat: str = "none",
) -> Config:
    """Make the configuration of a run, as the command line does.

    Args:
        game: a name or id, in any case.
        preset: empty for the default preset of that kind of game.
        ablations: names from `ABLATIONS`.
        changes: by dotted key, such as `{"learner.batch_size": 64}`; these take precedence.
        protocol: a name from `PROTOCOLS`.
        compat: a name from `COMPAT`.

    Raises:
        BadInput: an unknown name or key, a wrong type or an impossible combination.
    """
    chosen = [("protocol", protocol), ("compat", compat), *(("ablation", a) for a in ablations)]
    config = configs.from_dict(compose(game, preset, chosen))
    return checks.validate(configs.override(config, changes or {}))
