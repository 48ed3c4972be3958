"""Encodes observations for the networks: a uint8 image (H, W, C) or a float32 vector (D,).

| space                                         | becomes                                         |
|-----------------------------------------------|-------------------------------------------------|
| uint8, or bounds 0 and 255; 2 or 3 axes       | image; two axes get one channel                 |
| booleans or bounds 0 and 1; 2 or 3 axes       | image, 1.0 is 255 (Catch, MinAtar-like planes)  |
| image with its channels first                 | image, channels last                            |
| 4 axes, a stack of such images                | image with the channels of all, oldest first    |
| any other array                               | vector, flattened, values as they are           |
| Discrete(n), MultiDiscrete                    | vector, one-hot                                 |
| Dict or Tuple of vectors, perhaps nested      | vector, one part after another                  |
| Dict or Tuple of one image alone              | that image                                      |
| MiniGrid's Dict                               | its image alone                                 |

An image beside other parts is refused. MiniGrid's image has small codes (object 0..10, colour 0..5,
state 0..3), which are multiplied by 25 to span 0..250; its direction and mission are left out,
because its view turns with the agent. The networks divide images by 255.

Observations are checked against the declared space (`raw_observations.py`) before encoding.
"""

import colorsys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from ez_jax.config import BadInput, EnvConfig
from ez_jax.config.games import Task
from ez_jax.envs.actions import Actions
from ez_jax.structs import EnvSpec

_MINIGRID_SCALE = 25
_MIN_PIXELS = 160  # height of an image rendered from an observation
_FRAME_SIDE = 16  # from this size on, an array with 1, 3 or 4 planes is a camera image
_COLOURS = (1, 3, 4)  # channels of a camera image: grey, RGB, RGBA


class BadPicture(RuntimeError):
    """A game rendered something that is not an image."""


class Encoder(NamedTuple):
    """Encodes a batch of observations for the agent."""

    shape: tuple[int, ...]  # of one observation
    dtype: np.dtype
    encode: Callable[[Any], Any]  # N raw observations -> dtype[N, *shape], a new array
    space: spaces.Space  # of one raw observation, without parts that are left out

    def __hash__(self) -> int:
        """Spaces have no hash, but games of gymnax need one, because their programs are cached."""
        return hash((self.shape, self.dtype, self.encode))


def make_encoder(space: spaces.Space, task_id: str, channels_first: bool = False) -> Encoder:
    """The encoder for one environment's observation space.

    Args:
        space: of a single environment.
        task_id: for error messages, and to know MiniGrid.
        channels_first: whether images are always (C, H, W).

    Raises:
        BadInput: no network accepts such observations.
    """
    if _is_minigrid(space, task_id):
        inner = make_encoder(space["image"], task_id)
        return inner._replace(
            encode=lambda raw: inner.encode(raw["image"]) * np.uint8(_MINIGRID_SCALE),
            space=spaces.Dict({"image": space["image"]}),
        )
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _joined(space, task_id)
    return _of_one(space, task_id, channels_first)


def _is_minigrid(space: spaces.Space, task_id: str) -> TypeGuard[spaces.Dict]:
    """Whether it is MiniGrid, by name or by the parts of its observations."""
    if not isinstance(space, spaces.Dict) or "image" not in space.spaces:
        return False
    by_parts = set(space.spaces) == {"image", "direction", "mission"}
    return by_parts or task_id.startswith(("MiniGrid-", "BabyAI-"))


def _of_one(space: spaces.Space, task_id: str, channels_first: bool = False) -> Encoder:
    if isinstance(space, spaces.Discrete):
        return _one_hot(space, np.array([space.n]), np.array([space.start]))
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(space, space.nvec.reshape(-1), space.start.reshape(-1))
    if not isinstance(space, spaces.Box | spaces.MultiBinary) or 0 in space.shape:
        raise BadInput(
            f"'{task_id}' has observations of kind {type(space).__name__}, which no network takes: "
            "use a wrapper that returns one array, such as FlattenObservation."
        )
    if is_pixels(space) or is_unit(space):
        if len(space.shape) in (2, 3):
            return _image(space, channels_first or is_channels_first(space))
        if len(space.shape) == 4:
            return _stack(space, task_id)
    return _vector(space)


