"""Configuration: conversion, refusals, run folders, presets."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ez_jax import config
from ez_jax.agent.learner import OPTIMIZERS
from ez_jax.agent.networks.layers import NORMS
from ez_jax.agent.networks.networks import NETWORKS
from ez_jax.agent.reanalyse.reanalyse import MODES
from ez_jax.agent.search.puct_ez import BOUNDS
from ez_jax.agent.search.search import SEARCHES
from ez_jax.agent.targets.targets import VALUE_TARGETS
from ez_jax.config import (
    BadInput,
    Config,
    checks,
    families,
    from_dict,
    override,
    presets,
    run_folder,
    to_dict,
    validate,
)


def _configs(kind):
    finite = st.floats(allow_nan=False, allow_infinity=False)
    values = {int: st.integers(), float: finite, str: st.text(), bool: st.booleans()}
    values[tuple[float, ...]] = st.lists(finite, max_size=4).map(tuple)
    return st.builds(
        kind,
        **{
            item.name: values[item.type] if item.type in values else _configs(item.type)
            for item in dataclasses.fields(kind)
        },
    )


@given(_configs(Config))
def test_from_dict_inverts_to_dict(chosen):
    assert from_dict(to_dict(chosen)) == chosen


def test_the_defaults_are_possible():
    assert validate(Config()) == Config()


def test_missing_keys_keep_their_defaults():
    assert from_dict({"learner": {"batch_size": 8}}) == override(
        Config(), {"learner.batch_size": 8}
    )


def test_integral_floats_are_whole_numbers():
    chosen = from_dict({"total_agent_steps": 1e5, "discount": 1, "name": 3})
    assert (chosen.total_agent_steps, chosen.discount, chosen.name) == (100_000, 1.0, "3")
    assert type(chosen.total_agent_steps) is int
    assert type(chosen.discount) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learner": {"batchsize": 64}}, "unknown key 'learner.batchsize'.* learner.batch_size"),
        ({"batch_size": 64}, "unknown key 'batch_size'; did you mean learner.batch_size?"),
        ({"zzz": 1}, "unknown key 'zzz'; see --help"),
        ({"learner": 3}, "learner is 3: expected a section of keys"),
        ({"learner": {"batch_size": 1.5}}, r"learner.batch_size is 1.5: expected a whole number"),
        ({"learner": {"batch_size": "8"}}, r"learner.batch_size is '8': expected a whole number"),
        ({"seed": True}, "seed is True: expected a whole number"),
        ({"discount": None}, "discount is None: expected a number"),
        ({"value_prefix": 0}, "value_prefix is 0: expected true or false"),
        ({"run_dir": None}, "run_dir is None: expected text"),
        ({"search": {"temperatures": 1.0}}, "search.temperatures is 1.0: expected a list"),
        ({"search": {"temperatures": ["a"]}}, "search.temperatures is 'a': expected a number"),
    ],
)
def test_wrong_keys_and_types_are_refused_by_name(values, message):
    with pytest.raises(BadInput, match=message):
        from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.policy": "gumble"}, "choose puct_ez or puct or gumbel .did you mean gumbel"),
        ({"precision": "float16"}, "precision is 'float16': choose auto or float32 or bfloat16"),
        ({"learner.optimizer": "lamb"}, "choose sgd or adam"),
        ({"targets.value": "gae"}, "choose td or search"),
        ({"name": " "}, "give the run a name"),
        ({"seed": -1}, "seed is -1: it must be finite and not negative"),
        ({"seed": 2**31}, "it must be below"),
        ({"loss.value": -0.5}, "loss.value is -0.5: it must be finite and not negative"),
        ({"learner.learning_rate": float("nan")}, "it must be finite"),
        ({"learner.learning_rate": 0}, "it must be greater than 0"),
        ({"reanalyse.ratio": 1.5}, "it must lie between 0 and 1"),
        ({"replay.priority_exponent": 2}, "it must lie between 0 and 1"),
        ({"replay.importance_exponent_final": 0.1}, "lower the first"),
        ({"search.num_simulations": 0}, "works for search.policy=gumbel only"),
        ({"targets.value": "mixed", "reanalyse.ratio": 0}, "set targets.value=td"),
        ({"targets.value": "search", "reanalyse.mode": "none"}, "set reanalyse.mode=batch"),
        ({"reanalyse.mode": "buffer", "reanalyse.ratio": 0}, "set reanalyse.mode=none"),
        ({"replay.min_weight": 2}, "it must lie between 0 and 1"),
        ({"network.head_activation": "gelu"}, "choose relu or elu"),
        ({"learner.unroll_steps": 0}, "it must be at least 1"),
        ({"learner.batch_size": -3}, "learner.batch_size is -3: it must be at least 1"),
        ({"search.temperatures": [1.0]}, "give 3 temperatures"),
        ({"search.temperature_fractions": [0.7, 0.5]}, "give rising shares"),
        ({"learner.momentum": 1}, "it must be below 1"),
        ({"learner.batch_size": 200_000}, "lower the batch or raise the capacity"),
        ({"learner.batch_size": 8, "replay.capacity": 9}, "set replay.capacity to 44 or more"),
        ({"learner.start": 10}, "set learner.start to 300 or more"),
        ({"total_agent_steps": 100}, "raise total_agent_steps or lower learner.start"),
        ({"learner.augment_shift": 48}, "lower learner.augment_shift"),
        ({"targets.value": "search", "reanalyse.ratio": 0}, "set targets.value=td"),
        ({"updates_per_step": 0, "final_updates": 0}, "the run would make no update"),
    ],
)
def test_impossible_settings_are_refused_with_the_fix(changes, message):
    with pytest.raises(BadInput, match=message) as refusal:
        validate(override(Config(), changes))
    assert "\n" not in str(refusal.value)


def test_override_refuses_unknown_keys():
    with pytest.raises(BadInput, match="did you mean search"):
        override(Config(), {"search.num_simulation": 3})


def test_run_folder_follows_the_rule_unless_named():
    assert run_folder(Config(game="Pong", seed=3)) == Path("runs/Pong/default/seed3")
    assert run_folder(Config(game="my_pkg:Env-v0")).parts[1] == "my_pkg_Env-v0"
    assert run_folder(Config(run_dir="~/a=b")) == Path.home() / "a=b"


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("game", families.GAMES)
def test_every_preset_fits_every_known_game(game, preset):
    chosen = presets.make_config(game, preset)
    assert (chosen.game, chosen.preset) == (game, preset)


@pytest.mark.parametrize("idea", presets.IDEAS)
@pytest.mark.parametrize("preset", ["small", "efficientzero"])
def test_every_idea_has_an_ablation_that_changes_something(idea, preset):
    ablated = [presets.make_config("CartPole", preset, [name]) for name in presets.IDEAS[idea]]
    assert set(ablated) - {presets.make_config("CartPole", preset)}


def test_every_ablation_belongs_to_one_idea():
    names = [name for ablations in presets.IDEAS.values() for name in ablations]
    assert sorted(names) == sorted(presets.ABLATIONS)


def test_make_config_lets_the_caller_win():
    chosen = presets.make_config(changes={"learner.batch_size": 8})
    assert chosen.learner.batch_size == 8
    with pytest.raises(BadInput, match="unknown preset 'tiny'; choose efficientzero or"):
        presets.make_config(preset="tiny")


def test_keys_are_unique_and_dotted():
    assert "seed" in config.dotted_keys()
    assert "learner.batch_size" in config.dotted_keys()
    assert len(set(config.dotted_keys())) == len(config.dotted_keys())


def test_the_choices_are_the_entries_of_the_tables():
    tables = {
        "network.kind": {"auto", *NETWORKS},
        "network.norm": {"batch_per_depth", *NORMS},
        "search.policy": SEARCHES,
        "search.minmax": BOUNDS,
        "reanalyse.mode": MODES,
        "targets.value": VALUE_TARGETS,
        "learner.optimizer": OPTIMIZERS,
    }
    for key, entries in tables.items():
        assert set(checks.CHOICES[key]) == set(entries), key
