"""Every switch changes what its row of the table says, and nothing else."""

import dataclasses

import numpy as np
import pytest

from ez_jax.config import Config, from_dict, override, presets, to_dict, validate
from ez_jax.diagnosis.sample_update import BASE
from ez_jax.diagnosis.switches import SWITCHES, Switch, flip

KEYS = {switch.key for switch in SWITCHES}


# The ideas of a study in every run of the tests, the rest in the longer ones.
IDEAS = {
    f"{key}.{leaf}" if isinstance(value, dict) else key
    for first, *_ in presets.IDEAS.values()
    for changes in [presets.ABLATIONS[first]]
    for key, value in changes.items()
    for leaf in (value if isinstance(value, dict) else [""])
}


ROWS = [
    pytest.param(switch, id=str(switch), marks=() if switch.key in IDEAS else pytest.mark.long)
    for switch in SWITCHES
]


@pytest.mark.parametrize("switch", ROWS)
def test_a_switch_changes_what_the_table_says_and_not_a_bit_of_the_rest(switch):
    result = flip(switch)
    assert result.changed == result.expected
    for name in result.before.keys() - result.expected:
        np.testing.assert_array_equal(result.before[name], result.after[name], err_msg=name)


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_a_flip_is_a_possible_configuration(switch):
    given = override(BASE, dict(switch.given))
    assert validate(override(given, {switch.key: switch.off})) != validate(given)


def test_every_switch_of_the_whole_run_has_a_row():
    fields = dataclasses.fields(Config)
    assert {item.name for item in fields if item.type is bool} <= KEYS


@pytest.mark.parametrize("ablation", presets.ABLATIONS)
def test_every_ablation_has_a_row(ablation):
    ablated = from_dict(presets.merge(to_dict(BASE), presets.ABLATIONS[ablation]))
    flipped = [override(BASE, {switch.key: switch.off}) for switch in SWITCHES]
    # Taking the other of two: one of them is what there is already.
    assert ablated in [BASE, *flipped]


def test_a_switch_that_does_nothing_is_reported_as_dead():
    result = flip(Switch("consistency", True, ("loss/consistency",)))
    assert (result.dead, result.leaks) == ({"loss/consistency"}, frozenset())


def test_a_switch_that_changes_more_than_its_row_says_is_reported_as_leaking():
    result = flip(Switch("consistency", False, ("loss/consistency",)))
    assert (result.dead, result.leaks) == (frozenset(), {"loss/total", "loss/gradient"})


def test_a_name_that_nothing_has_is_reported_as_dead():
    result = flip(Switch("consistency", True, ("loss/consistancy",)))
    assert result.dead == {"loss/consistancy"}
