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


class ChannelsFirst(Counter):
    observation_space = spaces.Box(0, 255, (3, 64, 64), np.uint8)


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
    action_space = spaces.Box(-1, 1, (1,), np.float32)


class Pair(Counter):
    observation_space = spaces.Dict({"left": spaces.Discrete(2), "right": spaces.Discrete(2)})


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


class Drawn(Counter):
    """Draws a picture if asked."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 as Gymnasium has it

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.full((8, 9, 3), self.time, np.uint8)


for _class in (
    Counter, Starts, Unsteady, Camera, ChannelsFirst, Code, Table, Steering, Pair, Broken, Hanging,
    Cue,
    Drawn,
):  # fmt: skip
    gymnasium.register(f"Toy{_class.__name__}-v0", _class)
for _ending in ("truncated", "both"):
    gymnasium.register(f"Toy{_ending.title()}-v0", Counter, kwargs={"ending": _ending})
gymnasium.register("ToyWearing-v0", Broken, kwargs={"lasts": 15})
