"""The machine itself: its ceilings, what a kernel and a loop cost, and which search is quicker."""

import functools
import itertools
import subprocess
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.gpu.rows import Rows
from experiments.gpu.settings import Sizes, setting_of
from experiments.gpu.timing import compiled, timed
from ez_jax.agent.search import make_search
from ez_jax.config import override
from ez_jax.system import machine

# How XLA is told to make CUDA graphs, by name.
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,WHILE,CONDITIONAL"
FLAGS: dict[str, dict[str, str]] = {
    "default": {},
    "no graphs": {"xla_gpu_enable_command_buffer": ""},
    "loops in graphs": {"xla_gpu_enable_command_buffer": GRAPHS},
}
GAIN = 1.05  # a set of flags has to be so much quicker than the default to be used
LOOK = "nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,power.limit --format=csv"


def probe(rows: Rows, sizes: Sizes) -> str:
    """Measure all of it; returns the XLA flags that what follows should have."""
    rows.add(
        "machine",
        device=machine.device_name(),
        versions=machine.versions(),
        facts={name: machine.facts()[name] for name in ("processors", "memory", "devices")},
        nvidia_smi=subprocess.run(LOOK, shell=True, capture_output=True, text=True).stdout,
    )
    rows.guarded("ceilings", ceilings, rows, sizes)
    rows.guarded("loops", loops, rows, sizes)
    chosen = rows.guarded("searches", searches, rows, sizes) or "default"
    rows.add("chosen flags", flags=chosen)
    return "".join(f"--{name}={value}" for name, value in FLAGS[chosen].items())


def ceilings(rows: Rows, sizes: Sizes) -> None:
    """A large matrix product, a large copy, and the convolution of the search."""
    side = sizes.matrix
    pair = [jax.random.normal(jax.random.key(i), (side, side)) for i in range(2)]
    for dtype in (jnp.bfloat16, jnp.float32):
        product, factors = jax.jit(jnp.matmul), [x.astype(dtype) for x in pair]
        found = timed(functools.partial(product, *factors))
        tflops = 2e-9 * side**3 / found["queued_ms"]
        rows.add("ceiling", what=f"product {jnp.dtype(dtype).name}", tflops=tflops, **found)
    long = jax.random.normal(jax.random.key(0), (sizes.copied,))
    found = timed(functools.partial(jax.jit(lambda x: x + 1), long))
    rows.add("ceiling", what="copy", gbyte_per_s=8e-6 * long.size / found["queued_ms"], **found)


def loops(rows: Rows, sizes: Sizes) -> None:
    """Microseconds of a turn of small kernels, in loops of known and of unknown length."""
    start, eye, trips = jnp.ones((64, 64)), jnp.eye(64), sizes.trips

    def body(kernels: int, x: jax.Array) -> jax.Array:
        for _ in range(kernels // 2):
            x = jnp.sort(x @ eye, axis=0)  # two kernels: they cannot be fused
        return x

    def known(kernels: int, x: jax.Array, n: int) -> jax.Array:
        del n
        return jax.lax.fori_loop(0, trips, lambda _, x: body(kernels, x), x)

    def unknown(kernels: int, x: jax.Array, n: int) -> jax.Array:
        turn = lambda state: (state[0] + 1, body(kernels, state[1]))  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < n, turn, (0, x))[1]

    for loop, kernels, flags in itertools.product((known, unknown), (2, 16), _flags()):
        lowered = jax.jit(functools.partial(loop, kernels)).lower(start, trips)
        program = rows.guarded(f"loop, {flags}", _compile(lowered, flags))
        if program is not None:
            found = timed(functools.partial(program, start, trips), 5, seconds=0.5)
            rows.add("loop", length=loop.__name__, kernels=kernels, flags=flags,
                     us_per_turn=1e3 * found["queued_ms"] / trips)  # fmt: skip


def searches(rows: Rows, sizes: Sizes) -> str:
    """The published search in both trees and under all flags; returns the best flags."""
    jobs, calls = {}, {}
    for tree, batch in itertools.product(("flat", "mctx"), sizes.roots):
        lowered, args = _search(tree, batch, sizes)
        for flags in _flags() if tree == "flat" else ("default",):
            jobs[tree, batch, flags] = _compile(lowered, flags)
            calls[tree, batch, flags] = args
    taken: dict[str, float] = {}
    actions: dict[int, Any] = {}
    for key, program in compiled(rows, jobs).items():
        tree, batch, flags = key
        if program is None:
            continue
        call = functools.partial(program, *calls[key])
        found = rows.guarded(f"search {key}", timed, call)
        if not found:
            continue
        action = jax.device_get(call()[0])
        same = float((action == actions.setdefault(batch, action)).mean())
        rows.add("search", tree=tree, batch=batch, flags=flags, same_actions=same, **found)
        if tree == "flat":
            taken[flags] = taken.get(flags, 0.0) + found["queued_ms"]
    weight = lambda name: taken[name] * (1.0 if name == "default" else GAIN)  # noqa: E731
    return min(taken, key=weight, default="default")


def _search(tree: str, batch: int, sizes: Sizes) -> tuple[Any, tuple[Any, ...]]:
    setting = setting_of("published", sizes)
    config, model = override(setting.config, {"search.tree": tree}), setting.model
    search = make_search(config.search, model, discount=config.discount, explore=True)
    variables = jax.jit(model.init)(jax.random.key(0))
    root = jax.jit(model.root)(variables, setting.frames(batch))

    def run(variables: Any, root: Any, key: Any) -> Any:
        found = search(variables, root, key)
        return found.action, found.policy, found.value

    args = variables, root, jax.random.key(1)
    return jax.jit(run).lower(*args), args


def _flags() -> tuple[str, ...]:
    return tuple(FLAGS) if jax.default_backend() == "gpu" else ("default",)


def _compile(lowered: Any, flags: str) -> Callable[[], Any]:
    return lambda: lowered.compile(compiler_options=FLAGS[flags])
