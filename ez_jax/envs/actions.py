"""What a game takes as actions, and how the agent's actions become the game's own.

| space                             | for the agent                                               |
|-----------------------------------|-------------------------------------------------------------|
| Discrete(n)                       | a number i32[], 0..n-1                                      |
| Box of floats with finite bounds  | a vector f32[D] from -1 to 1, the array's numbers in a row  |

Everything else is refused, with a fix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from ez_jax.config import BadInput
from ez_jax.structs import EnvSpec

WIDEST = 1e6  # of a bound; beyond, it only says that there is none

_LIST = (
    "list the combinations worth trying and choose one by its number, with "
    "gymnasium.wrappers.TransformAction and Discrete(n)"
)
_NARROW = "gymnasium.wrappers.TransformAction(env, lambda a: a, gymnasium.spaces.Box({}, {}, {}))"


class Actions(NamedTuple):
    """The actions of a game."""

    num_actions: int  # 0 if they are continuous
    action_size: int  # numbers in a continuous action; 0 if they are discrete
    # The agent's actions i32[N] or f32[N, D] -> the game's own [N, ...], a new array.
    to_game: Callable[[Any], Any]


def told_actions(spec: EnvSpec) -> str:
    """The number of actions, or of the numbers of a continuous one, in words."""
    if not spec.is_continuous:
        return f"{spec.num_actions} actions"
    return f"actions of {spec.action_size} number{'s' * (spec.action_size != 1)}"


def make_actions(space: spaces.Space, task_id: str) -> Actions:
    """The actions of one environment.

    Args:
        space: of a single environment.
        task_id: for error messages.

    Raises:
        BadInput: neither one finite set nor numbers with bounds.
    """
    if isinstance(space, spaces.Discrete):
        return _numbered(space)
    if found := unfit(space):
        raise BadInput(f"'{task_id}' has actions {space}, {found[0]}: {found[1]}.")
    assert isinstance(space, spaces.Box), "others were refused"
    return _scaled(space)


def unfit(space: spaces.Space) -> tuple[str, str] | None:
    """Why a space that is not Discrete cannot be used, and the fix; None if it can."""
    if not isinstance(space, spaces.Box):
        return "which are neither Discrete nor a Box", _LIST
    if 0 in space.shape:
        return "which have no numbers", "declare at least one"
    if np.dtype(space.dtype).kind != "f":
        return "which are whole numbers", f"declare a Box of floats and round in step(), or {_LIST}"
    if not (np.abs([space.low, space.high]) <= WIDEST).all():
        narrow = _NARROW.format(-1, 1, space.shape)
        return "without usable bounds", f"declare those that the game needs, as in {narrow}"
    if (space.low == space.high).any():
        where = list(map(int, np.argwhere(space.low == space.high)[0]))
        return f"whose number {where} has a single value", "leave that number out"
    return None


def _numbered(space: spaces.Discrete) -> Actions:
    start = int(space.start)

    def to_game(action: Any) -> Any:
        return np.asarray(action, np.int64) + start

    return Actions(int(space.n), 0, to_game)


def _scaled(space: spaces.Box) -> Actions:
    """Numbers that the agent gives from -1 to 1, scaled to their bounds.

    The bounds themselves are reached exactly, and nothing lies outside of them.
    """
    low, high = space.low.reshape(-1), space.high.reshape(-1)

    def to_game(action: Any) -> Any:
        is_jax = isinstance(action, jax.Array)
        of: Any = jnp if is_jax else np
        exact: Any = np.float32 if is_jax else np.float64
        dtype = exact if is_jax else space.dtype
        share = (of.clip(of.asarray(action, exact), -1, 1) + 1) / 2
        scaled = low.astype(exact) * (1 - share) + high.astype(exact) * share
        return of.clip(scaled, low, high).astype(dtype).reshape(-1, *space.shape)

    return Actions(0, low.size, to_game)
