"""Gymnasium games stepped one after another; every result is checked.

Gymnasium's own vector environment merges `info`, which agents do not read, into arrays, and casts
observations to the declared type. Here neither can cause errors.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ez_jax.config import BadInput
from ez_jax.config.errors import Fault, shown
from ez_jax.config.games import Task
from ez_jax.envs.raw_observations import Taken, Unlike

MASK = "action_mask"  # in `info`, as in Gymnasium's own games: 1 where an action is allowed
# Files of Gymnasium that call a game and raise if it violates the interface.
_CALLERS = ("core.py", "wrappers", "utils/passive_env_checker.py", "envs/registration.py")


class Answers(NamedTuple):
    """The results of N games."""

    observations: list[Any]  # N, from `Taken`
    score: np.ndarray  # f32[N]
    terminated: np.ndarray  # bool[N]
    truncated: np.ndarray  # bool[N]
    legal: np.ndarray | None  # bool[N, A], or None if the game has no masks


class SideBySide:
    """N games; after its final observation, a game takes one call for the reset."""

    def __init__(
        self,
        task: Task,
        envs: Sequence[gymnasium.Env],
        seeds: Sequence[int],
        taken: Taken,
        num_actions: int,
    ) -> None:
        """Reset all games, which shows whether they have masks.

        Raises:
            BadInput: an observation or another result is not as declared.
        """
        self._task, self._envs, self._taken, self._num_actions = task, envs, taken, num_actions
        self._steps = 0
        self._is_over = np.zeros(len(envs), bool)
        began = [self._begin(env, seed) for env, seed in zip(envs, seeds, strict=True)]
        self.has_masks = MASK in began[0][1]
        if self.has_masks and not num_actions:
            raise BadInput(
                f"'{task.task_id}' has info['{MASK}'], but its actions are continuous: leave it out"
            )
        self._first: Answers | None = self._of_begun(began)

    def reset(self) -> Answers:
        """Reset all games; the first call returns those that were reset at creation."""
        first, self._first = self._first, None
        if first is None:
            first = self._of_begun([self._begin(env) for env in self._envs])
        self._is_over[:] = False
        return first

    def step(self, actions: np.ndarray) -> Answers:
        """Execute an action in every game, or reset it if its episode is over."""
        number = len(self._envs)
        self._steps += 1
        score = np.zeros(number, np.float64)
        terminated, truncated = np.zeros(number, bool), np.zeros(number, bool)
        observations, infos = [], []
        for i, env in enumerate(self._envs):
            if self._is_over[i]:
                observation, info = self._begin(env)
            else:
                # An array even of a single number, where actions are arrays.
                action = actions[i] if self._num_actions else actions[i, ...]
                observation, score[i], terminated[i], truncated[i], info = self._step(env, action)
            observations.append(observation)
            infos.append(info)
        self._is_over = terminated | truncated
        legal = self._legal(infos, self._is_over)
        return Answers(observations, score.astype(np.float32), terminated, truncated, legal)

    def _of_begun(self, began: Sequence[tuple[Any, dict]]) -> Answers:
        observations, infos = zip(*began, strict=True)
        nowhere = np.zeros(len(self._envs), bool)
        legal = self._legal(infos, nowhere)
        return Answers(list(observations), nowhere.astype(np.float32), nowhere, nowhere, legal)

    def _begin(self, env: gymnasium.Env, seed: int | None = None) -> tuple[Any, dict]:
        with self._answering("reset()"):
            returned: Any = env.reset(seed=seed)
        if not (isinstance(returned, tuple) and len(returned) == 2 and _is_info(returned[1])):
            raise self._not_the_api("reset()", "(observation, info)", returned)
        return self._observed(returned[0], "reset()"), returned[1]

    def _step(self, env: gymnasium.Env, action: Any) -> tuple[Any, float, bool, bool, dict]:
        with self._answering("step()"):
            returned: Any = env.step(action)
        if not (isinstance(returned, tuple) and len(returned) == 5 and _is_info(returned[4])):
            wanted = "(observation, reward, terminated, truncated, info)"
            raise self._not_the_api("step()", wanted, returned)
        raw, reward, terminated, truncated, info = returned
        score = self._number("the reward", reward)
        is_terminated = self._is_true("terminated", terminated)
        is_truncated = self._is_true("truncated", truncated)
        return self._observed(raw, "step()"), score, is_terminated, is_truncated, info

    def _number(self, name: str, value: Any) -> float:
        """A number, perhaps in an array of one."""
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise Fault(f"{self._told('step()')} {name} {shown(value)}, not a number")
        return float(array.item())

    def _is_true(self, name: str, value: Any) -> bool:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
            raise Fault(f"{self._told('step()')} {name}={shown(value)}, neither true nor false")
        return bool(array.item())

    def _observed(self, raw: Any, call: str) -> Any:
        try:
            return self._taken(raw)
        except Unlike as error:
            fix = "declare what reset() and step() return, or return what is declared"
            kind = Fault if self._steps else BadInput
            raise kind(f"{self._told(call)} an observation that is {error}: {fix}") from None

    def _legal(self, infos: Sequence[dict], is_over: np.ndarray) -> np.ndarray | None:
        """The masks bool[N, A]; after a final observation all actions are allowed."""
        if not self.has_masks and not any(MASK in info for info in infos):
            return None
        legal = np.ones((len(infos), self._num_actions), bool)
        for row, info, ended in zip(legal, infos, is_over, strict=True):
            if not ended:
                row[:] = self._mask(info)
        return legal

    def _mask(self, info: dict) -> np.ndarray:
        said = f"'{self._task.task_id}' at step {self._steps:,}"
        if not self.has_masks or MASK not in info:
            raise Fault(
                f"{said} has info['{MASK}'] in one call and not in another: return it in reset() "
                "and in every step()"
            )
        try:
            return mask_of(info[MASK], (self._num_actions,))
        except ValueError as error:
            raise Fault(f"{said} has an info['{MASK}'] that {error}") from None

    def _told(self, call: str) -> str:
        when = f" at step {self._steps:,}" if self._steps else ""
        return f"'{self._task.task_id}'{when} returned from {call}"

    def _not_the_api(self, call: str, wanted: str, returned: Any) -> BadInput:
        what = f"{len(returned)} values" if isinstance(returned, tuple) else type(returned).__name__
        return BadInput(f"{self._told(call)} {what} instead of {wanted}; {self._doctor()}")

    def _doctor(self) -> str:
        return f"`python -m ez_jax.doctor env={self._task.game}` says what to fix"

    @contextlib.contextmanager
    def _answering(self, call: str) -> Iterator[None]:
        with api_faults(f"'{self._task.task_id}' does not answer {call}", self._doctor()):
            yield


@contextlib.contextmanager
def api_faults(said: str, fix: str) -> Iterator[None]:
    """Turn an error that Gymnasium itself raises about a game into one sentence.

    Errors of the game's own code are not changed, because its author needs the traceback.

    Raises:
        BadInput: `said`, Gymnasium's error, and `fix`; or the package that is missing.
    """
    try:
        yield
    except gymnasium.error.DependencyNotInstalled as error:
        raise BadInput(f"{said}: {str(error).rstrip('.')}.") from error
    except (AssertionError, TypeError, ValueError, gymnasium.error.Error) as error:
        if not _raised_by_gymnasium(error):
            raise
        raise BadInput(f"{said} as Gymnasium's interface asks ({error}); {fix}") from error


def mask_of(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The allowed actions bool[*shape], from a mask of zeros and ones.

    Raises:
        ValueError: half a sentence about the error.
    """
    array = np.asarray(mask)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ValueError(f"is {array.dtype}{list(array.shape)}, not one number for each action")
    if not np.isin(array, (0, 1)).all():
        raise ValueError("has other numbers than 0 and 1")
    legal = array.astype(bool)
    if not legal.any(axis=-1).all():
        raise ValueError("allows no action, although the episode continues")
    return legal


def _is_info(value: Any) -> bool:
    return isinstance(value, dict)


def _raised_by_gymnasium(error: BaseException) -> bool:
    """Whether it was raised by Gymnasium when it calls a game, not in the game's own code."""
    while error.__cause__ is not None:
        error = error.__cause__
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or gymnasium.__file__ is None:
        return False
    raised_in, home = Path(trace.tb_frame.f_code.co_filename), Path(gymnasium.__file__).parent
    return any(raised_in.is_relative_to(home / name) for name in _CALLERS)
