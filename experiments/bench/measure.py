"""Timing: cases that take turns, what they cost by count, and what the machine can do at most."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

MATRIX = 2_048  # side of the square matrices whose product is timed
COPIED = 2**26  # float32 entries that are copied
NANO = 1e-9


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call computes and moves, counted from compiled programs; 0 where it is unknown."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Both."""
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Cost":
        """So many times."""
        return Cost(self.flops * times, self.bytes * times)


def counted(compiled: Any) -> Cost:
    """FLOPs and bytes of a compiled program as XLA counts them; a loop's body counts once."""
    analysis = compiled.cost_analysis() or {}
    return Cost(analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0))


def compiled_call(function: Callable[..., Any], *args: Any) -> tuple[Callable[[], Any], Cost]:
    """A call without arguments of a jitted function, and its cost."""
    program = jax.jit(function).lower(*args).compile()
    return lambda: program(*args), counted(program)


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    call: Callable[[], Any]  # its arrays are waited for
    items: float  # done by one call
    unit: str  # of the items: simulations, samples, ...
    cost: Cost = Cost()  # of one call


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What this machine reached in this process."""

    matrix: float  # FLOP/s of a large float32 product
    copy: float  # byte/s read and written by a large copy


def ceilings(repeats: int = 5) -> Ceilings:
    """The best of some products and copies."""
    square = jnp.ones((MATRIX, MATRIX))
    long = jnp.ones(COPIED)
    with jax.default_matmul_precision("highest"):
        product = jax.jit(jnp.matmul).lower(square, square).compile()
    copy = jax.jit(lambda x: x + 1).lower(long).compile()
    calls = [lambda: product(square, square), lambda: copy(long)]
    fastest = [min(seconds) for seconds in take_turns(calls, repeats)]
    return Ceilings(matrix=2 * MATRIX**3 / fastest[0], copy=8 * COPIED / fastest[1])


def take_turns(calls: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each call, `repeats` times one after the other, after a first round untimed."""
    for call in calls:
        jax.block_until_ready(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - began)
    return seconds


def rows_of(cases: Sequence[Case], repeats: int) -> list[dict[str, Any]]:
    """Time cases that share whatever else the machine does: one row each, compare them."""
    best = ceilings()
    timed = take_turns([case.call for case in cases], repeats)
    return [_row(case, seconds, best) for case, seconds in zip(cases, timed, strict=True)]


def _row(case: Case, seconds: list[float], best: Ceilings) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "case": case.name,
        "median_ms": 1e3 * median,
        "least_ms": 1e3 * min(seconds),
        "repeats": len(seconds),
        "unit": case.unit,
        "per_second": case.items / median,
        "gflop": NANO * case.cost.flops,
        "gbyte": NANO * case.cost.bytes,
        "matrix_share": case.cost.flops / median / best.matrix,
        "copy_share": case.cost.bytes / median / best.copy,
        "matrix_gflop_per_s": NANO * best.matrix,
        "copy_gbyte_per_s": NANO * best.copy,
    }