def _joined(space: spaces.Dict | spaces.Tuple, task_id: str) -> Encoder:
    """The encoder for several parts, concatenated in the order of the space."""
    parts = list(space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space))
    encoders = [(name, _of_part(part, task_id, len(parts) == 1)) for name, part in parts]
    if not encoders:
        raise BadInput(f"'{task_id}' has observations without any parts: return an array.")
    [(first, of_first), *others] = encoders
    if not others:
        return of_first._replace(encode=lambda raw: of_first.encode(raw[first]), space=space)
    images = [f"'{name}' {encoder.shape}" for name, encoder in encoders if len(encoder.shape) == 3]
    if images:
        raise BadInput(
            f"'{task_id}' has observations with an image, {images[0]}, beside other parts, which "
            "no network accepts together: choose one with gymnasium.wrappers.FilterObservation, "
            "or draw the others into the image."
        )
    width = sum(encoder.shape[0] for _, encoder in encoders)

    def encode(raw: Any) -> Any:
        vectors = [encoder.encode(raw[name]) for name, encoder in encoders]
        of = jnp if isinstance(vectors[0], jax.Array) else np
        return of.concatenate(vectors, axis=-1)

    return Encoder((width,), np.dtype(np.float32), encode, space)


def _of_part(space: spaces.Space, task_id: str, is_alone: bool) -> Encoder:
    """Like a single observation, except that a small table counts as numbers, not as an image."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return make_encoder(space, task_id)
    if isinstance(space, spaces.Box | spaces.MultiBinary) and not is_alone:
        is_table = len(space.shape) == 2 and 0 not in space.shape
        if is_table and not is_pixels(space):
            return _vector(space)
    return _of_one(space, task_id)


def describe(
    task: Task, config: EnvConfig, encoder: Encoder, actions: Actions, frame_skip: int = 1
) -> EnvSpec:
    """The specification of a game for the agent."""
    return EnvSpec(
        game=task.game,
        backend=task.backend,
        task_id=task.task_id,
        num_actions=actions.num_actions,
        observation_shape=encoder.shape,
        observation_dtype=encoder.dtype,
        frame_stack=config.frame_stack,
        frame_skip=frame_skip,
        action_size=actions.action_size,
    )


def learned_reward(score: Any, clip: bool) -> Any:
    """The reward to learn from: the game's own or its sign; NumPy or JAX, f32[...]."""
    if not clip:
        return score
    return jnp.sign(score) if isinstance(score, jax.Array) else np.sign(score)


