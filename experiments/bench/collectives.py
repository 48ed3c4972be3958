"""What a compiled program computes and communicates, read from XLA's text of it.

`count(compiled.as_text())` walks the computations from the entry: the body of a loop counts as
often as it is known to run (`known_trip_count`), once where that is not known; of the branches of a
condition the one that communicates most. The text is that of one device: so is everything here.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Bytes that a device sends for each byte of the whole array, times (n - 1) / n: as a ring does it.
# A permutation sends all it has, whatever n is.
ROUNDS = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0, "all-to-all": 1.0}
_BITS = {"pred": 8, "token": 0, "opaque": 0}  # other names tell them: f32, bf16, s4, f8e4m3fn
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|called_computations)=\{?%?([\w.-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=([^,]*))")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation in which devices exchange data."""

    kind: str  # of KINDS
    whole: float  # bytes of the whole array: what is reduced, or what is there when all have given
    devices: int  # that take part in one exchange
    times: float = 1.0  # it is executed, as far as is known
    is_open: bool = False  # inside a loop of unknown length, of which one turn is counted

    @property
    def sent(self) -> float:
        """Bytes that each device sends, at least, in all executions."""
        if self.kind == "collective-permute":
            return self.times * self.whole
        share = ROUNDS[self.kind] * (self.devices - 1) / self.devices
        return self.times * share * self.whole


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one device does in one execution of a program."""

    flops: float = 0.0  # of matrix products and convolutions, padding included
    collectives: tuple[Collective, ...] = ()
    chain: float = 0.0  # collectives that wait for each other: the longest such chain
    open_loops: int = 0  # loops of unknown length that compute or communicate, counted as one turn

    def number(self) -> float:
        """Collectives that are executed."""
        return sum(each.times for each in self.collectives)

    def sent(self, kind: str = "") -> float:
        """Bytes sent, of one kind or of all."""
        return sum(each.sent for each in self.collectives if kind in ("", each.kind))

    def whole(self, kind: str) -> float:
        """Bytes of the whole arrays of one kind, which does not depend on the devices."""
        return sum(each.times * each.whole for each in self.collectives if each.kind == kind)

    def __add__(self, other: "Counts") -> "Counts":
        """One after the other."""
        return Counts(
            self.flops + other.flops,
            self.collectives + other.collectives,
            self.chain + other.chain,
            self.open_loops + other.open_loops,
        )

    def repeated(self, times: float, *, is_open: bool = False) -> "Counts":
        """As the body of a loop."""
        inner = tuple(
            dataclasses.replace(each, times=times * each.times, is_open=each.is_open or is_open)
            for each in self.collectives
        )
        return Counts(times * self.flops, inner, times * self.chain, self.open_loops)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation."""

    name: str
    shape: str  # text of its result
    opcode: str
    operands: tuple[str, ...]  # names
    rest: str  # attributes


class Program:
    """A module's computations by name."""

    def __init__(self, text: str):
        """Read the optimised HLO text of a module."""
        self.entry = ""
        self.partitions = int((re.search(r"num_partitions=(\d+)", text) or [0, 1])[1])
        self.computations: dict[str, dict[str, Instruction]] = {}
        inside: dict[str, Instruction] | None = None
        for line in text.splitlines():
            if head := _HEAD.match(line):
                inside = self.computations.setdefault(head[2], {})
                self.entry = head[2] if head[1] else self.entry
            elif line.startswith("}"):
                inside = None
            elif inside is not None and (found := _LINE.match(line)):
                inside[found[2]] = _instruction(found[2], found[3])

    @functools.cache  # noqa: B019, it lives as long as one call of `count`
    def counts(self, name: str) -> Counts:
        """What a computation does by itself and by those that it calls."""
        inside, done = self.computations[name], Counts()
        depth: dict[str, float] = {}  # of the longest chain that ends in an instruction
        for each in inside.values():  # operands come first
            own = self._own(each, inside)
            before = max((depth.get(operand, 0.0) for operand in each.operands), default=0.0)
            depth[each.name] = before + own.chain
            done = done + own
        return dataclasses.replace(done, chain=max(depth.values(), default=0.0))

    def _own(self, each: Instruction, inside: dict[str, Instruction]) -> Counts:
        kind = each.opcode.removesuffix("-start")
        if kind in KINDS:
            return Counts(collectives=(self._collective(kind, each, inside),), chain=1.0)
        if each.opcode == "dot":
            return Counts(flops=_dot_flops(each, inside))
        if each.opcode == "convolution":
            return Counts(flops=_convolution_flops(each, inside))
        if each.opcode == "while":
            return self._loop(each)
        if each.opcode == "conditional":
            branches = [self.counts(name) for name in branches_of(each.rest)]
            return max(branches, key=lambda counts: (counts.sent(), counts.flops))
        if each.opcode == "custom-call" and "__cudnn$conv" in each.rest:
            return Counts(flops=_cudnn_flops(each, inside))
        if each.opcode in ("fusion", "call", "custom-call", "async-start"):
            names = [name for name in CALLED.findall(each.rest) if name in self.computations]
            return sum(map(self.counts, names), Counts())
        return Counts()

    def _loop(self, each: Instruction) -> Counts:
        names = [
            re.search(rf"\b{part}=%?([\w.-]+)", each.rest)[1] for part in ("condition", "body")
        ]
        turn = self.counts(names[0]) + self.counts(names[1])
        trips = TRIPS.search(each.rest)
        if trips:
            return turn.repeated(int(trips[1]))
        is_idle = not turn.flops and not turn.collectives
        turn = turn.repeated(1, is_open=True)
        return turn if is_idle else dataclasses.replace(turn, open_loops=turn.open_loops + 1)

    def _collective(
        self, kind: str, each: Instruction, inside: dict[str, Instruction]
    ) -> Collective:
        given = sum(bytes_of(inside[operand].shape) for operand in each.operands)
        devices = _group_size(each.rest) or self.partitions
        return Collective(kind, given * (devices if kind == "all-gather" else 1), devices)


