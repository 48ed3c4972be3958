"""Every switch of the algorithm, and exactly what changes when it alone is flipped.

A switch that changes nothing is dead; one that changes too much leaks. The names of what changes
are those of `sample_update.py`. `python -m ez_jax.doctor` and the tests check every row.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ez_jax.agent.search.search import SEARCHES
from ez_jax.agent.targets.targets import VALUE_TARGETS
from ez_jax.config import override
from ez_jax.diagnosis.sample_update import BASE, UPDATES, sample_update

ROUNDING = 1e-6  # of the largest entry: two programs may round differently


@dataclasses.dataclass(frozen=True)
class Switch:
    """One row of the table: a key, its other value, and what changes."""

    key: str
    off: Any
    changes: tuple[str, ...]  # observables, or groups of them: "loss" is all of "loss/..."
    given: tuple[tuple[str, Any], ...] = ()  # settings under which it is flipped

    def __str__(self) -> str:
        """As written on the command line: `consistency=false`."""
        return f"{self.key}={str(self.off).lower() if isinstance(self.off, bool) else self.off}"


def _switch(key: str, off: Any, *changes: str, given: Mapping[str, Any] | None = None) -> Switch:
    return Switch(key, off, changes, tuple((given or {}).items()))


MIXED = {"targets.mixed_updates": 0, "targets.mixed_newest": 20}  # both values are in the batch
_BACKWARD = ("loss/total", "loss/gradient")
SWITCHES = (
    _switch(
        *("precision", "bfloat16", "search/action", "search/policy", "search/value", "search/gain"),
        *("targets/policy", "targets/value", "loss"),
    ),
    _switch(
        "value_prefix",
        False,
        *("search", "targets/policy", "targets/value_prefix", "loss/value_prefix", *_BACKWARD),
    ),
    _switch("consistency", False, "loss/consistency", *_BACKWARD),
    _switch("off_policy_correction", False, "targets/value"),
    _switch("reanalyse.ratio", 0.0, "targets/policy"),
    _switch("reanalyse.mode", "none", "targets/policy"),
    _switch("reanalyse.mode", "buffer", "targets/policy"),
    _switch("reanalyse.max_age", 0, "targets/policy", given={"reanalyse.mode": "buffer"}),
    _switch("prioritised", False, "draw/index", "draw/weight"),
    _switch("replay.importance_exponent", 0.0, "draw/weight"),
    _switch("replay.min_weight", 0.9, "draw/weight"),
    _switch("learner.augment", False, "loss"),
    _switch("learner.optimizer", "adam", "update/params"),
    _switch("learner.target_period", UPDATES, "update/target"),
    *(
        _switch("targets.value", name, "targets/value", given=MIXED)
        for name in VALUE_TARGETS
        if name != BASE.targets.value
    ),
    *(
        _switch(key, 1_000, "targets/value", given={**MIXED, "targets.value": "mixed"})
        for key in MIXED
    ),
    _switch("targets.max_td_steps", 1, "targets/value"),
    *(
        _switch("search.policy", name, "search", "targets/policy")
        for name in SEARCHES
        if name != BASE.search.policy
    ),
    _switch("search.dirichlet_fraction", 0.0, "search", "targets/policy"),
    _switch(
        *("search.gumbel_scale", 0.0, "search", "targets/policy"),
        given={"search.policy": "gumbel"},
    ),
    _switch(
        *("search.minmax", "official", "search/action", "search/policy", "search/value"),
        "search/gain",
        "targets/policy",
        given={"search.policy": "puct_ez"},
    ),
    _switch("targets.block_length", 4, "targets/value", "targets/mask", "targets/policy_mask"),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """A switch before and after: arrays by observable."""

    switch: Switch
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]

    @property
    def expected(self) -> frozenset[str]:
        """Observables named in the table; unknown names are kept."""
        names = self.before.keys() | self.after.keys()
        members = {
            wanted: {name for name in names if name == wanted or name.startswith(f"{wanted}/")}
            for wanted in self.switch.changes
        }
        return frozenset().union(*(found or {wanted} for wanted, found in members.items()))

    @property
    def changed(self) -> frozenset[str]:
        """Observables that differ by more than rounding, or exist only once."""
        names = self.before.keys() | self.after.keys()
        return frozenset(name for name in names if self._differs(name))

    @property
    def dead(self) -> frozenset[str]:
        """Observables that should have changed but did not."""
        return self.expected - self.changed

    @property
    def leaks(self) -> frozenset[str]:
        """Observables that changed but should not have."""
        return self.changed - self.expected

    def _differs(self, name: str) -> bool:
        before, after = self.before.get(name), self.after.get(name)
        if before is None or after is None or before.shape != after.shape:
            return True
        largest = np.max(np.abs(before), initial=0.0)
        # Not >, so that NaN differs from everything.
        return not np.all(np.abs(after - before) <= ROUNDING * largest)


def flip(switch: Switch) -> Result:
    """Flip one switch and leave everything else as it is."""
    given = override(BASE, dict(switch.given))
    flipped = override(given, {switch.key: switch.off})
    return Result(switch, sample_update(given), sample_update(flipped))


def claim(switch: Switch) -> str:
    """What changes, in words."""
    given = " ".join(f"{key}={value}" for key, value in switch.given)
    return in_groups(switch.changes) + (f"; with {given}" if given else "")


def in_groups(observables: Iterable[str]) -> str:
    """Observables by group: `search, targets: policy value`."""
    groups: dict[str, list[str]] = {}
    for name in observables:
        group, _, member = name.partition("/")
        groups.setdefault(group, []).append(member)
    shown = [f"{group}: {' '.join(members)}".rstrip(": ") for group, members in groups.items()]
    return ", ".join(shown) or "nothing"
