"""Compiling many programs at once, and timing them."""

import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from experiments.gpu.rows import Rows

Key = Hashable


def timed(call: Callable[[], Any], repeats: int = 10, seconds: float = 2.0) -> dict[str, float]:
    """Milliseconds of a call that is waited for, and of one of many that queue up.

    The first call is not timed; fewer than `repeats` are made where they take too long.
    """
    jax.block_until_ready(call())
    began, alone = time.perf_counter(), []
    while len(alone) < repeats and (not alone or time.perf_counter() - began < seconds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        alone.append(1e3 * (time.perf_counter() - start))
    start, last = time.perf_counter(), None
    for _ in alone:
        last = call()
    jax.block_until_ready(last)
    queued = 1e3 * (time.perf_counter() - start) / len(alone)
    return {
        "ms": statistics.median(alone),
        "least_ms": min(alone),
        "queued_ms": queued,
        "repeats": len(alone),
    }


def compiled(rows: Rows, jobs: Mapping[Key, Callable[[], Any]]) -> dict[Key, Any]:
    """The program of each job, None where it failed; as many threads compile as there are cores."""

    def work(name: Key) -> Any:
        began = time.perf_counter()
        program = rows.guarded(f"compile {name}", jobs[name])
        taken = time.perf_counter() - began
        rows.add("compiled", what=name, seconds=taken, failed=program is None)
        return program

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {name: pool.submit(work, name) for name in jobs}
        return {name: future.result() for name, future in futures.items()}
