"""Designs: their arms are those of tables written by hand; nothing is run that is another arm."""

import dataclasses

import numpy as np
import pytest

from ez_jax.config import BadInput, from_dict, presets, to_dict, validate
from ez_jax.structs import EnvSpec
from ez_jax.studies.designs import compare

VECTOR = EnvSpec("CartPole", "envpool", "CartPole-v1", 2, (4,), np.dtype("f4"), 1, 1)
BOARD = dataclasses.replace(VECTOR, observation_shape=(10, 5, 1), observation_dtype=np.dtype("u1"))
SCREEN = dataclasses.replace(BOARD, observation_shape=(96, 96, 3))
OFF = {  # of preset=small
    "no_value_prefix": {"value_prefix": False},
    "no_consistency": {"consistency": False},
    "no_off_policy_correction": {"off_policy_correction": False},
    "no_reanalyse": {"reanalyse.mode": "none"},
    "no_prioritised": {"prioritised": False},
    "puct_search": {"search.policy": "puct"},
    "search_target": {"targets.value": "search"},
}


def made_by(
    design, switches=tuple(presets.IDEAS), spec=VECTOR, changes=None, bases=None, preset=""
):
    base = presets.make_config("CartPole", preset, changes=changes)
    return compare(design, switches, bases or {"": base}, spec)


def table(made):
    return {arm.name: arm.settings for arm in made.arms}


def test_leave_one_out_is_everything_and_each_idea_off_by_itself():
    made = made_by("leave_one_out")
    assert table(made) == {"baseline": {}, **OFF}
    assert list(table(made)) == ["baseline", *OFF]
    assert {arm.against for arm in made.arms} == {"baseline"}


def test_continuous_actions_have_no_other_search():
    spec = dataclasses.replace(VECTOR, num_actions=0, action_size=2)
    made = compare(
        "leave_one_out", tuple(presets.IDEAS), {"": presets.make_config("Pendulum")}, spec
    )
    of_control = {"no_consistency", "no_off_policy_correction", "no_reanalyse", "no_prioritised"}
    assert set(table(made)) == {"baseline", "search_target"} | of_control
    assert "search: continuous actions can only be searched by gumbel" in made.left_out


def test_add_one_in_begins_with_nothing_and_ends_with_everything():
    made = made_by("add_one_in", ("value_prefix", "consistency", "search"))
    off = {"value_prefix": False, "consistency": False, "search.policy": "puct"}
    assert table(made) == {
        "bare": off,
        "only_value_prefix": {"consistency": False, "search.policy": "puct"},
        "only_consistency": {"value_prefix": False, "search.policy": "puct"},
        "only_search": {"value_prefix": False, "consistency": False},
        "baseline": {},
    }
    assert {arm.against for arm in made.arms} == {"bare"}


def test_factorial_is_every_set_of_the_ideas():
    made = made_by("factorial", ("value_prefix", "consistency", "prioritisation"))
    off = [OFF["no_value_prefix"], OFF["no_consistency"], OFF["no_prioritised"]]
    assert table(made) == {
        "baseline": {},
        "no_value_prefix": off[0],
        "no_consistency": off[1],
        "no_prioritised": off[2],
        "no_value_prefix+no_consistency": off[0] | off[1],
        "no_value_prefix+no_prioritised": off[0] | off[2],
        "no_consistency+no_prioritised": off[1] | off[2],
        "no_value_prefix+no_consistency+no_prioritised": off[0] | off[1] | off[2],
    }


def test_a_sweep_compares_with_its_first_value_and_crossed_with_a_design_with_its_own_baseline():
    bases = {
        f"rate-{rate}": presets.make_config(changes={"learner.learning_rate": rate})
        for rate in (0.1, 0.2)
    }
    swept = made_by("sweep", bases=bases)
    assert table(swept) == {"rate-0.1": {}, "rate-0.2": {"learner.learning_rate": 0.2}}
    assert [arm.against for arm in swept.arms] == ["rate-0.1", "rate-0.1"]
    crossed = made_by("leave_one_out", ("consistency",), bases=bases)
    assert {arm.name: arm.against for arm in crossed.arms} == {
        "rate-0.1": "rate-0.1",
        "rate-0.1+no_consistency": "rate-0.1",
        "rate-0.2": "rate-0.2",
        "rate-0.2+no_consistency": "rate-0.2",
    }
    last = {"learner.learning_rate": 0.2, "consistency": False}
    assert crossed.config(crossed.arms[-1]) == presets.make_config(changes=last)


@pytest.mark.parametrize("spec", [VECTOR, BOARD])
def test_augmentation_is_left_out_where_nothing_is_augmented(spec):
    made = made_by("leave_one_out", spec=spec)
    assert "no_augmentation" not in table(made)
    assert made.left_out == (
        "augmentation: only images of 16 times learner.augment_shift or more are augmented",
    )


def test_augmentation_is_an_arm_where_images_are_augmented():
    made = made_by("leave_one_out", spec=SCREEN)
    assert table(made)["no_augmentation"] == {"learner.augment": False}
    assert made.left_out == ()


@pytest.mark.parametrize(
    ("changes", "idea", "why"),
    [
        ({"consistency": False}, "consistency", "it is off already"),
        ({"loss.consistency": 0.0}, "consistency", "loss.consistency is 0"),
        ({"targets.td_steps": 1}, "off_policy_correction", "this value target does not use"),
        (
            {"targets.value": "search"},
            "off_policy_correction",
            "this value target does not use",
        ),
        ({"targets.value": "search"}, "reanalysis", "targets.value=search needs fresh searches"),
        ({"replay.priority_exponent": 0.0}, "prioritisation", "priority_exponent is 0"),
        ({"reanalyse.mode": "none"}, "value_target", "targets.value=search needs fresh searches"),
        (
            {"reanalyse.mode": "batch", "reanalyse.ratio": 0.0},
            "reanalysis",
            "reanalyse.ratio is 0",
        ),
    ],
)
def test_what_changes_nothing_or_is_impossible_is_left_out_with_the_reason(changes, idea, why):
    left_out = [told for told in made_by("leave_one_out", changes=changes).left_out if idea in told]
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{idea}: ")
    assert why in left_out[0]


def test_an_arm_that_would_be_the_same_run_as_another_is_told_and_not_run():
    made = made_by("factorial", ("off_policy_correction", "value_target"))
    assert list(table(made)) == ["baseline", "no_off_policy_correction", "search_target"]
    told = "no_off_policy_correction+search_target: it is the same run as search_target"
    assert made.left_out == (told,)


def test_nothing_to_compare_is_refused():
    with pytest.raises(BadInput, match=r"nothing to compare in CartPole \(augmentation: only"):
        made_by("leave_one_out", ("augmentation",))


def test_with_the_published_search_the_other_one_is_gumbel_and_a_mixed_target_becomes_td():
    published = made_by("leave_one_out", preset="efficientzero")
    assert table(published)["gumbel_search"] == {"search.policy": "gumbel"}
    v2 = made_by("leave_one_out", preset="efficientzero_v2")
    assert table(v2)["td_target"] == {"targets.value": "td"}


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("design", ["leave_one_out", "add_one_in", "factorial"])
def test_every_arm_can_be_run_and_differs_from_every_other(design, preset):
    made = made_by(design, preset=preset, spec=SCREEN)
    configs = [made.config(arm) for arm in made.arms]
    assert len(set(configs)) == len(configs) > 1
    for chosen in configs:
        assert validate(from_dict(to_dict(chosen))) == chosen