def count(text: str) -> Counts:
    """What the program of an optimised HLO text does on one device."""
    program = Program(text)
    return program.counts(program.entry)


def _instruction(name: str, text: str) -> Instruction:
    """`f32[4]{0} add(%a, %b), rest` in its parts."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, after = text[:end], text[end:].lstrip()
    opened = after.index("(")
    closed = _closing(after, opened)
    operands = re.findall(r"%([\w.-]+)", after[opened:closed])
    return Instruction(name, shape, after[:opened], tuple(operands), after[closed + 1 :])


def _closing(text: str, opened: int) -> int:
    depth = 0
    for i in range(opened, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise ValueError(f"no end of {text[opened : opened + 80]}")


def branches_of(rest: str) -> Iterator[str]:
    """Names of the computations that a condition chooses from, of its attributes."""
    for many, one in _BRANCHES.findall(rest):
        yield from (name.strip().lstrip("%") for name in (many or one).split(","))


def _group_size(rest: str) -> int:
    """Devices that exchange with each other; 0 where the text does not say, which means all."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[[\d,]*?(\d+)\]<=", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found[2]))
    return 0


def _dims(shape: str) -> list[int]:
    return [int(size) for size in _SHAPE.search(shape)[2].split(",") if size]


def bytes_of(shape: str) -> float:
    """Of an array, or of all arrays of a tuple."""
    return sum(
        math.prod(int(size) for size in sizes.split(",") if size) * _bits(kind) / 8
        for kind, sizes in _SHAPE.findall(shape)
    )


def _bits(kind: str) -> int:
    return _BITS[kind] if kind in _BITS else int(re.search(r"\d+", kind)[0])


def _dot_flops(each: Instruction, inside: dict[str, Instruction]) -> float:
    left = _dims(inside[each.operands[0]].shape)
    axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)
    summed = [left[int(axis)] for axis in axes[1].split(",") if axis] if axes else []
    return 2.0 * math.prod(_dims(each.shape)) * math.prod(summed)


def _convolution_flops(each: Instruction, inside: dict[str, Instruction]) -> float:
    kernel = _dims(inside[each.operands[1]].shape)
    outputs = re.search(r"dim_labels=\w+_(\w+)->", each.rest)[1].index("o")
    # Zeros between the inputs (gradients of strides) are not computed with.
    spread = re.search(r"lhs_dilate=([\dx]+)", each.rest)
    zeros = math.prod(int(size) for size in spread[1].split("x")) if spread else 1
    return 2.0 * math.prod(_dims(each.shape)) * math.prod(kernel) / kernel[outputs] / zeros


def _cudnn_flops(each: Instruction, inside: dict[str, Instruction]) -> float:
    """Of a convolution that XLA for GPUs hands to cuDNN, forward or a gradient."""
    first, second = (_dims(inside[operand].shape) for operand in each.operands[:2])
    result = _dims(each.shape)
    images, kernel = result, second
    if "convBackwardInput" in each.rest:
        images = first
    elif "convBackwardFilter" in each.rest:
        images, kernel = second, result
    outputs = re.search(r"dim_labels=\w+_(\w+)->", each.rest)[1].index("o")
    return 2.0 * math.prod(images) * math.prod(kernel) / kernel[outputs]
