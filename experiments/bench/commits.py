"""The programs of a run at two commits: how much processor time they take now, and took before.

    git worktree add /tmp/before COMMIT
    python -m experiments.bench.commits before=/tmp/before game=CartPole

acting     one decision in all environments, with its search
targets    sampling for a group of updates, searching again, computing targets; all policies in the
           replay are too old, so reanalyse.mode=buffer searches every sampled one
learning   one update

Each commit runs in its own process, and the two take turns: some calls of one, then as many of the
other. Processor time of all threads is compared, because other work on the machine affects it less
than wall time. Prints a line of JSON for each program, with the median and quartiles of
after / before over all pairs.
after=DIR instead of this checkout; repeats=N pairs (20). Any key of the configuration that both
commits have may be set; new=network.center=false sets a key in the later one alone.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OWN_KEYS = {"before": "", "after": "", "new": "", "repeats": 20}
PROGRAMS = ("acting", "targets", "learning")
ROUND = 0.2  # seconds of calls in one round, at least one call
Row = dict[str, Any]


class Checkout:
    """A process with the code of one checkout, which makes calls when told to."""

    def __init__(self, root: Path, words: list[str]):
        """Start it; `words` are the keys of the configuration."""
        command = [sys.executable, "-P", __file__, "--serve", *words]
        self._process = subprocess.Popen(
            command, cwd=root, env=_environment(root), text=True, stdin=-1, stdout=-1
        )

    def call(self, program: str, times: int) -> Row:
        """Call a program so many times; processor milliseconds and wall milliseconds of one."""
        told, heard = self._process.stdin, self._process.stdout
        assert told is not None
        assert heard is not None
        told.write(f"{json.dumps([program, times])}\n")
        told.flush()
        for line in heard:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"the process of {self._process.args} has ended")

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}


def compared(before: Any, after: Any, repeats: int) -> Iterator[Row]:
    """A row for every program."""
    for program in PROGRAMS:
        both = before, after
        facts = [each.call(program, 1) for each in both]  # compiles
        milliseconds = max(each.call(program, 1)["cpu_ms"] for each in both)
        times = max(1, round(1e3 * ROUND / max(milliseconds, 1e-3)))
        pairs: list[tuple[float, float]] = []
        for i in range(repeats):
            order = both if i % 2 else both[::-1]
            took = {id(each): each.call(program, times)["cpu_ms"] for each in order}
            pairs.append((took[id(before)], took[id(after)]))
        yield {"case": program, **ratios(pairs), "calls": times, **_commits(facts)}


def ratios(pairs: list[tuple[float, float]]) -> Row:
    """What pairs of times, before and after, come to; `low` and `high` are quartiles."""
    each = [after / before for before, after in pairs]
    low, median, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
    least_before, least_after = (min(times) for times in zip(*pairs, strict=True))
    return {
        "before_ms": least_before,
        "after_ms": least_after,
        "of_least": least_after / least_before,
        "ratio": median,
        "low": low,
        "high": high,
        "pairs": len(pairs),
    }


def _commits(facts: list[Row]) -> Row:
    before, after = (row["commit"] for row in facts)
    return {"before": before, "after": after, "device": facts[1]["device"]}


# In a process of its own, with the code of either commit: only what both have is used.


def serve(words: list[str]) -> None:
    """Answer every line of stdin, a program and how often, with a line of JSON."""
    from experiments.bench.parts import make_setting
    from ez_jax.config import presets
    from ez_jax.storage.run_folder import provenance
    from ez_jax.system import compilation
    from ez_jax.terminal import arguments

    _, changes = arguments.read(words, {})
    compilation.configure_jax()
    game, preset = changes.pop("game"), changes.pop("preset", "")
    calls = _calls(make_setting(presets.make_config(game, preset, changes=changes), ()))
    facts = {name: provenance()[name] for name in ("commit", "device")}
    for line in sys.stdin:
        program, times = json.loads(line)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(times):
            calls[program]()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        row = {"cpu_ms": 1e3 * cpu / times, "wall_ms": 1e3 * wall / times, **facts}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


def _calls(setting: Any) -> dict[str, Callable[[], None]]:
    """Every program as a call that waits for its result, on a replay of noise."""
    import jax
    import jax.numpy as jnp

    from experiments.bench.programs import first_step, functions
    from ez_jax.agent.frames import init_frames
    from ez_jax.agent.learner import no_metrics
    from ez_jax.agent.replay import ring

    config, key = setting.config, jax.random.key(0)
    window = setting.spec.frame_stack + config.learner.unroll_steps + config.targets.td_steps
    size = max(2_000, 4 * config.learner.batch_size)
    act, prepare, learn = functions(setting)
    train, step = setting.train(), first_step(setting)
    replay = setting.replay(ring.num_rows(size, config.actor.num_envs, window))
    sums, frames = no_metrics(config), init_frames(setting.spec, config.actor.num_envs)
    updates, group = jnp.int32(0), None

    def acting() -> None:
        nonlocal replay, sums, frames
        given = step, key, jnp.float32(1), jnp.bool_(False), train.updates
        action, replay, sums, frames = act(train.variables, replay, sums, frames, *given)
        jax.block_until_ready(action)

    def targets() -> None:
        nonlocal replay, sums, updates, group
        updates = updates + config.reanalyse.max_age + 1
        group, replay, sums = prepare(train.target, replay, sums, key, updates)
        jax.block_until_ready(group)

    def learning() -> None:
        nonlocal train, replay, sums
        train, replay, sums = learn(train, replay, sums, key, group, jnp.int32(0))
        jax.block_until_ready(train)

    return {"acting": acting, "targets": targets, "learning": learning}


def main(words: list[str]) -> int:
    """Compare one game at two commits."""
    from ez_jax.config import BadInput
    from ez_jax.system import exits
    from ez_jax.terminal import arguments

    values, changes = arguments.read(words, OWN_KEYS)
    here = Path(__file__).parents[2]
    roots = [here / values[name] for name in ("before", "after")]  # an absolute path stays
    if not values["before"] or not all((root / "ez_jax").is_dir() for root in roots):
        raise BadInput("write before=DIR, a checkout of the commit before")
    if "game" not in changes:
        raise BadInput("which game? write game=CartPole")
    keys = [f"{name}={value}" for name, value in changes.items()]
    new = [values["new"]] if values["new"] else []
    both = [Checkout(root, [*keys, *more]) for root, more in zip(roots, ([], new), strict=True)]
    told = " ".join([*keys, *(f"new={word}" for word in new)])
    try:
        for row in compared(*both, values["repeats"]):
            sys.stdout.write(json.dumps({"settings": told, **row}) + "\n")
            sys.stdout.flush()
    finally:
        for each in both:
            each.close()
    return exits.DONE


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2:])
    else:
        from ez_jax.terminal import start

        start(main, f"{__doc__}\n")
