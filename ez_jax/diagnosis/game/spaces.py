"""Unsupported spaces of a Gymnasium environment, and the wrapper that fixes each."""

import math
from typing import Any

from gymnasium import spaces

from ez_jax.config import BadInput
from ez_jax.envs.actions import make_actions, unfit
from ez_jax.envs.observations import is_pixels, is_unit, make_encoder

REGISTER = "; register a function that returns the wrapped environment"
WIDE = 10_000  # numbers in a vector above which most weights are in the first layer
LISTED = 1_000  # combinations that can still be separate actions


class Unfit(Exception):
    """Something unsupported about an environment, with its fix."""

    def __init__(self, sentence: str, fix: str):
        """One sentence each."""
        super().__init__(sentence)
        self.fix = fix


def check_actions(space: spaces.Space, task_id: str) -> str:
    """The actions in words.

    Raises:
      Unfit: they are neither one finite set nor numbers with bounds.
    """
    try:
        actions = make_actions(space, task_id)
    except BadInput as error:
        sentence = f"actions are {space}, neither Discrete(n) nor a Box of floats with bounds"
        raise Unfit(sentence, _listed(space)) from error
    if not isinstance(space, spaces.Box):
        return str(actions.num_actions)
    return f"{actions.action_size} numbers, {space.low.min():g} to {space.high.max():g}"


def check_observations(space: spaces.Space, task_id: str) -> str:
    """How the network would see the observations, in words.

    Raises:
      Unfit: no network accepts them.
    """
    try:
        encoder = make_encoder(space, task_id)
    except BadInput as error:
        raise Unfit(f"observations are {space}", _flattened(space)) from error

    def by(sizes: tuple[int, ...]) -> str:
        return "x".join(map(str, sizes))

    kind = "image" if len(encoder.shape) == 3 else "vector"
    told = f"{kind} {by(encoder.shape)} {encoder.dtype}"
    shape = space.shape or ()
    is_moved = kind == "image" and len(shape) > 2 and shape != encoder.shape
    return f"{told}, of {by(shape)}" if is_moved else told


def hint_on_observations(space: spaces.Space, task_id: str) -> str | None:
    """Hints about supported observations."""
    if isinstance(space, spaces.Dict):
        seen: Any = make_encoder(space, task_id).space
        left_out = ", ".join(name for name in space.spaces if name not in seen.spaces)
        return f"only the entry 'image' is used, not {left_out}" if left_out else None
    if not isinstance(space, spaces.Box):
        return None
    is_picture = len(space.shape) == 3 and min(space.shape[:2]) > 1 and space.shape[2] in (1, 3, 4)
    if is_picture and not is_pixels(space) and not is_unit(space):
        return (
            "an image needs uint8 or bounds of 0 and 1 or 0 and 255; this one is taken as a "
            "vector: return uint8, for example with TransformObservation"
        )
    if len(space.shape) == 1 and math.prod(space.shape) > WIDE:
        return (
            f"a vector of {math.prod(space.shape):,} numbers makes a perceptron that is nearly all "
            "first layer: leave out numbers, or return an image (height, width, channels)"
        )
    return None


def _listed(space: spaces.Space) -> str:
    """How to turn other actions into a list, or into numbers with bounds."""
    if isinstance(space, spaces.Box) and (found := unfit(space)):
        return f"{found[1]}{REGISTER}"
    wrap = "gymnasium.wrappers.TransformAction(env, {}, Discrete({}))" + REGISTER
    sizes = None
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        sizes = tuple(map(int, space.nvec))
    elif isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        sizes = (2,) * space.shape[0]
    if sizes and math.prod(sizes) <= LISTED:
        combine = f"lambda i: np.array(np.unravel_index(i, {sizes}))"
        return f"number the combinations: {wrap.format(combine, math.prod(sizes))}"
    table = wrap.format("lambda i: TABLE[i]", "len(TABLE)")
    return f"list those worth trying: with TABLE, a list of such actions, {table}"


def _flattened(space: spaces.Space) -> str:
    """How to turn other observations into one array."""
    if space.is_np_flattenable and 0 not in (space.shape or ()):
        return (
            "make one array of them, gymnasium.wrappers.FlattenObservation(env), or keep the part "
            f"that matters, gymnasium.wrappers.FilterObservation(env, ['image']){REGISTER}"
        )
    return "return one numpy array of constant shape, and declare it as a Box"