def picture(observation: np.ndarray) -> np.ndarray:
    """Images u8[N, h, w, 3] to look at, from image observations u8[N, H, W, C].

    They are enlarged. Planes that are not colours (MinAtar's, one per object) get a colour each.

    Raises:
        RuntimeError: the observations are not images.
    """
    if observation.ndim != 4:
        raise RuntimeError("no render mode 'rgb_array' in the game, and no images as observations")
    channels, side = observation.shape[-1], min(observation.shape[1:3])
    if channels in (1, 3):
        rgb = observation
    elif channels == 4 and side >= _FRAME_SIDE:
        rgb = observation[..., :3]  # without transparency
    else:
        rgb = (observation[..., None] / 255 * _colours(channels)).max(axis=-2).astype(np.uint8)
    factor = -(-_MIN_PIXELS // observation.shape[1])
    large = rgb.repeat(factor, axis=1).repeat(factor, axis=2)
    return np.broadcast_to(large, (*large.shape[:-1], 3)).copy()


def _colours(count: int) -> np.ndarray:
    """Bright colours [count, 3], 0..255; neighbours are far apart on the colour wheel."""
    hues = (0.55 + 0.381966 * np.arange(count)) % 1
    return np.array([colorsys.hsv_to_rgb(hue, 0.55, 1.0) for hue in hues]) * 255


def is_unit(space: spaces.Box | spaces.MultiBinary) -> bool:
    """Whether all values lie in [0, 1]."""
    if isinstance(space, spaces.MultiBinary) or space.dtype == np.bool_:
        return True
    return bool((space.low == 0).all() and (space.high == 1).all())


def is_pixels(space: spaces.Box | spaces.MultiBinary) -> bool:
    """Whether values are bytes, or numbers of any type declared as 0 to 255."""
    if isinstance(space, spaces.MultiBinary):
        return False
    return space.dtype == np.uint8 or bool((space.low == 0).all() and (space.high == 255).all())


def is_channels_first(space: spaces.Box | spaces.MultiBinary) -> bool:
    """Whether an image has few channels before two long sides.

    Small planes of 0 and 1 may be a board with few rows: then the last axis is that of the planes.
    """
    if len(space.shape) != 3:
        return False
    first, *sides = space.shape
    if first in _COLOURS:
        is_square = sides[0] == sides[1] > first and sides[1] not in _COLOURS
        return min(sides) >= _FRAME_SIDE or (is_square and not is_unit(space))
    return first < _FRAME_SIDE and min(sides) >= 2 * _FRAME_SIDE


def _image(space: spaces.Box | spaces.MultiBinary, channels_first: bool) -> Encoder:
    shape = space.shape
    if channels_first:
        shape = (*shape[1:], shape[0])
    elif len(shape) == 2:
        shape = (*shape, 1)
    scale = np.float32(255 if is_unit(space) else 1)
    is_exact = space.dtype == np.uint8 and scale == 1

    def encode(raw: Any) -> Any:
        image = _array(raw)
        if channels_first:
            image = image.swapaxes(-3, -2).swapaxes(-2, -1)
        if not is_exact:
            image = (image * scale).round()
        return _bytes(image.reshape(-1, *shape))

    return Encoder(shape, np.dtype(np.uint8), encode, space)


def _stack(space: spaces.Box | spaces.MultiBinary, task_id: str) -> Encoder:
    """Join images into one with the channels of all, the first image's first.

    Raises:
        BadInput: what an array of four axes shows is not plain from its shape.
    """
    count, *one = space.shape
    dtype: Any = space.dtype
    of_one = spaces.Box(0, 1 if is_unit(space) else 255, tuple(one), dtype)
    channels_first = is_channels_first(of_one)
    if not channels_first and one[-1] not in _COLOURS:
        raise BadInput(
            f"'{task_id}' has observations of shape {space.shape}, which are neither an image "
            "(height, width, channels) nor a stack of such: move the axes in a wrapper, or flatten "
            "them with gymnasium.wrappers.FlattenObservation."
        )
    inner = _image(of_one, channels_first)
    height, width, channels = inner.shape
    shape = (height, width, count * channels)

    def encode(raw: Any) -> Any:
        images = inner.encode(raw).reshape(-1, count, *inner.shape)
        order = (0, 2, 3, 1, 4)  # of the images, behind their rows and columns
        return _bytes(images.transpose(order).reshape(-1, *shape))

    return Encoder(shape, np.dtype(np.uint8), encode, space)


def _bytes(image: Any) -> Any:
    """A fresh array, in the order of its axes."""
    if isinstance(image, jax.Array):
        return image.astype(np.uint8)
    return np.array(image, np.uint8, order="C")


def _array(raw: Any) -> Any:
    """An array of NumPy, or of JAX inside a program."""
    return raw if isinstance(raw, jax.Array) else np.asarray(raw)


def _vector(space: spaces.Box | spaces.MultiBinary) -> Encoder:
    width = int(np.prod(space.shape, dtype=int))  # 1 for a scalar

    def encode(raw: Any) -> Any:
        return _array(raw).reshape(-1, width).astype(np.float32)

    return Encoder((width,), np.dtype(np.float32), encode, space)


def _one_hot(space: spaces.Space, counts: np.ndarray, starts: np.ndarray) -> Encoder:
    """One-hot codes of numbers i, each one of `counts[i]` from `starts[i]` on."""
    number = np.repeat(np.arange(len(counts)), counts)  # which code an entry belongs to
    code = np.concatenate([start + np.arange(n) for n, start in zip(counts, starts, strict=True)])

    def encode(raw: Any) -> Any:
        codes = _array(raw).reshape(-1, len(counts))
        return (codes[:, number] == code).astype(np.float32)

    return Encoder((len(code),), np.dtype(np.float32), encode, space)
