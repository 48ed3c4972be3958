"""The environment that a crash bundle describes, before anything is made of it."""

import dataclasses
import json

import pytest
import tiny

from ez_jax.storage.crash_bundle import _spec

DISCRETE = tiny.make_spec(4)
CONTINUOUS = dataclasses.replace(DISCRETE, num_actions=0, action_size=3)


def written(spec, **changes):
    values = dataclasses.asdict(spec) | {"observation_dtype": spec.observation_dtype.name}
    return json.loads(json.dumps(values | changes))


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
def test_an_environment_comes_back_with_either_kind_of_actions(spec):
    assert _spec(written(spec)) == spec


def test_bundles_of_before_continuous_actions_can_be_read():
    values = written(DISCRETE)
    del values["action_size"]
    assert _spec(values) == DISCRETE


@pytest.mark.parametrize(
    "changes",
    [
        {"action_size": 3},  # and some discrete ones
        {"num_actions": 0},
        {"num_actions": 0, "action_size": -1},
        {"num_actions": 0, "action_size": 1.5},
        {"observation_dtype": "float64"},
    ],
)
def test_an_impossible_environment_is_refused(changes):
    with pytest.raises(ValueError, match="impossible"):
        _spec(written(DISCRETE, **changes))
