"""Gymnasium environments whose right answers are known; importing this registers them."""

import time

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 5


class Counter(gymnasium.Env):
    """Observes its own step number; step t is worth t; terminates or is truncated at LENGTH."""

    observation_space = spaces.Box(0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2, start=3)

    def __init__(self, ending="terminated"):
        self.ending = ending
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        is_over = self.time == LENGTH
        ends = (is_over and self.ending != "truncated", is_over and self.ending != "terminated")
        return self._observe(), float(self.time), *ends, {}

    def _observe(self):
        return np.array([self.time], np.float32)


class Starts(Counter):
    """Observes a number drawn at reset, so that seeds can be told apart."""

    def _observe(self):
        if self.time == 0:
            self.number = self.np_random.random()
        return np.array([self.number], np.float32)


class Unsteady(Counter):
    """Observes a number that no seed decides."""

    numbers = iter(range(10**6))

    def _observe(self):
        return np.array([next(self.numbers)], np.float32)


class Camera(Counter):
    """Observes a picture whose pixels are its step number."""

    observation_space = spaces.Box(0, 255, (12, 10, 3), np.uint8)

    def _observe(self):
        return np.full((12, 10, 3), self.time, np.uint8)


class Picture(Counter):
    """Observes a picture of any kind: its pixels are numbered, plus its step number."""

    def __init__(self, shape=(12, 10, 3), high=255, dtype="uint8", made=None, start=0):
        super().__init__()
        self.observation_space = spaces.Box(0, high, tuple(shape), np.dtype(dtype))
        self.made, self.start = np.dtype(made or dtype), start

    def _observe(self):
        shape, high = self.observation_space.shape, int(self.observation_space.high.flat[0])
        numbers = np.arange(np.prod(shape)).reshape(shape) % (high + 1) + self.start
        return numbers.astype(self.made)


class Late(Counter):
    """From its third step on it returns something else than it declares."""

    def __init__(self, fault="shape"):
        super().__init__()
        self.fault = fault

    def step(self, action):
        observation, reward, *ends, info = super().step(action)
        faults = {
            "shape": (np.zeros(2, np.float32), reward, *ends, info),
            "complex": (np.zeros(1, complex), reward, *ends, info),
            "none": (None, reward, *ends, info),
            "reward": (observation, None, *ends, info),
            "old": (observation, reward, ends[0], info),
            "mask": (observation, reward, *ends, {"action_mask": np.ones(2, np.int8)}),
        }
        return faults[self.fault] if self.time >= 3 else (observation, reward, *ends, info)


class OldReset(Counter):
    def reset(self):
        self.time = 0
        return self._observe()


class Infos(Counter):
    """Its info has arrays of changing lengths and types."""

    def step(self, action):
        *answer, _ = super().step(action)
        return *answer, {"legal": np.arange(self.time % 3), "kind": [1, "a", None][self.time % 3]}


class NoMode(Counter):
    """Declares that it draws, but takes no argument for it."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 as Gymnasium has it


class Parts(Counter):
    """Observes parts of every kind, in a dictionary or a tuple."""

    def __init__(self, kind="dict"):
        super().__init__()
        inner = spaces.Dict(b=spaces.Discrete(3, start=4), a=spaces.Box(0, 9, (), np.float64))
        parts = {"z": spaces.MultiBinary(2), "inner": inner, "m": spaces.MultiDiscrete([2, 3])}
        self.kind = kind
        self.observation_space = (
            spaces.Dict(parts) if kind == "dict" else spaces.Tuple(parts.values())
        )

    def _observe(self):
        inner = {"a": float(self.time), "b": 4 + self.time % 3}
        parts = {"z": np.array([0, 1], np.int8), "inner": inner, "m": np.array([1, 2])}
        return parts if self.kind == "dict" else tuple(parts.values())


class ImageAndNumber(Counter):
    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (12, 10, 3), np.uint8), "x": spaces.Box(0, 9, (1,))}
    )

    def _observe(self):
        return {"image": np.zeros((12, 10, 3), np.uint8), "x": np.ones(1, np.float32)}


class Code(Counter):
    """Observes its step number as a category."""

    observation_space = spaces.Discrete(LENGTH + 1)

    def _observe(self):
        return self.time


class Table(Counter):
    """Observes a table of numbers that is no picture."""

    observation_space = spaces.Box(-1, 9, (2, 3), np.float64)

    def _observe(self):
        return np.full((2, 3), self.time, np.float64)


class Steering(Counter):
    """Observes the action that it was given, an array of two rows, and refuses any other."""

    observation_space = spaces.Box(-9, 9, (4,), np.float64)
    action_space = spaces.Box(
        np.array([[-1, 0], [2, -3]]), np.array([[1, 0.3], [5, -2.7]]), (2, 2), np.float64
    )

    def reset(self, *, seed=None, options=None):
        self.given = np.zeros((2, 2))
        return super().reset(seed=seed)

    def step(self, action):
        assert isinstance(action, np.ndarray)
        assert action.dtype == self.action_space.dtype
        self.given = action
        return super().step(action)

    def _observe(self):
        return np.array(self.given, np.float64).reshape(4)


class Missing(Counter):
    """Needs a package that is not there, as some of Gymnasium's games."""

    def __init__(self):
        raise gymnasium.error.DependencyNotInstalled("Tools are not installed, run `pip install x`")


