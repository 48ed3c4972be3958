"""Designs of a study: from a configuration and ideas to arms. Pure functions, no files.

An arm is a configuration that differs from the first one as its name says. `presets.IDEAS` defines
how an idea is switched off. An arm that would be the same run as another is left out, and why.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ez_jax.agent.augment import MIN_SIZE_PER_SHIFT, can_be_shifted
from ez_jax.config import BadInput, Config, flatten, from_dict, override, presets, to_dict, validate
from ez_jax.structs import EnvSpec

BASELINE, BARE = "baseline", "bare"
Off = tuple[str, ...]  # ideas that are off


@dataclass(frozen=True)
class Arm:
    """One of the configurations that are compared."""

    name: str  # also of its folder
    settings: Mapping[str, Any]  # its differences from the base, by dotted key
    against: str  # the arm to compare with


@dataclass(frozen=True)
class Comparison:
    """All arms of one game."""

    base: Config
    arms: tuple[Arm, ...]
    left_out: tuple[str, ...]  # a sentence each

    def config(self, arm: Arm) -> Config:
        """The whole configuration of an arm."""
        return override(self.base, arm.settings)


class LeftOut(BadInput):
    """The reason why a switch or an arm has no effect in this game."""


@dataclass(frozen=True)
class _Dead:
    """A setting that has no effect with certain others."""

    key: str
    same: Any  # the value to which it is then equivalent
    holds: Callable[[Config, EnvSpec], bool]
    why: str


def _not_shifted(config: Config, spec: EnvSpec) -> bool:
    return not can_be_shifted(spec.observation_shape, config.learner.augment_shift)


_DEAD = (
    _Dead(
        *("learner.augment", False, _not_shifted),
        f"only images of {MIN_SIZE_PER_SHIFT} times learner.augment_shift or more are augmented",
    ),
    _Dead(
        "off_policy_correction",
        False,
        lambda config, _: config.targets.value == "search" or config.targets.td_steps == 1,
        "it shortens td_steps, which this value target does not use",
    ),
    _Dead(
        "prioritised",
        False,
        lambda config, _: config.replay.priority_exponent == 0,
        "replay.priority_exponent is 0",
    ),
    _Dead(
        "consistency",
        False,
        lambda config, _: config.loss.consistency == 0,
        "loss.consistency is 0",
    ),
    _Dead(
        "reanalyse.mode",
        "none",
        lambda config, _: config.reanalyse.mode == "batch" and config.reanalyse.ratio == 0,
        "reanalyse.ratio is 0",
    ),
)


def leave_one_out(ideas: Off) -> dict[Off, str]:
    """Everything on, then each idea off alone."""
    return {(): BASELINE} | {(idea,): "" for idea in ideas}


def add_one_in(ideas: Off) -> dict[Off, str]:
    """Everything off, then each idea on alone, then everything on."""
    alone = {tuple(i for i in ideas if i != idea): f"only_{idea}" for idea in ideas}
    return {ideas: BARE} | alone | {(): BASELINE}


def factorial(ideas: Off) -> dict[Off, str]:
    """Every set of ideas off, small sets first."""
    sizes = range(1, len(ideas) + 1)
    sets = itertools.chain.from_iterable(itertools.combinations(ideas, size) for size in sizes)
    return {(): BASELINE} | dict.fromkeys(sets, "")


LEAVE_ONE_OUT, ADD_ONE_IN, SWEEP = "leave_one_out", "add_one_in", "sweep"
# The ideas off in each arm, and its name (empty: by the ablations). The first arm is the baseline.
DESIGNS: dict[str, Callable[[Off], dict[Off, str]]] = {
    LEAVE_ONE_OUT: leave_one_out,
    ADD_ONE_IN: add_one_in,
    "factorial": factorial,
    SWEEP: lambda _: {(): BASELINE},
}


def compare(
    design: str, ideas: Sequence[str], bases: Mapping[str, Config], spec: EnvSpec
) -> Comparison:
    """The arms of one game, by a design.

    Args:
      design: a name of DESIGNS.
      ideas: names of presets.IDEAS, in their order there.
      bases: the configurations of a sweep by name; without a sweep one, whose name is empty.
      spec: of the game.

    Raises:
      BadInput: nothing is left to compare.
    """
    base = next(iter(bases.values()))
    arms: list[Arm] = []
    left_out: dict[str, None] = {}  # each sentence once
    taken: dict[Config, str] = {}
    twins: list[str] = []
    against = ""
    for sweep, start in bases.items():
        chosen = _chosen(design, ideas, start, spec, left_out)
        against = against if design == SWEEP else ""
        for name, config in _possible(design, chosen, start, left_out):
            arm = _arm_name(sweep, name)
            same = taken.setdefault(_effective(config, spec), arm)
            against = against or same
            if same == arm:
                arms.append(Arm(arm, _difference(base, config), against))
            else:
                twins.append(f"{arm}: it is the same run as {same}")
    if twins:  # show the first sentence only
        more = f" (and {len(twins) - 1} more arms like it)" if len(twins) > 1 else ""
        left_out[twins[0] + more] = None
    if len(arms) < 2:
        reasons = "; ".join(left_out)
        raise BadInput(
            f"there is nothing to compare in {base.game} ({reasons}): choose other switches= or "
            "another game"
        )
    return Comparison(base, tuple(arms), tuple(left_out))


def _arm_name(sweep: str, name: str) -> str:
    if not sweep:
        return name
    return sweep if name == BASELINE else f"{sweep}+{name}"


def _chosen(
    design: str, ideas: Sequence[str], start: Config, spec: EnvSpec, left_out: dict[str, None]
) -> Off:
    """The ideas that can be switched off, together with all others if the design does so."""
    chosen: list[str] = []
    for idea in ideas:
        try:
            _, off = _switch_off(start, idea)
            if spec.is_continuous and "search.policy" in _difference(start, off):
                raise LeftOut("continuous actions can only be searched by gumbel")
            if _effective(off, spec) == _effective(start, spec):
                keys = _difference(start, off)
                whys = (dead.why for dead in _DEAD if dead.key in keys and dead.holds(start, spec))
                raise LeftOut(next(whys))
            if design == ADD_ONE_IN:
                _off_together(start, (*chosen, idea))
            chosen.append(idea)
        except LeftOut as reason:
            left_out[f"{idea}: {reason}"] = None
    return tuple(chosen)


def _possible(
    design: str, ideas: Off, start: Config, left_out: dict[str, None]
) -> Iterator[tuple[str, Config]]:
    """Name and configuration of every possible arm."""
    impossible: dict[str, list[Off]] = {}
    for off, name in DESIGNS[design](ideas).items():
        try:
            ablations, config = _off_together(start, off)
        except LeftOut as reason:
            impossible.setdefault(str(reason), []).append(off)
            continue
        yield name or "+".join(ablations), config
    for why, sets in impossible.items():
        more = f" (and {len(sets) - 1} sets more)" if len(sets) > 1 else ""
        left_out[f"{' and '.join(sets[0])} off together{more}: {why}"] = None


def _off_together(start: Config, off: Off) -> tuple[list[str], Config]:
    """Switch off ideas one after another; returns the ablations and the configuration."""
    ablations, config = [], start
    for idea in off:
        ablation, config = _switch_off(config, idea)
        ablations.append(ablation)
    return ablations, config


def _switch_off(config: Config, idea: str) -> tuple[str, Config]:
    """The ablation that switches an idea off, and the configuration without the idea."""
    for ablation in presets.IDEAS[idea]:
        off = from_dict(presets.merge(to_dict(config), presets.ABLATIONS[ablation]))
        if off != config:
            try:
                return ablation, validate(off)
            except BadInput as problem:
                raise LeftOut(problem) from problem
    raise LeftOut("it is off already")


def _effective(config: Config, spec: EnvSpec) -> Config:
    """The configuration with settings without effect at their equivalent values."""
    dead = {dead.key: dead.same for dead in _DEAD if dead.holds(config, spec)}
    return dataclasses.replace(override(config, dead), preset="", name="", run_dir="")


def _difference(base: Config, config: Config) -> dict[str, Any]:
    """The differences by dotted key."""
    before = flatten(base)
    return {key: value for key, value in flatten(config).items() if value != before[key]}
