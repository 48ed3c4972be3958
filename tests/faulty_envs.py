"""Environments with one fault each, and what fixes some; importing this registers them."""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FilterObservation, FlattenObservation, TransformAction


class Walk(gymnasium.Env):
    """Nothing wrong: a place on a line, steps to the left or right, a prize at either end."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 as Gymnasium has it
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(-2, 3))
        self.prize = float(self.np_random.uniform(0.5, 1))
        return self._observe(), {}

    def step(self, action):
        self.place += 1 if action else -1
        is_over = abs(self.place) == 4
        return self._observe(), self.prize * is_over, is_over, False, {}

    def render(self):
        return np.full((9, 9, 3), 100 + self.place, np.uint8)

    def _observe(self):
        return np.array([self.place / 4, self.prize], np.float32)


class NotANumber(Walk):
    def _observe(self):
        return super()._observe() if self.place else np.array([np.nan, 0], np.float32)


class InfiniteReward(Walk):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, np.inf if rest[0] else 0.0, *rest


class Blind(Walk):
    def _observe(self):
        return np.zeros(2, np.float32)


class Deaf(Walk):
    def step(self, action):
        return super().step(self.np_random.integers(2))


class Unseeded(Walk):
    rng = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.prize = float(self.rng.uniform(0.5, 1))
        return self._observe(), {}


class Leaking(Walk):
    """The first game is worth the most: what it counts is never put back."""

    games = 0

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.games += 1
        self.prize /= self.games
        return self._observe(), info


class Stuck(Walk):
    """A game that is over stays over."""

    place = 0

    def reset(self, *, seed=None, options=None):
        gymnasium.Env.reset(self, seed=seed)
        self.prize = 1.0
        return self._observe(), {}

    def step(self, action):
        if abs(self.place) == 4:
            return self._observe(), 1.0, True, False, {}
        return super().step(action)


class Endless(Walk):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        self.place = max(-3, min(3, self.place))
        return observation, reward, False, truncated, info


class Rich(Walk):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward * 1e6, *rest


class Poor(Walk):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward * 1e-3, *rest


class Unpaid(Walk):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, 0.0, *rest


class Level(Walk):
    """Every game of it scores 1 after one step."""

    def step(self, action):
        return super().step(action)[0], 1.0, True, False, {}


class OldReset(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class WrongShape(Walk):
    def _observe(self):
        return np.zeros((3,), np.float32)


class OutOfBounds(Walk):
    def _observe(self):
        return 1_000 * super()._observe()


class Codes(Walk):
    """A picture of codes that are nearly black as pixels."""

    observation_space = spaces.Box(0, 255, (5, 5, 1), np.uint8)

    def _observe(self):
        return np.full((5, 5, 1), self.place + 5, np.uint8)


class FloatPicture(Walk):
    observation_space = spaces.Box(0, 255, (5, 5, 3), np.float32)

    def _observe(self):
        return np.full((5, 5, 3), self.place + 5, np.float32)


class GreyPicture(Walk):
    """Draws without colour."""

    def render(self):
        return np.zeros((9, 9), np.uint8)


class SamePicture(Walk):
    def render(self):
        return np.zeros((9, 9, 3), np.uint8)


class Lonely(Walk):
    action_space = spaces.Discrete(1)


class Crashing(Walk):
    def step(self, action):
        raise ZeroDivisionError("fault in the user's own code")


class NeedsArgument(Walk):
    def __init__(self, level, render_mode=None):
        super().__init__(render_mode)


class Sulking(Walk):
    """Refuses a step after the end."""

    def step(self, action):
        if abs(self.place) == 4:
            raise RuntimeError("reset me")
        return super().step(action)


class Throttle(Walk):
    """Continuous actions."""

    action_space = spaces.Box(np.array([[0.5], [-3]]), np.array([[2.5], [9]]), (2, 1), np.float64)

    middle = 1.5

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step(int(action[0, 0] > self.middle))


class Unbounded(Throttle):
    middle = 0
    action_space = spaces.Box(-np.inf, np.inf, (2, 1), np.float64)


class Notches(Throttle):
    middle = 0
    action_space = spaces.Box(-1, 1, (2, 1), np.int8)


class Buttons(Walk):
    action_space = spaces.MultiDiscrete([2, 3])

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step(int(action[0]))


class Switches(Walk):
    action_space = spaces.MultiBinary(2)

    def step(self, action):
        return super().step(int(action[0]))


class Pair(Walk):
    action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)])

    def step(self, action):
        return super().step(int(action[0]))


class Parts(Walk):
    observation_space = spaces.Dict(
        {"place": spaces.Discrete(9), "prize": spaces.Box(0, 1, (), np.float32)}
    )

    def _observe(self):
        return {"place": self.place + 4, "prize": np.array(self.prize, np.float32)}


class WithImage(Walk):
    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (5, 5, 3), np.uint8), "prize": spaces.Discrete(2)}
    )

    def _observe(self):
        return {"image": np.full((5, 5, 3), 99 + 9 * self.place, np.uint8), "prize": 1}


class OldStep(Walk):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class Sharing(Walk):
    """All games are at the same place: it belongs to the class."""

    def reset(self, *, seed=None, options=None):
        returned = super().reset(seed=seed)
        Sharing.shared = self.place
        return returned

    def step(self, action):
        self.place = Sharing.shared
        returned = super().step(action)
        Sharing.shared = self.place
        return returned


class Growing(Walk):
    observation_space = spaces.Sequence(spaces.Discrete(9))

    def _observe(self):
        return (self.place + 4,) * (self.place + 5)


class Planes(Walk):
    """Pictures with the channels first."""

    observation_space = spaces.Box(0, 255, (3, 20, 24), np.uint8)

    def _observe(self):
        return np.full((3, 20, 24), 99 + 9 * self.place, np.uint8)


class Voxels(Walk):
    """An array of bytes that is no stack of pictures."""

    observation_space = spaces.Box(0, 255, (5, 5, 5, 2), np.uint8)

    def _observe(self):
        return np.full((5, 5, 5, 2), 99 + 9 * self.place, np.uint8)


def fixed(name):
    """The environment in the wrapper that the doctor names."""
    table = [np.array([[-1], [0]], np.int8), np.array([[1], [0]], np.int8)]
    wrappers = {
        "Notches": lambda e: TransformAction(e, lambda i: table[i], spaces.Discrete(2)),
        "Unbounded": lambda e: TransformAction(e, lambda a: a, spaces.Box(-1, 1, (2, 1))),
        "Buttons": lambda e: TransformAction(
            e, lambda i: np.array(np.unravel_index(i, (2, 3))), spaces.Discrete(6)
        ),
        "Switches": lambda e: TransformAction(
            e, lambda i: np.array(np.unravel_index(i, (2, 2))), spaces.Discrete(4)
        ),
        "Voxels": FlattenObservation,
        "WithImage": lambda e: FilterObservation(e, ["image"]),
    }
    return lambda: wrappers[name](globals()[name]())


ALL = (
    Walk, NotANumber, InfiniteReward, Blind, Deaf, Unseeded, Leaking, Stuck, Endless, Rich, Poor,
    Unpaid, Level, OldReset, WrongShape, OutOfBounds, Codes, FloatPicture, GreyPicture,
    SamePicture, Lonely, Crashing, NeedsArgument, Sulking, Throttle, Unbounded, Notches, Buttons,
    Switches, Pair, Parts, WithImage, Growing, Planes, Voxels, OldStep, Sharing,
)  # fmt: skip
FIXED = ("Unbounded", "Notches", "Buttons", "Switches", "Voxels", "WithImage")
for _class in ALL:
    gymnasium.register(f"{_class.__name__}-v0", _class)
for _name in FIXED:
    gymnasium.register(f"Fixed{_name}-v0", fixed(_name))
