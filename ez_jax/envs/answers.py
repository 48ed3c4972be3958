"""Checks everything that a game returns, whichever library steps it and whoever plays.

A number that is not finite would spoil every mean and weight that it reaches, and a game that ends
the process would end the run without a message.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ez_jax.config.errors import Fault, exiting_raises, in_short
from ez_jax.structs import TimeStep

# Larger rewards cannot be learned from: the squares of their sums do not fit float32.
LARGEST_REWARD = 1e15


class Answering:
    """A `VectorEnv` whose results are checked; it is otherwise unchanged.

    Raises `Fault`, in one sentence, for an observation or reward that is not finite, and if the
    game's code ends the process or raises what is no `Exception`.
    """

    def __init__(self, game: str, make: Callable[[], Any]):
        """Create the environments with `make`."""
        self._game, self._calls = game, 0
        with kept_alive(self._say):
            self._env = make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self) -> TimeStep:
        """Reset all environments."""
        with kept_alive(self._say):
            return self._checked(self._env.reset())

    def send(self, action: np.ndarray) -> None:
        """Send actions i32[N] or f32[N, D]."""
        self._calls += 1
        with kept_alive(self._say):
            self._env.send(action)

    def recv(self) -> TimeStep:
        """Wait for the results."""
        with kept_alive(self._say):
            return self._checked(self._env.recv())

    def step(self, action: np.ndarray) -> TimeStep:
        """Send and receive."""
        self.send(action)
        return self.recv()

    def render(self) -> np.ndarray:
        """Images u8[N, H, W, 3]."""
        with kept_alive(self._say):
            return self._env.render()

    def action_names(self) -> tuple[str, ...]:
        """The names of the actions."""
        with kept_alive(self._say):
            return self._env.action_names()

    def close(self) -> None:
        """Close the environments."""
        with kept_alive(self._say):
            self._env.close()

    def _say(self, what: str, fix: str = "") -> Fault:
        return Fault(
            f"'{self._game}' {what} at step {self._calls:,}; "
            f"to test the game alone, run `python -m ez_jax.doctor env={self._game}`",
            fix,
        )

    def _checked(self, step: TimeStep) -> TimeStep:
        observation = step.observation
        if not np.isfinite(step.score).all():
            odd = _odd(step.score[:, None])
            what = f"returned a reward that is not finite ({odd.value} in float32)"
            raise self._say(what, odd.fix("the reward"))
        if np.abs(step.reward).max() > LARGEST_REWARD:
            reward = step.reward[np.abs(step.reward).argmax()]
            raise self._say(
                f"returned a reward of {reward:.3g}, too large to learn from: make it smaller",
                "divide rewards by what is usual in the game, or learn from their signs alone: "
                "env.reward_clip=true",
            )
        if observation.dtype.kind == "f" and not np.isfinite(observation).all():
            odd = _odd(observation)
            of = f" in {odd.number} of {observation[0].size} numbers, the first at {odd.where}"
            what = f"returned an observation that is not finite ({odd.value} in float32{of})"
            raise self._say(what, odd.fix(f"the observation's number {odd.where}"))
        return step


class _Odd(NamedTuple):
    """Values that are not finite."""

    value: float  # the first
    where: list[int]  # its place, in its row
    number: int  # of them in its row

    def fix(self, what: str) -> str:
        """Where such a value comes from."""
        if np.isnan(self.value):
            comes = "of 0/0, of infinity - infinity, of a root or logarithm of less than 0, or of "
            return f"{what} is NaN, which comes {comes}data with gaps: guard what computes it"
        return (
            f"{what} is {self.value}, which comes of a division by 0, of a logarithm of 0, or of "
            "a number beyond 3.4e38, the largest of float32: guard what computes it, or cut it "
            "with np.clip"
        )


def _odd(array: np.ndarray) -> _Odd:
    """The first value that is not finite, of an array with a row for each game."""
    row, *where = map(int, np.argwhere(~np.isfinite(array))[0])
    value = float(array[(row, *where)])
    return _Odd(value, where, int((~np.isfinite(array[row])).sum()))


@contextlib.contextmanager
def kept_alive(say: Callable[[str], Fault]) -> Iterator[None]:
    """Treat the end of the process in a game's code as a fault of the game.

    So are exceptions that are no `Exception`, because nothing else would report them.
    """
    try:
        with exiting_raises(), np.errstate(over="ignore", invalid="ignore"):  # we raise our own
            yield
    except (Exception, KeyboardInterrupt):
        raise  # an error of its own, whose author needs the traceback, or an interrupt
    except SystemExit as error:
        fault = say(f"ended the process (exit code {error.code or 0})")
        fault.fix = (
            "leave out sys.exit(), quit() and os._exit(): return terminated=True where a game is "
            "over, and raise an error where something is wrong"
        )
        raise fault from error
    except BaseException as error:
        raise say(f"raised {in_short(error)}") from error
