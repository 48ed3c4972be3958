"""Games that cannot be drawn, or are drawn oddly; importing this registers them."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from failing_games import Line


class Drawn(Line):
    """As it should be; the others differ in what `render` does."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        return np.full((33, 47, 3), 20 * self.x, np.uint8)


class NoMode(Line):
    """Declares a mode, but takes no argument for it."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}


class NoFps(Drawn):
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}


def drawing(picture):
    return lambda self: picture


def growing(self):
    return np.zeros((33 + self.t, 47, 3), np.uint8)


def breaking(self):
    raise OSError("no display")


def leaving(self):
    raise SystemExit("window closed")


UNDRAWN = {  # what render() does, and what is said of it
    "Undrawn": (drawing(None), "returned NoneType"),
    "Grey": (drawing(np.zeros((9, 9), np.uint8)), "returned uint8[9, 9]"),
    "Floats": (drawing(np.zeros((9, 9, 3))), "returned float64[9, 9, 3]"),
    "Transparent": (drawing(np.zeros((9, 9, 4), np.uint8)), "returned uint8[9, 9, 4]"),
    "Lists": (drawing([[0]]), "returned list"),
    "Empty": (drawing(np.zeros((0, 0, 3), np.uint8)), "returned uint8[0, 0, 3]"),
    "Growing": (growing, "images of different sizes"),
    "Breaking": (breaking, "OSError: no display"),
    "Leaving": (leaving, "ended the process (exit code window closed)"),
}
PLAIN = {"NoMode": "no render mode 'rgb_array'", "Line": "no render mode 'rgb_array'"}
SAID = {name: said for name, (_, said) in UNDRAWN.items()} | PLAIN
TINY = {"OnePixel": drawing(np.zeros((1, 1, 3), np.uint8))}

for _name, (_render, _) in UNDRAWN.items():
    globals()[_name] = type(_name, (Drawn,), {"render": _render})
for _name, _render in TINY.items():
    globals()[_name] = type(_name, (Drawn,), {"render": _render})
for _name in ("Drawn", "NoFps", *SAID, *TINY):
    gymnasium.register(f"Odd{_name}-v0", globals()[_name])
