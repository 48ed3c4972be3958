"""The free memory of device and host."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import jax

_CGROUP_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    tuple(f"/sys/fs/cgroup/memory/memory.{name}_in_bytes" for name in ("limit", "usage")),
)


@dataclasses.dataclass(frozen=True)
class Available:
    """Free memory."""

    device: int  # bytes
    host: int  # bytes
    is_shared: bool  # the device is a CPU: both are the same memory


def available_memory() -> Available:
    """The free memory of device and host."""
    host = _host_available()
    stats: Mapping[str, int] = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:  # not counted on a CPU
        return Available(device=host, host=host, is_shared=True)
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return Available(device=free, host=host, is_shared=False)


def gigabytes(size: float) -> str:
    """A size in words: `2.76 GB`, `35 MB`."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _host_available() -> int:
    """MemAvailable of the machine, or what is left of a container's limit if that is smaller."""
    found = [_mem_available()]
    for limit_file, used_file in _CGROUP_LIMITS:
        limit, used = _read_number(limit_file), _read_number(used_file)
        if limit is not None and used is not None:
            found.append(max(0, limit - used))
    return min(found)


def _mem_available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # macOS
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    line = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _read_number(path: str) -> int | None:
    """The number in a file of the kernel; None if there is none (`max`, or the file is missing)."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
