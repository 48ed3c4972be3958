"""Machines that nobody has measured as a whole, and what counts of programs predict for them.

    seconds = FLOPs / (share x peak) + bytes sent / bandwidth + collectives x latency

Nothing overlaps in it, and devices are as fast as their share of the peak at any batch: a real
machine confirms or refutes both. Every number has its source beside it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.collectives import KINDS, ROUNDS

BUSY = 0.75  # of a link's speed that collectives of large arrays reach: assumed


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices that are all alike, and the slowest link between them."""

    name: str
    devices: int
    peak: float  # FLOP/s of one device, bfloat16 with float32 sums, without sparsity
    share: float  # of the peak that the published update reaches
    link: float  # byte/s that one device can send, to all others together
    latency: float  # seconds of one collective of nothing
    sources: str


MACHINES = (
    Machine(
        "8 x H100 (NVLink)", 8, 989e12, 0.08, 450e9, 20e-6,
        "peak and 900 GB/s NVLink, half of it per direction: NVIDIA's H100 SXM data sheet; "
        "share measured at batch 256 (experiments/results/gpu), latency assumed",
    ),
    Machine(
        "v5e-16 (ICI)", 16, 197e12, 0.4, 100e9, 10e-6,
        "peak and 1,600 Gb/s ICI per chip, half of it per direction: Google's page of TPU v5e; "
        "share and latency assumed",
    ),
    Machine(
        "64 hosts x 8 H100 (400 Gb/s)", 512, 989e12, 0.08, 50e9, 100e-6,
        "peak and share: as above; 400 Gb/s network card per GPU, NVLink inside a host is free; "
        "latency assumed",
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Law:
    """How the counts of a program grow: all of it is linear in the samples."""

    flops: tuple[float, float]  # of one device: for itself, and for each sample of its own
    whole: Mapping[str, tuple[float, float]]  # by kind: bytes at all, and for each sample of all
    number: float  # of collectives


def law(rows: Sequence[Mapping[str, Any]]) -> Law:
    """From two counts of a program with the same samples per device, and two with others.

    Args:
      rows: each with `devices`, `samples`, `flops`, `whole` by kind, and `number`.
    """
    most = max(row["devices"] for row in rows)
    split = [row for row in rows if row["devices"] > 1]  # on one nothing is exchanged
    flops = _line([(row["samples"] / row["devices"], row["flops"]) for row in split])
    whole = {kind: _line([(row["samples"], row["whole"][kind]) for row in split]) for kind in KINDS}
    number = max(row["number"] for row in rows if row["devices"] == most)
    return Law(flops, whole, number)


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Constant and slope of the line through the means of the first and last x."""
    means = {
        x: sum(y for at, y in points if at == x) / sum(at == x for at, _ in points)
        for x, _ in points
    }
    first, last = min(means), max(means)
    slope = (means[last] - means[first]) / (last - first) if last > first else 0.0
    return means[first] - slope * first, slope


def predict(machine: Machine, laws: Sequence[tuple[Law, float]], samples: int) -> dict[str, float]:
    """Milliseconds of one update, of which `laws` tells how often it has each program.

    Beside them how many times as fast that is as one such device with all the samples.
    """
    n, rate = machine.devices, machine.share * machine.peak
    parts = {"computing_ms": 0.0, "sending_ms": 0.0, "waiting_ms": 0.0}
    alone = 0.0
    for each, times in laws:
        sent = sum(
            (ROUNDS[kind] * (n - 1) / n if kind in ROUNDS else 1.0) * (at_all + slope * samples)
            for kind, (at_all, slope) in each.whole.items()
        )
        parts["computing_ms"] += times * 1e3 * (each.flops[0] + each.flops[1] * samples / n) / rate
        parts["sending_ms"] += times * 1e3 * sent / (BUSY * machine.link)
        parts["waiting_ms"] += times * 1e3 * each.number * machine.latency
        alone += times * 1e3 * (each.flops[0] + each.flops[1] * samples) / rate
    whole = sum(parts.values())
    return {**parts, "predicted_ms": whole, "speed_up": alone / whole}


def assumptions() -> list[str]:
    """What the predictions stand on, a line each."""
    lines = [
        "predicted = FLOPs / (share x peak) + bytes sent / (busy x link) + collectives x latency; "
        "nothing overlaps; counted on CPU devices, where XLA may choose other collectives",
        f"busy share of a link {BUSY:.2f}, assumed",
    ]
    for each in MACHINES:
        numbers = (
            f"{each.share:.2f} of {each.peak / 1e12:,.0f} TFLOP/s, {each.link / 1e9:,.0f} GB/s, "
        )
        lines.append(f"{each.name}: {numbers}{1e6 * each.latency:.0f} us ({each.sources})")
    return lines
