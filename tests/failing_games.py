"""Games that fail on the way, each in one manner; importing this registers them."""

import os

import gymnasium
import numpy as np
from gymnasium import spaces

SOUND = 30  # calls of step in this process after which they fail
EVALUATED = 70_000  # eval.seed where a game fails in evaluations alone


class Line(gymnasium.Env):
    """Nothing wrong: a walk of at most 20 steps, paid at the right end."""

    observation_space = spaces.Box(0, 8, (1,), np.float32)
    action_space = spaces.Discrete(2)
    calls = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = int(self.np_random.integers(2, 7)), 0
        return self.observe(), {}

    def step(self, action):
        type(self).calls += 1
        self.t += 1
        self.x += 1 if action else -1
        if self.calls > SOUND:
            self.fail()
        is_over = self.x <= 0 or self.x >= 8
        return self.observe(), self.reward(is_over), self.is_over(is_over), self.t >= 20, {}

    def is_over(self, is_over):
        return is_over

    def fail(self):
        pass

    def observe(self):
        return np.array([self.x], np.float32)

    def reward(self, is_over):
        return float(is_over and self.x >= 8)


def paying(value):
    return lambda self, is_over: value if self.calls > SOUND else 0.0


def showing(value):
    return lambda self: np.array([value if self.calls > SOUND else self.x], np.float32)


def begun_by_an_evaluation(self, *, seed=None, **how):
    self.is_evaluated = EVALUATED <= (seed or 0) < EVALUATED + 100 or vars(self).get("is_evaluated")
    return Line.reset(self, seed=seed, **how)


def breaking_there(self, action):
    if self.is_evaluated:
        raise ZeroDivisionError("the game's own")
    return Line.step(self, action)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


class Panic(BaseException):
    """What libraries written in Rust raise (pyo3), and no Exception."""


CASES = {
    "NanReward": {"reward": paying(float("nan"))},
    "MinusInfinity": {"reward": paying(-float("inf"))},
    "Overflow": {"reward": paying(1e39)},
    "Huge": {"reward": paying(3e38)},
    "NoReward": {"reward": paying(None)},
    "TextReward": {"reward": paying("1.0")},
    "TwoRewards": {"reward": paying(np.zeros(2))},
    "TextEnd": {"is_over": lambda self, is_over: "False"},
    "NoEnd": {"is_over": lambda self, is_over: None},
    "TwoEnds": {"is_over": lambda self, is_over: np.array([is_over, is_over])},
    "HalfAnEnd": {"is_over": lambda self, is_over: 0.5},
    "ArraysOfOne": {
        "reward": lambda self, is_over: np.array([is_over], np.float64),
        "is_over": lambda self, is_over: np.array([is_over]),
    },
    "NanSeen": {"observe": showing(np.nan)},
    "InfinitySeen": {"observe": showing(np.inf)},
    "Quits": {"fail": raising(SystemExit())},
    "QuitsWithWords": {"fail": raising(SystemExit("window closed"))},
    "Leaves": {"fail": lambda self: os._exit(0)},
    "QuitsInReset": {
        "reset": lambda self, **how: self.fail() if self.calls > SOUND else Line.reset(self, **how),
        "fail": raising(SystemExit(3)),
    },
    "QuitsWhenMade": {"__init__": raising(SystemExit())},
    "Interrupts": {"fail": raising(KeyboardInterrupt())},
    "Closes": {"fail": raising(GeneratorExit())},
    "Panics": {"fail": raising(Panic("no row 7"))},
    "Breaks": {"fail": raising(ZeroDivisionError("the game's own"))},
    "BreaksInEvaluation": {"reset": begun_by_an_evaluation, "step": breaking_there},
    "Sound": {},
}
for _name, _methods in CASES.items():
    globals()[_name] = type(_name, (Line,), {"calls": 0, **_methods})
    gymnasium.register(f"{_name}-v0", globals()[_name])
