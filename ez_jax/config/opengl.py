"""OpenGL for the images of MuJoCo's games.

envpool's MuJoCo looks for the system's EGL when it draws, and ends the process if it does not find
one that was loaded before envpool. So EGL is loaded first, and one image is drawn in a process of
its own before any is drawn here.
"""

import ctypes
import functools
import os
import subprocess
import sys

_LIBRARY = "libEGL.so.1"
_INSTALL = "install a GPU's driver, or Mesa (Debian: apt-get install libegl1 libgl1-mesa-dri)"
_ONE_IMAGE = """
import ez_jax.config.opengl as opengl
opengl.load()
import envpool
env = envpool.make_gymnasium("PendulumSwingup-v1", render_mode="rgb_array")
env.reset()
env.render()
"""


@functools.cache
def load() -> str:
    """Load EGL, before envpool is imported; returns why MuJoCo cannot draw, or nothing."""
    if not sys.platform.startswith("linux"):
        return ""
    if "envpool" in sys.modules:
        return (
            "envpool was imported before OpenGL was loaded: import ez_jax and find the game first"
        )
    try:
        ctypes.CDLL(_LIBRARY, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return f"MuJoCo draws with {_LIBRARY}, which is not there: {_INSTALL}"
    return ""


def without_display() -> None:
    """Let Gymnasium's MuJoCo draw without a display, unless MUJOCO_GL says how.

    Otherwise it asks for a window, and its second attempt ends the process.
    """
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("MUJOCO_GL", "egl")


@functools.cache
def missing() -> str:
    """Why MuJoCo cannot draw here, in a sentence; empty if it can. Takes two seconds once."""
    if missing := load():
        return missing
    command = [sys.executable, "-c", _ONE_IMAGE]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return ""
    said = (tried.stderr or tried.stdout).strip().splitlines() or ["without a word"]
    return f"MuJoCo cannot draw with this machine's OpenGL ({said[-1].strip()}): {_INSTALL}"
