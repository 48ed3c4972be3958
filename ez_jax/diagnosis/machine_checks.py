"""Everything that a run relies on, each checked in seconds, with the fix if it fails."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from ez_jax.system import machine


@dataclasses.dataclass(frozen=True)
class Note:
    """A finding that works but deserves a hint."""

    remark: str
    hint: str  # one sentence


@dataclasses.dataclass(frozen=True)
class Check:
    """Something that has to work."""

    name: str
    claim: str  # what is true if it works
    # Raises if it fails; may return a text in place of the claim.
    run: Callable[[], str | Note | None]
    fix: Callable[[Exception], str]  # one sentence


def _convolution() -> None:
    """Compare a jitted convolution on the default device with NumPy loops."""
    import jax

    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    convolve = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(
            *(x, w, (1, 1), "VALID"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
    )
    expected = np.zeros((1, 4, 4, 4))
    for y, x in np.ndindex(4, 4):
        patch = image[0, y : y + 3, x : x + 3]
        expected[0, y, x] = np.sum(patch[..., None] * kernel, axis=(0, 1, 2))
    np.testing.assert_allclose(convolve(image, kernel), expected, rtol=1e-4, atol=1e-4)


def _fix_device(error: Exception) -> str:
    del error
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and platforms != "cpu":
        return f"unset JAX_PLATFORMS: JAX cannot use the device of JAX_PLATFORMS={platforms}"
    extra = f'".[{machine.cuda_extra()}]"' if machine.nvidia_gpus() else "."
    return (
        f"reinstall JAX for this machine (pip install --upgrade -e {extra}); until then "
        "JAX_PLATFORMS=cpu computes on the CPU"
    )


def _with_device(fix: Callable[[Exception], str]) -> Callable[[Exception], str]:
    """The fix of a problem that is not only caused by JAX."""

    def fixed(error: Exception) -> str:
        try:
            _convolution()
        except Exception:  # noqa: BLE001 reported by its own check
            return "fix the convolution first: without JAX none of this can work"
        return fix(error)

    return fixed


def _atari() -> None:
    import envpool  # noqa: F401 without it, the game would only be unknown

    from ez_jax.config import EnvConfig
    from ez_jax.envs import make_env

    env = make_env("Pong", EnvConfig(backend="envpool"), num_envs=1, seed=0, training=True)
    try:
        env.reset()
        step = env.step(np.zeros(1, np.int32))
    finally:
        env.close()
    if step.observation.shape != (1, 96, 96, 3) or np.ptp(step.observation) == 0:
        raise AssertionError(f"not an image of a game: {step.observation.shape}")


def _fix_envpool(error: Exception) -> str:
    instead = 'Gymnasium environments work without it (game="gym:CartPole-v1")'
    if isinstance(error, ImportError) and not machine.installed("envpool"):
        return f"pip install envpool; {instead}"
    return (
        "reinstall envpool with the ROMs in it: pip install --force-reinstall --no-deps "
        f"envpool; {instead}"
    )


class _Bandit:
    """A stand-in for a model: an arm pays what the state says, once."""

    def dynamics(self, variables: Any, embedding: Any, action: Any) -> tuple[Any, Any]:
        del variables
        reward = embedding.state[np.arange(len(action)), action]
        return embedding.replace(state=0 * embedding.state), reward

    def predict(self, variables: Any, embedding: Any) -> tuple[Any, Any]:
        del variables
        return 0 * embedding.state, 0 * embedding.state[:, 0]


def _search() -> None:
    import jax
    import jax.numpy as jnp

    from ez_jax.agent.search import make_search
    from ez_jax.config import SearchConfig
    from ez_jax.structs import Embedding, Root

    config = SearchConfig(num_simulations=16)
    search = make_search(config, cast(Any, _Bandit()), discount=0.9, explore=False)
    pays = jnp.eye(4)[jnp.array([2, 0, 3])]
    nothing = jnp.zeros(len(pays))
    embedding = Embedding(
        state=pays,
        carry=(nothing[:, None], nothing[:, None]),
        value_prefix=nothing,
        step=nothing.astype(jnp.int32),
    )
    root = Root(embedding=embedding, policy_logits=0 * pays, value=nothing)
    found = jax.jit(search)({}, root, jax.random.key(0))
    np.testing.assert_array_equal(found.action, [2, 0, 3])


def _checkpoint() -> None:
    import jax.numpy as jnp

    from ez_jax.storage.checkpoint import Checkpointer

    tree = {"train": {"weights": jnp.arange(6.0).reshape(2, 3), "count": jnp.asarray(7)}}
    with tempfile.TemporaryDirectory() as folder, Checkpointer(folder) as checkpointer:
        checkpointer.save(1, tree, {"note": "doctor"})
        checkpointer.wait()
        restored = checkpointer.restore(1, tree)
    for name, array in tree["train"].items():
        np.testing.assert_array_equal(restored.state["train"][name], array)


def _fix_checkpoint(error: Exception) -> str:
    if isinstance(error, OSError):
        return _MEND_TEMPORARY
    return "pip install --upgrade orbax-checkpoint"


def _temporary() -> str:
    """Python looks for a folder once; libraries of every run ask for it."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(2**16))
        file.flush()
    return f"can be written in {tempfile.gettempdir()}"


_MEND_TEMPORARY = "make room in /tmp, or set TMPDIR to a folder that can be written"


def _video() -> None:
    from ez_jax.evaluation.video import write_video

    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "doctor.mp4", frames)
        if not path.stat().st_size:
            raise OSError(f"{path} is empty")


def _gpu() -> str | None:
    """Fail if a GPU is not used, unless the user wanted that."""
    gpus, platforms = machine.nvidia_gpus(), os.environ.get("JAX_PLATFORMS", "")
    if not gpus:
        return "there is none"
    import jax

    if jax.default_backend() != "cpu":
        return None
    if platforms == "cpu":
        return "not used, as JAX_PLATFORMS=cpu asks"
    raise RuntimeError(f"found {', '.join(gpus)}, but JAX sees only {jax.devices()}")


def _fix_gpu(error: Exception) -> str:
    del error
    plugins = [
        name for name in ("jax-cuda12-plugin", "jax-cuda13-plugin") if machine.installed(name)
    ]
    if plugins:
        return (
            f"{plugins[0]} is installed but did not start; JAX_PLATFORMS=cuda python -c "
            "'import jax; jax.devices()' says why"
        )
    return f'pip install -e ".[{machine.cuda_extra()}]"'


def _always(fix: str) -> Callable[[Exception], str]:
    return lambda error: fix


CHECKS = (
    Check("convolution", "equals NumPy's", _convolution, _fix_device),
    Check("NVIDIA GPU", "is used by JAX", _gpu, _with_device(_fix_gpu)),
    Check("Atari", "envpool plays a step of Pong", _atari, _with_device(_fix_envpool)),
    Check("temporary files", "can be written", _temporary, _always(_MEND_TEMPORARY)),
    Check(
        "search",
        "finds the paying arm",
        _search,
        _with_device(_always("install the tested versions: pip install -r requirements.txt")),
    ),
    Check("checkpoint", "reads back equal", _checkpoint, _with_device(_fix_checkpoint)),
    Check(
        "video",
        "is written by ffmpeg",
        _video,
        _always(
            "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg "
            "with libx264; only video=N needs it"
        ),
    ),
)
