"""Device time by kernel, from JAX's profiler."""

import collections
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

TOP = 25  # kernels that are told by name
GROUPS = 15


def by_kernel(call: Callable[[], Any], scratch: Path) -> dict[str, Any]:
    """Launches and microseconds of one call: in all, of the longest kernels, of those alike."""
    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        path = max(Path(folder).rglob("*.xplane.pb"), key=lambda path: path.stat().st_size)
        data = jax.profiler.ProfileData.from_file(str(path))
    return summary(list(kernels_of(data)))


def kernels_of(data: Any) -> Iterator[tuple[str, float, float]]:
    """Name, start and end in microseconds of what ran on the device."""
    for plane in data.planes:
        if plane.name.startswith("/device:"):
            for line in plane.lines:
                if line.name.startswith("Stream"):
                    for event in line.events:
                        start = event.start_ns / 1e3
                        yield event.name.split("(")[0][:80], start, start + event.duration_ns / 1e3


def summary(kernels: list[tuple[str, float, float]]) -> dict[str, Any]:
    """How many there are, how long the device is busy, and which take longest."""
    if not kernels:
        return {"launches": 0}
    total, count, alike = collections.Counter(), collections.Counter(), collections.Counter()
    busy, until = 0.0, 0.0
    for name, start, end in sorted(kernels, key=lambda kernel: kernel[1]):
        total[name] += end - start
        count[name] += 1
        alike[name.rstrip("0123456789_")] += end - start
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    first = min(start for _, start, _ in kernels)
    durations = sorted(end - start for _, start, end in kernels)
    return {
        "launches": len(kernels),
        "span_us": until - first,
        "busy_us": busy,
        "median_us": durations[len(durations) // 2],
        "under_5_us": sum(each < 5 for each in durations),
        "top": [[name, round(us, 1), count[name]] for name, us in total.most_common(TOP)],
        "alike": [[name, round(us, 1)] for name, us in alike.most_common(GROUPS)],
    }
