"""An evaluation in which each process of a run plays a block of the episodes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from ez_jax.agent.model import Model
from ez_jax.config import Config
from ez_jax.evaluation.play import EvaluateFn, make_evaluate
from ez_jax.evaluation.scores import Games
from ez_jax.structs import Variables
from ez_jax.system import devices, processes


def make_shared_evaluate(config: Config, model: Model) -> EvaluateFn:
    """As `make_evaluate`, with the same episodes, to be called by all processes together.

    Each plays on its own devices, so that they only wait for each other at the end.
    """
    number = jax.process_count()
    if number == 1:
        return make_evaluate(config, model)
    share = -(-config.eval.episodes // number)
    first = jax.process_index() * share
    count = min(share, config.eval.episodes - first)  # 0 or less if there are more processes
    own = dataclasses.replace(config.eval, seed=config.eval.seed + first, episodes=max(1, count))
    play = make_evaluate(dataclasses.replace(config, eval=own), model)

    def evaluate(
        variables: Variables, stop: Callable[[], bool] = lambda: False, **given: Any
    ) -> Games | None:
        mesh = devices.make_mesh(jax.local_devices())
        with jax.set_mesh(mesh):
            here = NamedSharding(mesh, devices.WHOLE)
            parts_here = jax.tree.map(lambda x: x.addressable_data(0), variables)  # all are copies
            variables = jax.device_put(parts_here, here)
            games = play(variables, stop=stop, **given) if count > 0 else _no_games()
        if any(processes.agreed(games is None)) or games is None:
            return None
        return _of_all(games, share, config.eval.episodes)

    return evaluate


def _of_all(games: Games, share: int, episodes: int) -> Games:
    """The episodes of all processes in the order of their seeds; videos are not exchanged."""

    def joined(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, (0, share - len(values)))
        return np.concatenate(processes.exchange(padded))[:episodes]

    assert games.digests is not None
    return Games(
        returns=joined(games.returns),
        lengths=joined(games.lengths.astype(np.int64)),
        pictures=games.pictures,
        digests=joined(games.digests.view(np.int64)),
        limit=int(max(one.max() for one in processes.exchange(np.array([games.limit])))),
    )


def _no_games() -> Games:
    return Games(returns=np.zeros(0), lengths=np.zeros(0), digests=np.zeros(0, np.uint64))
