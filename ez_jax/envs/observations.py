"""What the networks see of an observation: a uint8 image (H, W, C) or a float32 vector (D,).

| space                                      | becomes                                            |
|--------------------------------------------|----------------------------------------------------|
| uint8, 2 or 3 axes                         | image; two axes get one channel                    |
| booleans or values in [0, 1], 2 or 3 axes  | image, 1.0 is 255 (Catch, MinAtar-like planes)     |
| any other array                            | vector, flattened, values as they are              |
| Discrete(n)                                | vector, one-hot                                    |
| Dict with "image"                          | that entry alone                                   |

MiniGrid's image holds small codes (object 0..10, colour 0..5, state 0..3) and its direction and
mission are left out, as its view turns with the agent; the codes are multiplied by 25 so that they
span 0..250. The networks divide images by 255.
"""

import colorsys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from ez_jax.config import BadInput, EnvConfig
from ez_jax.config.games import Task
from ez_jax.structs import EnvSpec

_MINIGRID_SCALE = 25
_MIN_PIXELS = 160  # height of a picture made from an observation
_FRAME_SIDE = 16  # from here on a uint8 array with 1, 3 or 4 planes is a picture


class Encoder(NamedTuple):
    """How a batch of observations becomes what the agent sees."""

    shape: tuple[int, ...]  # of one observation
    dtype: np.dtype
    encode: Callable[[Any], Any]  # N raw observations -> dtype[N, *shape], a fresh array


def make_encoder(space: spaces.Space, task_id: str, channels_first: bool = False) -> Encoder:
    """The encoder for one environment's observation space.

    Args:
        space: of a single environment.
        task_id: for error messages, and to know MiniGrid.
        channels_first: whether images come as (C, H, W).

    Raises:
        BadInput: no network takes such observations.
    """
    if isinstance(space, spaces.Dict) and "image" in space.spaces:
        inner = make_encoder(space["image"], task_id, channels_first)
        is_minigrid = task_id.startswith(("MiniGrid-", "BabyAI-"))
        scale = np.uint8(_MINIGRID_SCALE if is_minigrid else 1)
        return inner._replace(encode=lambda raw: inner.encode(raw["image"]) * scale)
    if isinstance(space, spaces.Discrete):
        return _one_hot(int(space.n), int(space.start))
    if not isinstance(space, spaces.Box | spaces.MultiBinary) or 0 in space.shape:
        raise BadInput(
            f"'{task_id}' has observations of kind {type(space).__name__}, which no network takes: "
            "give it to Gymnasium in a wrapper that returns one array, such as FlattenObservation."
        )
    if len(space.shape) in (2, 3) and (space.dtype == np.uint8 or is_unit(space)):
        return _image(space, task_id, channels_first)
    return _vector(space)


def count_actions(space: spaces.Space, task_id: str) -> int:
    """How many actions there are.

    Raises:
        BadInput: the actions are not one finite set.
    """
    if not isinstance(space, spaces.Discrete):
        raise BadInput(
            f"'{task_id}' has actions {space}; continuous or composite actions are not supported "
            "yet, because the search (mctx) needs one fixed, finite set: choose a game with "
            "Discrete actions or discretise them in a wrapper."
        )
    return int(space.n)


def describe(
    task: Task, config: EnvConfig, encoder: Encoder, actions: spaces.Space, frame_skip: int = 1
) -> EnvSpec:
    """What the agent needs to know of a game.

    Raises:
        BadInput: the actions are not one finite set.
    """
    return EnvSpec(
        game=task.game,
        backend=task.backend,
        task_id=task.task_id,
        num_actions=count_actions(actions, task.task_id),
        observation_shape=encoder.shape,
        observation_dtype=encoder.dtype,
        frame_stack=config.frame_stack,
        frame_skip=frame_skip,
    )


def learned_reward(score: Any, clip: bool) -> Any:
    """What is learned from: the game's own reward, or its sign; of NumPy or JAX, f32[...]."""
    if not clip:
        return score
    return jnp.sign(score) if isinstance(score, jax.Array) else np.sign(score)


def picture(observation: np.ndarray) -> np.ndarray:
    """Pictures u8[N, h, w, 3] of image observations u8[N, H, W, C], enlarged to be looked at.

    Planes that are no colours (MinAtar's, a thing each) get a colour each.

    Raises:
        RuntimeError: they are no images.
    """
    if observation.ndim != 4:
        raise RuntimeError("no render mode 'rgb_array' in the game, and no images as observations")
    channels, side = observation.shape[-1], min(observation.shape[1:3])
    if channels in (1, 3):
        rgb = observation
    elif channels == 4 and side >= _FRAME_SIDE:
        rgb = observation[..., :3]  # without its transparency
    else:
        rgb = (observation[..., None] / 255 * _colours(channels)).max(axis=-2).astype(np.uint8)
    factor = -(-_MIN_PIXELS // observation.shape[1])
    large = rgb.repeat(factor, axis=1).repeat(factor, axis=2)
    return np.broadcast_to(large, (*large.shape[:-1], 3)).copy()


def _colours(count: int) -> np.ndarray:
    """Bright colours [count, 3], 0..255, neighbours far apart on the wheel."""
    hues = (0.55 + 0.381966 * np.arange(count)) % 1
    return np.array([colorsys.hsv_to_rgb(hue, 0.55, 1.0) for hue in hues]) * 255


def is_unit(space: spaces.Box | spaces.MultiBinary) -> bool:
    """Whether all values lie in [0, 1]."""
    if isinstance(space, spaces.MultiBinary) or space.dtype == np.bool_:
        return True
    return bool((space.low == 0).all() and (space.high == 1).all())


def _image(space: spaces.Box | spaces.MultiBinary, task_id: str, channels_first: bool) -> Encoder:
    shape = space.shape
    if channels_first:
        shape = (*shape[1:], shape[0])
    elif len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) >= _FRAME_SIDE:
        raise BadInput(
            f"'{task_id}' has images {shape} with the channels first: move them to the last axis "
            "in a wrapper."
        )
    if len(shape) == 2:
        shape = (*shape, 1)
    is_scaled = is_unit(space)

    def encode(raw: Any) -> Any:
        image = _array(raw)
        if channels_first:
            image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        if is_scaled:
            image = (image * np.float32(255)).round()
        return image.reshape(-1, *shape).astype(np.uint8)

    return Encoder(shape, np.dtype(np.uint8), encode)


def _array(raw: Any) -> Any:
    """An array of NumPy, or of JAX inside a program."""
    return raw if isinstance(raw, jax.Array) else np.asarray(raw)


def _vector(space: spaces.Box | spaces.MultiBinary) -> Encoder:
    width = int(np.prod(space.shape, dtype=int))  # 1 for a scalar

    def encode(raw: Any) -> Any:
        return _array(raw).reshape(-1, width).astype(np.float32)

    return Encoder((width,), np.dtype(np.float32), encode)


def _one_hot(count: int, start: int) -> Encoder:
    def encode(raw: Any) -> Any:
        codes = _array(raw).reshape(-1, 1) - start
        return (codes == np.arange(count)).astype(np.float32)

    return Encoder((count,), np.dtype(np.float32), encode)
