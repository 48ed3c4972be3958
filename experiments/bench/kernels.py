"""What a GPU will launch, read from what XLA's compiler for GPUs made of a program.

Every fusion, library call and copy is a kernel. It reads its operands and writes its result once:
of a long array from which slices are taken, or into which some are written, the slices alone. The
body of a loop counts as often as it runs; of a loop of unknown length one turn is counted.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable

from experiments.bench.collectives import (
    CALLED,
    TRIPS,
    Counts,
    Instruction,
    Program,
    branches_of,
    bytes_of,
)

NOTHING = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier",
    "async-update", "async-done", "copy-done", "partition-id",
}  # fmt: skip
SLICES = {"dynamic-slice", "slice", "gather"}
WRITES = {"dynamic-update-slice": 1, "scatter": 2}  # which operand is written


@dataclasses.dataclass(frozen=True)
class Work:
    """What one execution of a program makes a GPU do."""

    launches: float = 0.0
    bytes: float = 0.0
    open_loops: int = 0  # of unknown length: the host reads a flag in every turn
    in_loops: float = 0.0  # launches of one turn of those loops, counted once

    def __add__(self, other: "Work") -> "Work":
        """One after the other."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Work(*(one + another for one, another in pairs))

    def repeated(self, times: int) -> "Work":
        """As the body of a loop."""
        return Work(times * self.launches, times * self.bytes, self.open_loops, self.in_loops)


def kernels(text: str) -> tuple[Work, Counts]:
    """Kernels and bytes, and FLOPs, of an optimised program for a GPU."""
    program = Program(text)
    return _Walk(program).work(program.entry), program.counts(program.entry)


class _Walk:
    def __init__(self, program: Program):
        self.program = program

    @functools.cache  # noqa: B019, it lives as long as one call of `kernels`
    def work(self, name: str) -> Work:
        inside = self.program.computations[name]
        return sum((self._own(each, inside) for each in inside.values()), Work())

    def _own(self, each: Instruction, inside: dict[str, Instruction]) -> Work:
        if each.opcode in NOTHING:
            return Work()
        if each.opcode == "while":
            return self._loop(each)
        if each.opcode == "conditional":
            branches = [self.work(name) for name in branches_of(each.rest)]
            return max(branches, key=lambda work: work.launches)
        called = [name for name in CALLED.findall(each.rest) if name in self.program.computations]
        if each.opcode in ("call", "async-start"):
            return sum(map(self.work, called), Work())
        if each.opcode == "fusion":
            return Work(1, _bytes_of_fusion(self.program.computations[called[0]]))
        return Work(1, _bytes_of_one(each, inside))

    def _loop(self, each: Instruction) -> Work:
        body, condition = (
            self.work(re.search(rf"\b{part}=%?([\w.-]+)", each.rest)[1])
            for part in ("body", "condition")
        )
        if trips := TRIPS.search(each.rest):
            return body.repeated(int(trips[1]))
        turn = body + condition
        return dataclasses.replace(
            turn, open_loops=turn.open_loops + 1, in_loops=turn.in_loops + turn.launches
        )


def _bytes_of_one(each: Instruction, inside: dict[str, Instruction]) -> float:
    written = _written(each, inside)
    if each.opcode in SLICES or each.opcode in WRITES:
        return 2 * written
    return written + sum(bytes_of(inside[name].shape) for name in set(each.operands))


def _bytes_of_fusion(inside: dict[str, Instruction]) -> float:
    root = list(inside.values())[-1]
    results = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = sum(_written(each, inside) for each in results)
    return written + sum(
        _read(each.name, inside) for each in inside.values() if each.opcode == "parameter"
    )


def _written(each: Instruction, inside: dict[str, Instruction]) -> float:
    while each.opcode == "bitcast":
        each = inside[each.operands[0]]
    part = WRITES.get(each.opcode)
    return bytes_of(each.shape if part is None else inside[each.operands[part]].shape)


def _read(name: str, inside: dict[str, Instruction]) -> float:
    """Bytes of a parameter that are read: all, or what is taken from it."""
    taken, whole = 0.0, bytes_of(inside[name].shape)
    for user in _users(name, inside.values()):
        is_first = user.operands[0] == name
        if user.opcode == "bitcast":
            taken += _read(user.name, inside)
        elif is_first and user.opcode in SLICES:
            taken += bytes_of(user.shape)
        elif not (is_first and user.opcode in WRITES):
            return whole
    return min(taken, whole)


def _users(name: str, instructions: Iterable[Instruction]) -> list[Instruction]:
    return [each for each in instructions if name in each.operands]
