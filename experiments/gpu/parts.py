"""The programs of a run, compiled as a run compiles them, and how long each one takes."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import programs as shapes
from experiments.bench.parts import Setting
from experiments.bench.programs import first_step
from experiments.gpu.rows import Rows
from experiments.gpu.settings import PARTS, Sizes, setting_of
from experiments.gpu.timing import compiled, timed
from experiments.gpu.traces import by_kernel
from ez_jax.agent.frames import init_frames
from ez_jax.agent.learner import no_metrics
from ez_jax.agent.replay.ring import ring_rows
from ez_jax.structs import NEVER
from ez_jax.system import devices
from ez_jax.training.planning.needs import update_flops

Call = Callable[[], Any]
STALE = 1 / 80  # share of the rows that have never been searched, as in a run under way
LEAST = 12  # seconds without which nothing more is measured
# The first is what is trained: whatever happens, its programs are compiled and kept.
WAVES = (("fast", "published"), ("float32", "small", "fast gumbel"))
WAVE = 100  # seconds without which no further wave begins


def measure_parts(rows: Rows, sizes: Sizes) -> None:
    """Milliseconds of acting, targets and learning of all settings, and the kernels of `fast`."""
    with jax.set_mesh(devices.make_mesh(jax.local_devices())):
        for wave in WAVES:
            names = [name for name in wave if not rows.has("update", setting=name)]
            if wave is not WAVES[0] and rows.left < WAVE:
                rows.add("left out", settings=names, seconds_left=rows.left)
                continue
            lowered: dict[Any, Any] = {}
            for name in names:
                lowered |= rows.guarded(f"trace {name}", trace, name, sizes) or {}
            jobs = {key: program.compile for key, program in lowered.items()}
            done = compiled(rows, jobs)
            for name in names:
                if rows.left > LEAST:
                    found = {part: done.get((name, part)) for part in PARTS[name]}
                    rows.guarded(f"measure {name}", measure, rows, name, sizes, found)


def trace(name: str, sizes: Sizes) -> dict[tuple[str, str], Any]:
    """Programs with the shapes and places that a run has, so that it finds them in the cache."""
    setting = setting_of(name, sizes)
    rows = ring_rows(setting.config, setting.spec)
    everywhere = devices.everywhere()
    whole = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)  # noqa: E731
    found = {}
    for part, function, args in shapes.programs(setting, rows=rows):
        if part in PARTS[name]:
            # What a program returns on one device lies whole, whatever it was before.
            args = args if part == "acting" else jax.tree.map(whole, args)
            found[name, part] = function.lower(*args)
    return found


def measure(rows: Rows, name: str, sizes: Sizes, programs: dict[str, Any]) -> None:
    """Time the programs of a setting, which hand their state on as a run does."""
    setting = setting_of(name, sizes)
    calls = {part: call for part, call in _calls(setting, programs).items() if programs[part]}
    times: dict[str, dict[str, float]] = {}
    for part, call in calls.items():
        found = rows.guarded(f"{name}, {part}", timed, call, 20)
        if found:
            times[part] = found
            memory = programs[part].memory_analysis().temp_size_in_bytes
            rows.add("part", setting=name, part=part, temporary_mbyte=memory / 1e6, **found)
    if len(times) == len(PARTS[name]):  # else the next call measures it again
        rows.add("update", setting=name, **_summary(setting, times))
    if name == WAVES[0][0]:
        for part in times:
            found = rows.guarded(f"kernels of {part}", by_kernel, calls[part], Path("/tmp"))
            if found:
                rows.add("kernels", setting=name, part=part, **found)


def _summary(setting: Setting, times: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What follows for an update and an agent step."""
    config = setting.config
    acting, targets, learning = (
        times[part]["queued_ms"] if part in times else None
        for part in ("acting", "targets", "learning")
    )
    found: dict[str, Any] = {
        "tflop_per_update": update_flops(config, setting.model) / 1e12,
        "acting_ms_per_step": acting and times["acting"]["ms"] / config.actor.num_envs,
        "targets_ms_per_update": targets and targets / config.reanalyse.updates_per_search,
        "learning_ms": learning,
    }
    if acting and targets and learning:
        update = found["targets_ms_per_update"] + learning
        whole = config.total_updates * update
        whole += config.total_agent_steps * found["acting_ms_per_step"]
        found |= {"update_ms": update, "minutes_of_the_run": whole / 60e3}
    return found


def _calls(setting: Setting, programs: dict[str, Any]) -> dict[str, Call]:
    """One call of each program, whose state goes from one to the next."""
    config, spec = setting.config, setting.spec
    place = _whole
    replay = setting.replay(ring_rows(config, spec))
    is_new = np.random.default_rng(1).random(replay.priority.shape) < STALE
    searched = jnp.where(jnp.asarray(is_new), NEVER, replay.rows.searched)
    state = {
        "train": place(setting.train()),
        "replay": place(replay.replace(rows=replay.rows.replace(searched=searched))),
        "sums": place(no_metrics(config)),
        "frames": place(init_frames(spec, config.actor.num_envs)),
        "group": None,
    }
    del replay
    first, zero, updates = place(first_step(setting)), place(jnp.int32(0)), place(jnp.int32(1))
    numbers, keys = place((jnp.float32(1.0), jnp.asarray(False))), _keys()

    def act() -> Any:
        action, state["replay"], state["sums"], state["frames"] = programs["acting"](
            state["train"].variables, state["replay"], state["sums"], state["frames"],
            first, next(keys), *numbers, updates,
        )  # fmt: skip
        return action

    def prepare() -> Any:
        state["group"], state["replay"], state["sums"] = programs["targets"](
            state["train"].target, state["replay"], state["sums"], next(keys), updates
        )
        return state["group"].batch.index

    def learn() -> Any:
        state["train"], state["replay"], state["sums"] = programs["learning"](
            state["train"], state["replay"], state["sums"], next(keys), state["group"], zero
        )
        return state["sums"]

    calls = {"acting": act, "targets": prepare, "learning": learn}
    return {part: calls[part] for part in programs}


def _keys() -> Any:
    return itertools.cycle([_whole(jax.random.key(i)) for i in range(100)])


def _whole(tree: Any) -> Any:
    whole = functools.partial(jax.tree.map, lambda _: devices.WHOLE)
    return jax.device_put(tree, devices.shardings(whole(tree)))
