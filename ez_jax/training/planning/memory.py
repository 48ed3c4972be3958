"""The memory that a run needs, computed from shapes and checked before anything is allocated.

All sizes are in bytes. The sums cover what is large or long-lived: replay, learner, search tree,
one batch with its activations, and the copy from which a checkpoint is written.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from ez_jax.config import BadInput
from ez_jax.storage.checkpoint_items import tree_bytes
from ez_jax.structs import EnvSpec
from ez_jax.system.free_memory import Available, gigabytes

FLOAT = 4  # bytes; also of an int32
USABLE = 0.9  # of the available memory; the rest is for runtime, compiler and fragmentation
MOST_STEPS = 10**12  # more than any replay
RUNTIME_BYTES = 600_000_000  # Python, JAX and compiled programs in host memory


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The settings that memory depends on."""

    capacity: int  # agent steps in replay
    batch_size: int
    frames: int  # per sampled sequence: stacked frames, unroll and bootstrap (F-1 + K + n + 1)
    unrolled: int  # states per sequence whose activations are kept (K + 1)
    roots: int  # of the largest search
    num_simulations: int
    choices: int  # of a search at every node: actions, or candidates
    unsaved: int  # agent steps between two checkpoints
    devices: int = 1  # that share replay, searches and batches
    on_host: bool = False  # whether the frames of the replay are in host memory
    drawn: int = 0  # samples whose frames are copied to the device in advance


@dataclasses.dataclass(frozen=True)
class MemoryNeeds:
    """The memory that a run needs, in bytes by purpose."""

    sizes: Sizes
    per_step: int  # replay, per agent step
    frame: int  # of that: what may be in host memory
    per_step_refreshed: int  # of that: what learning changes, so that it is saved every time
    per_sample: int  # batch and activations, per sampled sequence
    per_root: int  # search tree, per root
    train: int  # parameters, optimiser state, target networks

    @classmethod
    def of_sizes(
        cls,
        spec: EnvSpec,
        sizes: Sizes,
        *,
        train_state: Any,
        embedding: Any,
        activation_bytes: int,
    ) -> "MemoryNeeds":
        """Compute them.

        Args:
          spec: of the environment, for the size of a frame.
          sizes: the settings.
          train_state: the learner's tree (arrays or `jax.eval_shape`).
          embedding: one search node, its leaves with a leading axis of 1.
          activation_bytes: kept for the backward pass of one sampled sequence (`residual_bytes`).
        """
        frame = math.prod(spec.observation_shape) * spec.observation_dtype.itemsize
        policy = sizes.choices * (1 + spec.action_size) * FLOAT  # with continuous candidates
        refreshed = policy + 3 * FLOAT  # and value, searched, priority
        action = max(1, spec.action_size) * FLOAT
        recorded = frame + action + 2 * FLOAT + 1  # and reward, discount; is_first
        # Once as bytes, and once as the scaled floats that the network sees.
        observed = sizes.frames * frame + sizes.frames * math.prod(spec.observation_shape) * FLOAT
        return cls(
            sizes=sizes,
            per_step=recorded + refreshed,
            frame=frame,
            per_step_refreshed=refreshed,
            per_sample=observed + policy * sizes.unrolled + activation_bytes,
            per_root=search_bytes(tree_bytes(embedding), spec, sizes),
            train=tree_bytes(train_state),
        )

    def at(self, **changes: Any) -> "MemoryNeeds":
        """The same needs with other `sizes`."""
        return dataclasses.replace(self, sizes=dataclasses.replace(self.sizes, **changes))

    @property
    def parts(self) -> dict[str, int]:
        """Bytes on each device by purpose."""
        sizes, frames = self.sizes, self.frames_on_host
        split = lambda size: -(-size // sizes.devices)  # noqa: E731
        on_all = (self.per_step - self.frame) * sizes.capacity
        own_frames = 0 if frames else split(self.frame * sizes.capacity)
        parts = {
            "replay without frames" if frames else "replay": on_all + own_frames,
            "parameters, optimiser, targets": 2 * self.train,  # an update makes the next beside
            "search tree": self.per_root * split(sizes.roots),
            "batch and activations": self.per_sample * split(sizes.batch_size),
        }
        return parts | ({"frames of the next batch": split(self._next_frames)} if frames else {})

    @property
    def replay(self) -> int:
        """Bytes of the replay, on device and host."""
        return self.per_step * self.sizes.capacity

    @property
    def frames_on_host(self) -> int:
        """Bytes of the frames if they are in host memory, otherwise 0."""
        return self.frame * self.sizes.capacity if self.sizes.on_host else 0

    @property
    def _next_frames(self) -> int:
        return self.frame * self.sizes.frames * self.sizes.drawn

    @property
    def device(self) -> int:
        """Bytes on each device."""
        return sum(self.parts.values())

    @property
    def host(self) -> int:
        """Bytes in host memory while a checkpoint is written, without those of the device."""
        sizes = self.sizes
        rows = self.per_step * min(sizes.unsaved, sizes.capacity)
        saved = self.train + self.per_step_refreshed * sizes.capacity + rows
        frames = self.frames_on_host
        return saved + RUNTIME_BYTES + frames + (self._next_frames if frames else 0)

    def describe(self) -> str:
        """One line for the output at the start."""
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self.parts.items())
        number = self.sizes.devices
        where = "the device" if number == 1 else f"each of {number} devices"
        return f"{gigabytes(self.device)} on {where} ({parts}); host {self.describe_host()}"

    def describe_host(self) -> str:
        """Bytes in host memory, and their main purpose."""
        frames = f", {gigabytes(self.frames_on_host)} of it frames of the replay"
        return gigabytes(self.host) + (frames if self.frames_on_host else "")


