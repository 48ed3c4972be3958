"""The environments of a run, all actions since they were made, and the scores.

No library exposes the state of its environments, but games are deterministic: the same actions from
the same seeds lead to the same state. So a run keeps the actions (one byte each; four for every
number of a continuous one) and a checksum of everything that the environments returned.

With several processes each has a part of the environments; when saved, the parts are joined.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ez_jax.config import Config
from ez_jax.envs import VectorEnv, make_env
from ez_jax.structs import EnvSpec, TimeStep
from ez_jax.system import processes, watchdog


def seed_of_games(seed: int, made_at: int) -> int:
    """The seed of the first environment, from the run's seed and the agent steps at that time."""
    return int(np.random.SeedSequence([seed, made_at]).generate_state(1)[0] % 2**30)


def training_games(config: Config) -> "RepeatableGames":
    """This process's part of the environments that a run learns from."""
    own = processes.mine(config.actor.num_envs)

    @watchdog.at("making the environments")
    def make(made_at: int) -> VectorEnv:
        return make_env(
            config.game,
            config.env,
            num_envs=own.stop - own.start,
            seed=seed_of_games(config.seed, made_at) + own.start,
            training=True,
        )

    return RepeatableGames(make)


class SavedGames(NamedTuple):
    """Everything to restore the environments of all processes."""

    # u8 or larger [calls, N], or f32[calls, N, D], all since the environments were made
    actions: np.ndarray
    made_at: int  # agent steps when they were made, which give their seeds
    checksum: int  # of every time step that they returned
    unreported: int  # finished episodes that are in no line of metrics yet
    reported_at: int  # calls after which the last such line was written


class RepeatableGames:
    """N environments that can be restored; `make_env(made_at)` creates them with their seeds."""

    def __init__(self, make_env: Callable[[int], VectorEnv]):
        """Create the environments of a new run."""
        self._make_env = make_env
        self._replace(0)

    def _replace(self, made_at: int) -> None:
        self.env, self._made_at = self._make_env(made_at), made_at
        self.spec, self.num_envs = self.env.spec, self.env.num_envs
        self._dtype = _smallest_type(self.spec)
        self._actions = bytearray()  # a row per call
        self._calls, self._reported_at = 0, 0
        own = processes.mine(processes.total(self.num_envs))
        self._first = own.start  # number of the first environment of this process
        self._digest = np.arange(self.num_envs, dtype=np.uint64) + np.uint64(self._first)
        self._score = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)
        # Call, environment, score and agent steps of episodes that are not reported yet.
        self.finished: list[tuple[int, int, float, int]] = []

    def begin(self) -> TimeStep:
        """Reset all environments."""
        return self._observe(self.env.reset())

    def send(self, action: np.ndarray) -> None:
        """Send actions i32[N] or f32[N, D]; the environments step in the background."""
        self._actions += np.asarray(action, self._dtype).tobytes()
        self.env.send(action)

    def recv(self) -> TimeStep:
        """Wait for the results of the actions, and record the scores."""
        return self._observe(self.env.recv())

    def _observe(self, step: TimeStep) -> TimeStep:
        told = [step.observation, step.score, step.discount, step.is_first, step.is_last]
        told += [] if step.legal is None else [step.legal]
        self._digest = _digested(self._digest, told)
        self._calls += 1
        self._score += step.score
        self._length += ~step.is_first
        for i in map(int, np.flatnonzero(step.game_over)):
            played = float(self._score[i]), int(self._length[i])
            self.finished.append((self._calls, self._first + i, *played))
            self._score[i], self._length[i] = 0.0, 0
        return step

    def take_finished(self) -> list[tuple[float, int]]:
        """Score and agent steps of the episodes that ended since the last call."""
        rows = np.array(self.finished).reshape(-1, 4)
        self.finished, self._reported_at = [], self._calls
        rows = _of_all_processes(rows)
        in_order = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        return [(score, int(length)) for _, _, score, length in in_order.tolist()]

    def save(self) -> SavedGames:
        """Everything to restore this point; not between `send` and `recv`."""
        actions = np.frombuffer(bytes(self._actions), self._dtype)
        actions = actions.reshape(-1, self.num_envs, *self.spec.action_shape)
        return SavedGames(
            actions=np.concatenate(processes.exchange(actions), axis=1),
            made_at=self._made_at,
            checksum=self._checksum(),
            unreported=processes.total(len(self.finished)),
            reported_at=self._reported_at,
        )

    def save_new(self, agent_steps: int) -> SavedGames:
        """The same for new environments in place of failed ones, at this point of the run."""
        shape = (0, processes.total(self.num_envs), *self.spec.action_shape)
        none = np.empty(shape, self._dtype)
        return SavedGames(none, made_at=agent_steps, checksum=0, unreported=0, reported_at=0)

    def _checksum(self) -> int:
        """A checksum over the environments of all processes, independent of who steps which."""
        return processes.total(int(np.sum(self._digest))) % 2**32

    def bring_back(self, saved: SavedGames) -> TimeStep | None:
        """Replay the saved actions; returns the last time step, or None if the result differs.

        None means that the environments are not deterministic. Then they are in an unknown state,
        and `begin_anew` has to follow.
        """
        if saved.made_at != self._made_at:
            self.env.close()
            self._replace(saved.made_at)
        step = self.begin()
        own = processes.mine(saved.actions.shape[1])
        for action in saved.actions[:, own].astype(self.spec.action_dtype):
            self.send(action)
            step = self.recv()
            watchdog.beat()
        if self._checksum() != saved.checksum:
            return None
        self._reported_at = saved.reported_at
        self.finished = [game for game in self.finished if game[0] > saved.reported_at]
        return step

    def begin_anew(self, agent_steps: int) -> TimeStep:
        """Create new environments with new seeds, at this point of the run."""
        self.env.close()
        self._replace(agent_steps)
        return self.begin()

    def close(self) -> None:
        """Release the environments."""
        self.env.close()


def _smallest_type(spec: EnvSpec) -> np.dtype:
    """The smallest type that has every action exactly."""
    if spec.is_continuous:
        return spec.action_dtype
    return np.min_scalar_type(spec.num_actions - 1)


def _of_all_processes(rows: np.ndarray) -> np.ndarray:
    """Join the rows of all processes, any number from each."""
    counts = [int(one[0]) for one in processes.exchange(np.array([len(rows)]))]
    padded = np.pad(rows, [(0, max(counts) - len(rows)), (0, 0)])
    parts = zip(processes.exchange(padded), counts, strict=True)
    return np.concatenate([part[:count] for part, count in parts])


def _digested(digest: np.ndarray, told: Sequence[np.ndarray]) -> np.ndarray:
    """Update the digest u64[N] of each environment with a time step of arrays [N, ...]."""
    number = len(digest)
    raw = [np.ascontiguousarray(part).view(np.uint8).reshape(number, -1) for part in told]
    raw.append(np.zeros((number, -sum(part.shape[1] for part in raw) % 8), np.uint8))
    words = np.concatenate(raw, axis=1).view(np.uint64)
    return digest * _STEP + words @ _weights(words.shape[1])


_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that earlier digests are not lost


@functools.cache
def _weights(length: int) -> np.ndarray:
    """Odd factors, so that a word that differs always changes the digest."""
    return np.random.default_rng(0).integers(2**63, size=length, dtype=np.uint64) * 2 + 1
