"""The weights of a trained agent: from a run's checkpoint, or saved alone in half precision."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ez_jax.agent.learner import init_train_state
from ez_jax.agent.model import Model
from ez_jax.config import BadInput, Config
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.checkpoint_files import BEST, WEIGHTS
from ez_jax.structs import Clocks, Variables


def restore(run: Path, config: Config, model: Model, *, best: bool) -> tuple[Variables, Clocks]:
    """The newest or best weights of a run, and when they were saved.

    Raises:
      BadInput: there are none, or they are of another configuration.
    """

    def wanted(meta: Mapping[str, Any]) -> dict[str, Any]:
        init = functools.partial(init_train_state, config, model, jax.random.key(0))
        train = jax.eval_shape(init)
        if WEIGHTS in meta:
            return {WEIGHTS: jax.eval_shape(halved, train.variables)}
        return {"train": train}

    with Checkpointer(run) as checkpointer:
        if best and checkpointer.best() is None:
            raise BadInput(f"{run} has no best weights yet; they are saved after an evaluation")
        restored = (
            checkpointer.restore(BEST, wanted) if best else checkpointer.restore_newest(wanted)
        )
    if restored is None:
        raise BadInput(f"{run} has no checkpoint yet; train it first")
    state = restored.state
    if WEIGHTS in state:
        return _whole(model, state[WEIGHTS]), restored.clocks
    return state["train"].variables, restored.clocks


def save_alone(run: str | Path, variables: Variables, clocks: Clocks) -> None:
    """Save weights as the only checkpoint of a new run folder: a tenth of a run's own."""
    meta = {"clocks": dataclasses.asdict(clocks), WEIGHTS: "parameters in half precision"}
    with Checkpointer(run) as checkpointer:
        checkpointer.save(clocks.agent_steps, {WEIGHTS: halved(variables)}, meta)


def halved(variables: Variables) -> Variables:
    """The same with parameters in half precision; statistics stay as they are."""
    params = jax.tree.map(lambda x: x.astype(jnp.float16), variables["params"])
    return {**variables, "params": params}


def _whole(model: Model, variables: Variables) -> Variables:
    """The inverse of `halved`, but for the digits that were lost."""
    template = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda like, x: x.astype(like.dtype), template, variables)
