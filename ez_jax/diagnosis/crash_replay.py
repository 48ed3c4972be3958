"""Repeats the last update of a failed run from its crash bundle."""

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ez_jax.agent.learner import init_train_state, make_propose
from ez_jax.agent.model import make_model
from ez_jax.agent.replay.draw import keys_of
from ez_jax.config import BadInput
from ez_jax.storage.checkpoint_items import describe
from ez_jax.storage.crash_bundle import Bundle
from ez_jax.structs import Batch, Targets

INPUTS = ("batch", "targets", "train/variables", "train/opt_state", "train/target")
NEEDED = (*INPUTS[:4], "train/updates", "learn_key")  # the inputs that an update needs
HERE = Path(__file__)
PACKAGE = HERE.parent.parent  # every file below is ours


def first_bad(arrays: Mapping[str, Any]) -> str | None:
    """The first array, by path, that is not finite: how many values, and the first of them."""
    for name, leaf in arrays.items():
        array = np.asarray(leaf)
        if not jnp.issubdtype(array.dtype, np.inexact):
            continue
        bad = ~np.isfinite(array.astype(np.float32))
        if not bad.any():
            continue
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        if not array.shape:
            return f"{name} is {array}"
        return (
            f"{name}: {bad.sum()} of {array.size} values are not finite, "
            f"the first at {list(first)} is {array[first]}"
        )
    return None


def under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays at or below a path."""
    return {k: v for k, v in arrays.items() if k == prefix or k.startswith(f"{prefix}/")}


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path."""
    return dict(zip(describe(tree), jax.tree.leaves(tree), strict=True))


def plain(text: str) -> str:
    """Text from an untrusted file, without terminal control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


@dataclasses.dataclass(frozen=True)
class Update:
    """The function from `learner.make_propose`, and its arguments."""

    propose: Callable[..., Any]
    arguments: tuple[Any, ...]

    def stages(self) -> dict[str, dict[str, Any]]:
        """Make the update, compiled as in a run; returns the results by stage and path."""
        made = jax.jit(self.propose)(*self.arguments)
        output = made.output
        losses = {f"terms/{name}": term for name, term in output.terms.items()}
        return {
            "losses": {**losses, "total": output.loss, "priority": output.priority},
            "gradients": by_path(made.grads),
            "after it": by_path({"variables": made.variables, "opt_state": made.opt_state}),
        }

    def first_operation(self) -> str | None:
        """Make the update one operation at a time: the first that gives NaN, and its line."""
        # Not debug_infs: the maximum in a softmax rightly starts from -inf.
        try:
            with jax.disable_jit(), jax.debug_nans(True):
                self.propose(*self.arguments)
        except FloatingPointError as error:
            return f"{str(error).splitlines()[0]}, {_place(error)}"
        return None


def _place(error: BaseException | None) -> str:
    """Our innermost line; for a backward pass, that of its forward operation."""
    ours = None
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [f for f in frames if Path(f.filename).is_relative_to(PACKAGE)]
        mine = [f for f in mine if Path(f.filename) != HERE]
        ours = mine[-1] if mine else ours
        error = error.__cause__  # here JAX stores where an operation was written
    if ours is None:
        return "in a line that is not ours"
    return f"in {Path(ours.filename).name}:{ours.lineno}, {ours.name}: {ours.line}"


def make_update(bundle: Bundle) -> Update:
    """The last update of a bundle that has all of it.

    Raises:
      BadInput: its arrays do not fit its settings.
    """
    config, arrays, number = bundle.config, bundle.arrays, bundle.facts["update"]
    if bundle.spec is None or number is None:
        raise BadInput(f"{bundle.folder} is damaged: its arrays are not those of an update")
    model = make_model(config, bundle.spec)
    key = jax.random.key(0)
    template = jax.eval_shape(lambda: init_train_state(config, model, key))
    parts = {"variables": template.variables, "opt_state": template.opt_state}
    wanted = {f"train/{name}": kind for name, kind in describe(parts).items()}
    there = describe({k: v for k, v in arrays.items() if k in wanted})
    if there != wanted:
        name = next(k for k in wanted if there.get(k) != wanted[k])
        raise BadInput(
            f"{bundle.folder} is damaged: {name} is {there.get(name, 'absent')} there, "
            f"but its settings give {wanted[name]}"
        )
    leaves = [arrays[name] for name in wanted]
    parts = jax.tree.unflatten(jax.tree.structure(parts), leaves)
    rest = dict.fromkeys(("target", "next_target", "updates", "skipped", "skipped_in_a_row"))
    keys = keys_of(jax.random.wrap_key_data(jnp.asarray(arrays["learn_key"])), number)
    batch, targets = (
        kind(
            **{
                field: jnp.asarray(arrays[f"{name}/{field}"])
                for field in _there(kind, name, arrays)
            }
        )
        for name, kind in (("batch", Batch), ("targets", Targets))
    )
    given = template.replace(**parts, **rest), keys[2], batch, targets
    return Update(make_propose(config, model), jax.device_put(given))


def _there(kind: type, name: str, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Fields of a batch or of targets, without action masks if the game has none."""
    fields = dataclasses.fields(kind)
    return [f.name for f in fields if f.default is not None or f"{name}/{f.name}" in arrays]


def explain(bundle: Bundle) -> Iterator[str]:
    """Repeat the update, and report the findings line by line."""
    facts, arrays = bundle.facts, bundle.arrays
    missing = [name for name in NEEDED if not under(arrays, name)]
    missing += [name for name in facts["left_out"] if name.startswith(NEEDED)]
    found = None
    for name in INPUTS:
        verdict = first_bad(under(arrays, name))
        found = found or verdict
        if under(arrays, name):
            yield f"given      {verdict or name + ': finite'}"
    if not missing:
        update = make_update(bundle)
        came_with = found
        for name, stage in update.stages().items():
            verdict = first_bad(stage)
            yield f"{name:9}  {verdict or 'finite'}"
            found = found or (verdict and f"{name}: {verdict}")
        if found and not came_with:
            operation = update.first_operation()
            yield f"operation  {operation or 'none gives nan when made one at a time'}"
    if found:
        yield f"the first that is not finite: {found}"
    elif facts["update"] is None:
        yield "no update was made yet: the cause is elsewhere"
    elif missing:
        reason = next(iter(facts["left_out"].values()), "it did not exist")
        yield f"the update cannot be repeated: {missing[0]} was not saved ({reason})"
    else:
        yield "the update is finite: the cause is elsewhere"
        if int(arrays["train/updates"]) != facts["update"]:
            yield "(it was repeated from the state after it, because the one before is gone)"