def search_bytes(embedding_bytes: int, spec: EnvSpec, sizes: Sizes) -> int:
    """Bytes of one root's tree in mctx: simulations + 1 nodes, each with its embedding."""
    per_node = 5 * FLOAT  # visits, raw value, value, parent, action from parent
    per_edge = (6 + spec.action_size) * FLOAT  # child, prior, visits, reward, discount, value
    return (sizes.num_simulations + 1) * (embedding_bytes + per_node + sizes.choices * per_edge)


def residual_bytes(function: Callable[..., Any], variables: Any, *inputs: Any) -> int:
    """Bytes that the backward pass of `function(variables, *inputs)` keeps.

    Works on shapes; nothing is computed or allocated.
    """

    def backward(variables: Any, *inputs: Any) -> Any:
        return jax.vjp(lambda given: function(given, *inputs), variables)[1]

    return tree_bytes(jax.eval_shape(backward, variables, *inputs))


def check(needs: MemoryNeeds, available: Available) -> None:
    """Refuse a run that does not fit.

    Raises:
      BadInput: the need, the available memory, and a smaller setting that fits.
    """
    if fits(needs, available):
        return
    shared = available.is_shared
    need = needs.device + needs.host if shared else needs.device
    have = available.device
    where = "memory"
    if not shared and needs.device <= USABLE * available.device:
        need, have, where = needs.host, available.host, "host memory"
    raise BadInput(
        f"this run needs about {gigabytes(need)} of {where} and {gigabytes(have)} are available, "
        f"of which {USABLE:.0%} may be planned; {_advice(needs, available)}"
    )


def check_runs(needs: MemoryNeeds, count: int, devices: int, available: Available) -> None:
    """As `check`, for several runs in one program.

    Args:
      needs: of one run.
      count: of the runs.
      devices: that share the runs; every one has the same number, with spare ones if need be.
      available: on one of them, or in all if they are the cores of a CPU.

    Raises:
      BadInput: the need, the available memory, and how many runs fit.
    """
    each, sharing = -(-count // devices), devices if available.is_shared else 1
    need, have = each * sharing * needs.device + needs.host, available.device
    if need <= USABLE * have:
        return
    most = devices * int((USABLE * have - needs.host) // (sharing * needs.device))
    fix = f"seeds={most} would fit" if most > 0 else "lower replay.capacity"
    raise BadInput(
        f"{count} runs in one program need about {gigabytes(need)} of memory and "
        f"{gigabytes(have)} are available, of which {USABLE:.0%} may be planned; {fix}"
    )


def fits(needs: MemoryNeeds, available: Available) -> bool:
    """Whether the planned memory fits."""
    if available.is_shared:
        return needs.device + needs.host <= USABLE * available.device
    return needs.device <= USABLE * available.device and needs.host <= USABLE * available.host


def _advice(needs: MemoryNeeds, available: Available) -> str:
    """The largest replay that fits; if even a small one does not, also a smaller batch.

    Before that, frames in host memory, if the device has its own memory and that is enough.
    """
    elsewhere = needs.at(on_host=True)
    if not available.is_shared and needs != elsewhere and fits(elsewhere, available):
        return f"replay.memory=host would fit; {_smaller(needs, available)}"
    return _smaller(needs, available)


def _smaller(needs: MemoryNeeds, available: Available) -> str:
    smallest = min(needs.sizes.capacity, max(1_000, 4 * needs.sizes.batch_size))
    batch = needs.sizes.batch_size
    while batch >= 1:
        share = batch / needs.sizes.batch_size  # the roots of a search come from the batch
        roots = max(1, math.ceil(needs.sizes.roots * share))
        capacity = _largest_capacity(needs.at(batch_size=batch, roots=roots), available)
        if capacity >= smallest:
            keys = [f"replay.capacity={min(capacity, needs.sizes.capacity)}"]
            keys += [f"learner.batch_size={batch}"] if share < 1 else []
            return f"{' '.join(keys)} would fit"
        batch //= 2
    return "no replay and batch would fit; choose preset=small or a larger machine"


def _largest_capacity(needs: MemoryNeeds, available: Available) -> int:
    return three_digits(largest(lambda steps: fits(needs.at(capacity=steps), available)))


def largest(is_possible: Callable[[int], bool], limit: int = MOST_STEPS) -> int:
    """The largest possible number up to `limit` (all smaller ones are possible); 0 if 1 is not."""
    low, high = 0, 1
    while high < limit and is_possible(high):
        low, high = high, 2 * high
    high = min(high, limit) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_possible(middle) else (low, middle)
    return low


def three_digits(number: float) -> int:
    """The number rounded down to three digits; 0 below 1."""
    if number < 1:
        return 0
    digits = 10 ** max(0, math.floor(math.log10(number)) - 2)
    return int(number // digits * digits)