class Masked(Counter):
    """Has a mask, but continuous actions."""

    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.ones(2, np.int8)}


class Dial(Counter):
    """A single number without axes."""

    action_space = spaces.Box(-2, 2, (), np.float32)

    def step(self, action):
        assert isinstance(action, np.ndarray)
        return super().step(action)


class Broken(Counter):
    """Breaks at a step of its own, counted over all episodes."""

    def __init__(self, lasts=0):
        super().__init__()
        self.lasts = lasts

    def step(self, action):
        if self.lasts == 0:
            raise ZeroDivisionError("fault in the user's own code")
        self.lasts -= 1
        return super().step(action)


class Hanging(Counter):
    """Never comes back from its second step."""

    def step(self, action):
        if self.time == 1:
            time.sleep(1_000)
        return super().step(action)


class Cue(gymnasium.Env):
    """Shows which of three actions is worth 1 now, in turn from a random first one, and the time.

    After LENGTH steps it ends: the best return is LENGTH.
    """

    observation_space = spaces.Box(0, 1, (4,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.right = 0, self.np_random.integers(3)
        return self._observe(), {}

    def step(self, action):
        reward = float(action == self.right)
        self.time, self.right = self.time + 1, (self.right + 1) % 3
        return self._observe(), reward, self.time == LENGTH, False, {}

    def _observe(self):
        return np.array([*np.eye(3)[self.right], self.time / LENGTH], np.float32)


class Barred(Cue):
    """As Cue, with a fourth action; it and one of the others are forbidden, and raise."""

    action_space = spaces.Discrete(4, start=2)

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": self._mask()}

    def step(self, action):
        assert self._mask()[action - 2], f"illegal action {action}"
        observation, *rest, _ = super().step(action - 2)
        return observation, *rest, {} if rest[1] else {"action_mask": self._mask()}

    def _mask(self):
        mask = np.array([1, 1, 1, 0], np.int8)
        mask[(self.right + 1) % 3] = 0
        return mask


class Drawn(Counter):
    """Draws a picture if asked."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 as Gymnasium has it

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.full((8, 9, 3), self.time, np.uint8)


class Aim(gymnasium.Env):
    """Pays 1, less the mean distance of the action from the observation, in each of five steps."""

    def __init__(self, numbers=2):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (numbers,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2, 2, (numbers,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        reward = 1 - np.abs(action / 2 - self.seen).mean()
        self.time += 1
        return self._observe(), float(reward), self.time == 5, False, {}

    def _observe(self):
        self.seen = self.np_random.uniform(-0.8, 0.8, self.observation_space.shape)
        return self.seen.astype(np.float32)


for _class in (
    Counter, Starts, Unsteady, Camera, Picture, Code, Table, Steering, Broken, Hanging, Cue, Drawn,
    Barred, Late, OldReset, Infos, NoMode, Parts, ImageAndNumber, Dial, Missing,
    Masked,
):  # fmt: skip
    gymnasium.register(f"Toy{_class.__name__}-v0", _class)
for _ending in ("truncated", "both"):
    gymnasium.register(f"Toy{_ending.title()}-v0", Counter, kwargs={"ending": _ending})
gymnasium.register("ToyWearing-v0", Broken, kwargs={"lasts": 15})
for _fault in ("shape", "complex", "none", "reward", "old", "mask"):
    gymnasium.register(f"ToyLate{_fault.title()}-v0", Late, kwargs={"fault": _fault})
gymnasium.register("ToyAim-v0", Aim)
gymnasium.register("ToyAimLine-v0", Aim, kwargs={"numbers": 1})
gymnasium.register("ToyTuple-v0", Parts, kwargs={"kind": "tuple"})
for _name, _given in {
    "First": {"shape": (3, 64, 48)},
    "ManyFirst": {"shape": (12, 84, 84)},
    "SmallFirst": {"shape": (4, 12, 12)},
    "Stack": {"shape": (4, 12, 12, 3)},
    "StackFirst": {"shape": (2, 3, 20, 24)},
    "Float255": {"dtype": "float32"},
    "Unit": {"high": 1, "dtype": "float32"},
    "Board": {"shape": (3, 7, 7), "high": 1, "dtype": "int8"},
    "Wraps": {"high": 1, "dtype": "float32", "start": 200},
    "Casts": {"made": "float64"},
    "Integers": {"made": "int64"},
    "TooLarge": {"made": "int64", "start": 200},
}.items():
    gymnasium.register(f"ToyPicture{_name}-v0", Picture, kwargs=_given)
