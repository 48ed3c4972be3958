"""The games being played: the environments, every action they were told, and the scores so far.

No library gives the state of its environments away, but games are deterministic: told the same
actions from the same seeds, they come back to where they were. So a run keeps the actions (one byte
each) and a checksum of everything that the environments returned.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ez_jax import watchdog
from ez_jax.envs import VectorEnv
from ez_jax.structs import TimeStep


def seed_of_games(seed: int, made_at: int) -> int:
    """The seed of the first game, of a run and of the agent steps when its games are made."""
    return int(np.random.SeedSequence([seed, made_at]).generate_state(1)[0] % 2**30)


class SavedGames(NamedTuple):
    """What brings the games back."""

    actions: np.ndarray  # u8 or larger [calls, N], all since the environments were made
    made_at: int  # agent steps when they were made: their seeds follow from it
    checksum: int  # of every time step that they returned
    unreported: int  # finished games that no line of metrics has told yet


class RepeatableGames:
    """N environments that can be brought back; `make_env(made_at)` builds them with their seeds."""

    def __init__(self, make_env: Callable[[int], VectorEnv]):
        """Build the environments of a new run."""
        self._make_env = make_env
        self._replace(0)

    def _replace(self, made_at: int) -> None:
        self.env, self._made_at = self._make_env(made_at), made_at
        self.spec, self.num_envs = self.env.spec, self.env.num_envs
        self._dtype = np.min_scalar_type(self.spec.num_actions - 1)
        self._actions = bytearray()  # a row per call
        self._checksum = 0
        self._score = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)
        self.finished: list[tuple[float, int]] = []  # score and agent steps, not reported yet

    def begin(self) -> TimeStep:
        """Start a new game everywhere."""
        return self._observe(self.env.reset())

    def send(self, action: np.ndarray) -> None:
        """Hand over actions i32[N]; the environments work on them meanwhile."""
        self._actions += np.asarray(action, self._dtype).tobytes()
        self.env.send(action)

    def recv(self) -> TimeStep:
        """Wait for what the actions led to, and keep the scores."""
        return self._observe(self.env.recv())

    def _observe(self, step: TimeStep) -> TimeStep:
        for part in (step.observation, step.score, step.discount, step.is_first, step.is_last):
            self._checksum = zlib.crc32(np.ascontiguousarray(part), self._checksum)
        self._score += step.score
        self._length += ~step.is_first
        for i in np.flatnonzero(step.game_over):
            self.finished.append((float(self._score[i]), int(self._length[i])))
            self._score[i], self._length[i] = 0.0, 0
        return step

    def take_finished(self) -> list[tuple[float, int]]:
        """Score and agent steps of the games that ended since this was last asked."""
        finished, self.finished = self.finished, []
        return finished

    def save(self) -> SavedGames:
        """What brings the games back to this point; not between `send` and `recv`."""
        actions = np.frombuffer(bytes(self._actions), self._dtype).reshape(-1, self.num_envs)
        return SavedGames(actions, self._made_at, self._checksum, len(self.finished))

    def bring_back(self, saved: SavedGames) -> TimeStep | None:
        """Play the saved actions again; the last time step, or None if other things happened.

        None means that the environments are not deterministic; they are of no use then, and
        `begin_anew` has to follow.
        """
        if saved.made_at != self._made_at:
            self.env.close()
            self._replace(saved.made_at)
        step = self.begin()
        for action in saved.actions.astype(np.int32):
            self.send(action)
            step = self.recv()
            watchdog.beat()
        if self._checksum != saved.checksum:
            return None
        self.finished = self.finished[len(self.finished) - saved.unreported :]
        return step

    def begin_anew(self, agent_steps: int) -> TimeStep:
        """New games with seeds of their own, at this point of the run."""
        self.env.close()
        self._replace(agent_steps)
        return self.begin()

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
