r"""Your own game: a bird that falls unless it flaps, and approaching walls with a hole.

    python -m ez_jax.doctor env=experiments.own_game:Bird-v0
    python -m ez_jax.train game=experiments.own_game:Bird-v0 total_agent_steps=4000 eval.every=500 \
        network.support=14 network.vector_width=64 network.vector_blocks=1 targets.td_steps=20 \
        reanalyse.mode=buffer reanalyse.max_age=200 reanalyse.chunk=64

Random play lasts 11 steps; an episode is cut after 200.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

GRAVITY, FLAP, SPEED = 0.01, 0.06, 0.05  # per step; the sky is 1 high, walls are 1 apart
HOLE, THICK, PIXELS = 0.2, 0.15, 40
SKY, WALL, BIRD = (120, 180, 230), (60, 140, 70), (230, 180, 40)


class Bird(gymnasium.Env):
    """A point for every step in the air; the episode ends at a wall, the ground or the ceiling."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 as Gymnasium has it
    observation_space = spaces.Box(-1, 1, (4,), np.float32)  # height, speed, wall, its hole
    action_space = spaces.Discrete(2)  # fall, flap

    def __init__(self, render_mode=None):
        """`render_mode` is None or rgb_array."""
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        """The bird starts in the middle, the wall far away."""
        super().reset(seed=seed)
        self.height, self.velocity, self.wall = 0.5, 0.0, 1.0
        self.hole = self.np_random.uniform(0.25, 0.75)
        return self._observe(), {}

    def step(self, action):
        """Fall or flap, and approach the wall; behind it there is the next one."""
        self.velocity = FLAP if action else self.velocity - GRAVITY
        self.height += self.velocity
        self.wall -= SPEED
        if self.wall < -THICK:
            self.wall, self.hole = self.wall + 1, self.np_random.uniform(0.25, 0.75)
        is_hit = self.wall < 0 and abs(self.height - self.hole) > HOLE
        is_over = bool(is_hit or not 0 < self.height < 1)
        return self._observe(), 1.0, is_over, False, {}

    def render(self):
        """An image u8[PIXELS, PIXELS, 3], the bird at its left edge."""
        picture = np.full((PIXELS, PIXELS, 3), SKY, np.uint8)
        rows, columns = 1 - np.arange(PIXELS)[:, None] / PIXELS, np.arange(PIXELS) / PIXELS
        ahead = columns - 0.2 - self.wall
        picture[(ahead > 0) & (ahead < THICK) & (abs(rows - self.hole) > HOLE)] = WALL
        picture[(abs(columns - 0.2) < 0.04) & (abs(rows - self.height) < 0.04)] = BIRD
        return picture

    def _observe(self):
        seen = (self.height, 10 * self.velocity, self.wall, self.hole)
        return np.clip(seen, -1, 1).astype(np.float32)


gymnasium.register("Bird-v0", Bird, max_episode_steps=200)
