"""Drawing ahead: samples of a group of updates are drawn before the previous group is learned.

So the host has the time of a whole group to gather the frames and copy them to the device; the
learner waits only if that takes longer. The cost: priorities and the newest rows are those of one
group earlier. `replay.memory=host` and `auto` draw ahead wherever the frames are, so that the
result does not depend on it; `device`, the default, draws when it learns.

The drawn samples are part of the state and are saved: a resumed run learns from the same ones.
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

# (replay, key, updates) -> samples of the group that starts with that update, without frames.
Draw = Callable[[Replay, Array, Any], Batch]


class DrawnAtOnce:
    """Does not draw ahead: batches are drawn when they are learned from."""

    frames = None

    def go_on(self, drawn: Batch | None, updates: int) -> None:
        """Nothing to restore."""

    def record(self, frames: np.ndarray) -> None:
        """Nothing to do: the replay keeps the frames."""

    def next(self, *_: Any) -> tuple[None, None]:
        """As `DrawnAhead.next`."""
        return None, None

    def close(self) -> None:
        """Nothing to close."""


class DrawnAhead:
    """Provides batches that were drawn one group ahead."""

    def __init__(self, config: Config, draw: Draw, frames: HostFrames | None):
        """`frames` is None if the replay has them."""
        self._draw, self.frames = draw, frames
        self._group, self._spare = config.reanalyse.updates_per_search, schedules.rows_ahead(config)
        self._coming: Future[jax.Array] | None = None
        self._drawn_at = 0  # number of rows written at that time

    def go_on(self, drawn: Batch | None, updates: int) -> None:
        """Fetch the samples that were drawn when a run was saved after this many updates."""
        if updates and drawn is not None:
            self._fetch(drawn)

    def record(self, frames: np.ndarray) -> None:
        """Store the frames [N, *obs] of a row if the replay does not."""
        if self.frames is not None:
            self.frames.add(frames)

    # Deviates (drawing ahead): by exactly one group, so that nothing depends on the host's speed.
    def next(
        self, replay: Replay, key: Array, drawn: Batch | None, updates: int, left: int
    ) -> tuple[Batch, Batch]:
        """The batch for the group that starts now, and the samples drawn now for the next one.

        Args:
          replay: in its current state; must not be donated before this returns.
          key: for all draws.
          drawn: the second result of the last call; anything before the first update.
          updates: so far, including those that were only dispatched.
          left: updates until something else may happen; a group can end early.
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
        """Wait for the copy in progress."""
        if self.frames is not None:
            self.frames.close()

    def _draw_for(self, replay: Replay, key: Array, updates: int) -> Batch:
        return self._draw(replay, key, processes.same(np.int32(updates)))

    def _fetch(self, drawn: Batch) -> None:
        if self.frames is not None:
            self._coming, self._drawn_at = self.frames.fetch(drawn), self.frames.count

    def _check_that_rows_last(self) -> None:
        """Fail if more rows were written since the last draw than `schedules.rows_ahead` allows."""
        if self.frames is not None and self.frames.count - self._drawn_at > self._spare:
            raise RuntimeError(
                f"{self.frames.count - self._drawn_at} rows of replay were written between the "
                f"draw of a batch and its update, more than {self._spare}"
            )


def make_source(
    config: Config, model: Model, on_host: bool, compiling: Compiling
) -> DrawnAtOnce | DrawnAhead:
    """The configured source of the learner's batches.

    Raises:
      BadInput: frames in host memory with several processes.
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
