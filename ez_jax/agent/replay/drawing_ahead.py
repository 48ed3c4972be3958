"""Drawing ahead: the samples of each group of updates, before the updates of the group before it.

So the host has the time of a whole group to gather their frames and bring them to the device; the
learner waits only if that takes longer. The price: priorities, and the newest rows there are, are
those of one group earlier. `replay.memory=host` and `auto` draw ahead wherever the frames lie, so
that a run does not depend on it; `device`, the default, draws when it learns.

What was drawn is part of the run's state, and saved: a run that goes on learns from the same.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ez_jax.agent import schedules
from ez_jax.agent.model import Model
from ez_jax.agent.replay.draw import make_draw_group
from ez_jax.agent.replay.host_frames import HostFrames
from ez_jax.agent.replay.ring import ring_rows
from ez_jax.config import BadInput, Config
from ez_jax.structs import Batch, Replay
from ez_jax.system import processes, watchdog
from ez_jax.system.compilation import Compiling, announced

# (replay, key, updates) -> what the group that begins with that update learns from, without frames.
Draw = Callable[[Replay, Array, Any], Batch]


class DrawnAtOnce:
    """Leaves drawing to the moment of learning: no batch is handed out."""

    frames = None

    def go_on(self, drawn: Batch | None, updates: int) -> None:
        """Nothing has been drawn."""

    def record(self, frames: np.ndarray) -> None:
        """The replay keeps them."""

    def next(self, *_: Any) -> tuple[None, None]:
        """As `DrawnAhead.next`."""
        return None, None

    def close(self) -> None:
        """Nothing is open."""


class DrawnAhead:
    """Hands out batches that were drawn a group ahead."""

    def __init__(self, config: Config, draw: Draw, frames: HostFrames | None):
        """`frames` are None where the replay has them."""
        self._draw, self.frames = draw, frames
        self._group, self._spare = config.reanalyse.updates_per_search, schedules.rows_ahead(config)
        self._coming: Future[jax.Array] | None = None
        self._drawn_at = 0  # rows that had been written then

    def go_on(self, drawn: Batch | None, updates: int) -> None:
        """Fetch again what had been drawn when a run was saved after so many updates."""
        if updates and drawn is not None:
            self._fetch(drawn)

    def record(self, frames: np.ndarray) -> None:
        """Keep the frames [N, *obs] of a row where the replay does not."""
        if self.frames is not None:
            self.frames.add(frames)

    # Deviates (drawing ahead): by exactly one group, so that nothing depends on the host's speed.
    def next(
        self, replay: Replay, key: Array, drawn: Batch | None, updates: int, left: int
    ) -> tuple[Batch, Batch]:
        """The batch for the group that begins now, and what is drawn now for the one after.

        Args:
          replay: as it is now; must not be donated before this returns.
          key: of all draws.
          drawn: the second of the last call's results; anything before the first update.
          updates: made so far, those that were only dispatched included.
          left: updates until something else may happen; a group can end sooner than it is long.
        """
        if not updates or drawn is None:
            drawn = self._draw_for(replay, key, updates)
            self._fetch(drawn)
        self._check_that_rows_last()
        coming = self._coming
        following = self._draw_for(replay, key, updates + min(self._group, left))
        self._fetch(following)
        if coming is None:
            return drawn, following
        with watchdog.at("waiting for frames from host memory"):
            return drawn.replace(observation=coming.result()), following

    def close(self) -> None:
        """Finish what was begun."""
        if self.frames is not None:
            self.frames.close()

    def _draw_for(self, replay: Replay, key: Array, updates: int) -> Batch:
        return self._draw(replay, key, processes.same(np.int32(updates)))

    def _fetch(self, drawn: Batch) -> None:
        if self.frames is not None:
            self._coming, self._drawn_at = self.frames.fetch(drawn), self.frames.count

    def _check_that_rows_last(self) -> None:
        """Fail if more was written since the last draw than `schedules.rows_ahead` allows for."""
        if self.frames is not None and self.frames.count - self._drawn_at > self._spare:
            raise RuntimeError(
                f"{self.frames.count - self._drawn_at} rows of replay were written between the "
                f"draw of a batch and its update, more than {self._spare}"
            )


def make_source(
    config: Config, model: Model, on_host: bool, compiling: Compiling
) -> DrawnAtOnce | DrawnAhead:
    """Where the learner gets its batches from, as configured.

    Raises:
      BadInput: frames in the memory of several hosts.
    """
    if not schedules.draws_ahead(config):
        return DrawnAtOnce()
    draw = announced(compiling, "drawing", jax.jit(make_draw_group(config, model)))
    if not on_host:
        return DrawnAhead(config, draw, None)
    if jax.process_count() > 1:
        raise BadInput(
            "replay.memory=host is for one process, and this run has "
            f"{jax.process_count()}: set replay.memory=device, or start one process"
        )
    rows, num_envs = ring_rows(config, model.spec), config.actor.num_envs
    return DrawnAhead(config, draw, HostFrames(model.spec, rows=rows, num_envs=num_envs))
