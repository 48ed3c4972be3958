"""Results of different protocols are not mixed: they are refused, or labelled by what differs.

The search of an evaluation is that of training by default. If it differs only because the runs were
trained with different searches, it is part of the comparison, not of the protocol.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ez_jax.config import BadInput, errors
from ez_jax.evaluation.scores import human_normalised
from ez_jax.reports.collect import RunRecord

HUMAN = "human-normalised games"  # their scores are averaged over games


def labels(runs: Sequence[RunRecord], *, mix: bool) -> list[str]:
    """A label per run that distinguishes its protocol, such as `sticky_actions=0.25`, or "".

    Raises:
        BadInput: scores of different protocols would be compared, and `mix` is false.
    """
    classes: dict[str, list[RunRecord]] = {}
    for run in runs:
        classes.setdefault(_class_of(run), []).append(run)
    differing = {name: _differing(members) for name, members in classes.items()}
    for name, keys in differing.items():
        if keys and not mix:
            raise BadInput(_refusal(name, keys, classes[name]))
    return [describe(run.protocol, differing[_class_of(run)]) for run in runs]


def describe(protocol: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Some entries of a protocol as text."""
    return ", ".join(f"{key}={errors.shown(protocol.get(key))}" for key in keys)


def _class_of(run: RunRecord) -> str:
    is_known = human_normalised(run.config.game, 0.0) is not None
    return HUMAN if is_known else run.config.game


def _differing(runs: Sequence[RunRecord]) -> list[str]:
    keys = sorted({key for run in runs for key in run.protocol} - {"game"})
    return [key for key in keys if _differs(key, runs)]


def _differs(key: str, runs: Sequence[RunRecord]) -> bool:
    values = {repr(run.protocol.get(key)) for run in runs}
    return len(values) > 1 and not all(_as_trained(key, run) for run in runs)


def _as_trained(key: str, run: RunRecord) -> bool:
    """Whether an entry of the protocol follows from the search of training."""
    search = run.config.search
    if key == "search":
        return run.protocol.get(key) == search.policy
    # 0 is replaced by a number that depends on the number of actions.
    return key == "num_simulations" and search.num_simulations in (0, run.protocol.get(key))


def _refusal(name: str, keys: Sequence[str], runs: Sequence[RunRecord]) -> str:
    shown = []
    for key in keys:
        folders: dict[str, str] = {}
        for run in runs:
            folders.setdefault(errors.shown(run.protocol.get(key)), str(run.folder))
        values = " and ".join(f"{value} in {folder}" for value, folder in list(folders.items())[:2])
        shown.append(f"{key} is {values}")
    return (
        f"scores of {name} were measured under different protocols: {'; '.join(shown)}; "
        "report them separately, or show them side by side with mix=true"
    )
