"""Checks observations against the declared space: nothing is cast, clipped or wrapped silently."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ez_jax.envs.observations import is_pixels, is_unit

_KINDS = "biuf"  # kinds of numbers; each can be read as the later ones, signed or not
_SLACK = 1e-5  # for rounding

Taken = Callable[..., Any]


class Unlike(ValueError):
    """An observation outside its space; the message is half a sentence, "..., but ..."."""


def make_taken(space: spaces.Space) -> Taken:
    """Make `taken(raw, batch=())`, which checks observations and returns their arrays.

    The result has the structure of the space; `batch` are leading axes, and parts that the space
    does not have are left out. The bounds of vectors are ignored; images and categories have to be
    within theirs. It raises `Unlike` if an observation has another structure, shape or kind of
    numbers, or values out of range.

    Args:
        space: of a single observation, as `Encoder.space`.
    """
    if isinstance(space, spaces.Dict):
        parts = {name: make_taken(part) for name, part in space.spaces.items()}

        def take_named(raw: Any, batch: tuple[int, ...] = ()) -> Any:
            if not isinstance(raw, Mapping) or parts.keys() - raw.keys():
                raise Unlike(f"{described(raw)}, but it has the parts {', '.join(parts)}")
            return {name: take(raw[name], batch) for name, take in parts.items()}

        return take_named
    if isinstance(space, spaces.Tuple):
        takes = [make_taken(part) for part in space]

        def take_numbered(raw: Any, batch: tuple[int, ...] = ()) -> Any:
            if not isinstance(raw, Sequence) or len(raw) != len(takes):
                raise Unlike(f"{described(raw)}, but it has {len(takes)} parts")
            return tuple(take(one, batch) for take, one in zip(takes, raw, strict=True))

        return take_numbered
    return functools.partial(_take_array, space, _bounds(space))


def batch_of(space: Any, raw: Any) -> tuple[int, ...]:
    """The leading axes: () for one observation, (N,) for N; () if it is neither."""
    while isinstance(space, spaces.Dict | spaces.Tuple):
        name: Any = next(iter(space.spaces)) if isinstance(space, spaces.Dict) else 0
        try:
            space, raw = space[name], raw[name]
        except (TypeError, KeyError, IndexError):
            return ()
    shape = np.shape(raw)
    return shape[:1] if shape and shape[1:] == space.shape else ()


def stacked(space: spaces.Space, parts: Sequence[Any]) -> Any:
    """Stack observations in the structure of `make_taken`."""
    if isinstance(space, spaces.Dict):
        return {n: stacked(space[n], [part[n] for part in parts]) for n in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(one, [p[i] for p in parts]) for i, one in enumerate(space))
    return np.stack(parts)


def described(raw: Any) -> str:
    """Type, shape and range of a value, in few words."""
    if isinstance(raw, Mapping):
        return f"a {type(raw).__name__} of {', '.join(map(str, raw)) or 'nothing'}"
    if not isinstance(raw, np.ndarray | np.generic) or not raw.size or raw.dtype.kind not in _KINDS:
        shape = f" of {raw.dtype}{list(raw.shape)}" if isinstance(raw, np.ndarray) else ""
        return f"{type(raw).__name__}{shape}"
    return f"{raw.dtype}{list(raw.shape)} of {raw.min():g} to {raw.max():g}"


def _whole(array: np.ndarray, declared: np.dtype) -> np.ndarray:
    """Convert floats to declared integers if they are whole numbers, as in gymnax's Catch.

    Not to bytes: an image of floats that happens to be black is still not an image of bytes.
    """
    if array.dtype.kind != "f" or declared.kind != "i":
        return array
    with np.errstate(invalid="ignore"):  # NaN, infinity and too large numbers do not convert back
        whole = array.astype(declared)
    return whole if np.array_equal(whole, array) else array


def _take_array(
    space: spaces.Space, bounds: tuple[Any, Any] | None, raw: Any, batch: tuple[int, ...] = ()
) -> np.ndarray:
    assert space.shape is not None, "others were refused"
    assert space.dtype is not None, "others were refused"
    try:
        array = np.asarray(raw)
    except ValueError as error:  # rows of different lengths
        raise Unlike(f"{described(raw)}, but the space is {space}") from error
    array = _whole(array, space.dtype)
    if array.shape != (*batch, *space.shape) or not _is_kind_of(array.dtype, space.dtype):
        raise Unlike(f"{described(array)}, but the space is {space}")
    is_byte = array.dtype == np.uint8 == space.dtype
    if bounds is None or (is_byte and bounds == (0, 255)):
        return array
    low, high = bounds
    number: Any = array
    # Written so that NaN fails, too.
    if not np.all((number >= low - _SLACK) & (number <= high + _SLACK)):
        raise Unlike(f"{described(array)}, but the space is {space}")
    return array


def _is_kind_of(got: np.dtype, declared: np.dtype) -> bool:
    """Whether such numbers can be converted to the declared type without loss."""
    if got.kind not in _KINDS:
        return False
    whole = ("i", "u")
    return (
        got.kind == declared.kind
        or (got.kind in whole and declared.kind in whole)
        or (_KINDS.index(got.kind) < _KINDS.index(declared.kind))
    )


def _bounds(space: Any) -> tuple[Any, Any] | None:
    """The smallest and largest value of categories, switches and pixels."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        count: Any = space.n if isinstance(space, spaces.Discrete) else space.nvec
        return space.start, space.start + count - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if not isinstance(space, spaces.Box) or len(space.shape) < 2:
        return None
    if is_unit(space):
        return 0, 1
    return (int(space.low.min()), int(space.high.max())) if is_pixels(space) else None
