"""Every value that crosses a file, as a named pytree with shapes. Read this second.

Letters: `B` batch, `N` environments, `T` rows of the replay ring, `K` unroll_steps, `n` td_steps,
`A` actions, `S` support bins, `F` stacked frames, `L` LSTM width, `M` metrics, `obs` the shape of
one frame (`H W C` or `D`), `act` the shape of one action: none, or `D` numbers if continuous. Then
`A` is the number of candidates, the actions among which a search chose.

Time follows dm_env: the row of time t holds what arrived at t (observation, reward, discount,
is_first) and what was decided at t (action, policy, value). The reward of the action at t stands in
row t+1. The last row of an episode holds its final observation; its action was never executed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Variables = dict[str, Any]  # Flax collections: params and batch_stats
NEVER = -(2**30)  # "searched" so long ago that it always counts as too old


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """What the agent needs to know about an environment."""

    game: str  # as the user named it
    backend: str  # envpool | gymnasium | gymnax
    task_id: str  # the backend's own id
    num_actions: int  # 0 if actions are continuous
    observation_shape: tuple[int, ...]  # one frame: (H, W, C) or (D,)
    observation_dtype: np.dtype  # uint8 images, float32 vectors
    frame_stack: int  # frames per observation
    frame_skip: int  # env_frames per agent step
    has_masks: bool = False  # whether the game says which actions are allowed
    action_size: int = 0  # numbers in a continuous action, each from -1 to 1; 0: one of num_actions

    @property
    def is_continuous(self) -> bool:
        """Whether an action is a vector f32[action_size] instead of a number i32[]."""
        return self.action_size > 0

    @property
    def action_shape(self) -> tuple[int, ...]:
        """The shape of one action."""
        return (self.action_size,) if self.is_continuous else ()

    @property
    def policy_size(self) -> int:
        """Outputs of the policy head: a logit per action, or two numbers per number of it."""
        return 2 * self.action_size if self.is_continuous else self.num_actions

    @property
    def action_dtype(self) -> np.dtype:
        """The type of actions: float32 if continuous, else int32."""
        return np.dtype(np.float32 if self.is_continuous else np.int32)

    @property
    def is_image(self) -> bool:
        """Whether a frame is an image (H, W, C)."""
        return len(self.observation_shape) == 3


@dataclasses.dataclass(frozen=True)
class Clocks:
    """The progress of a run (on the host); every line of metrics begins with it."""

    agent_steps: int = 0  # decisions of the agent, over all environments
    env_frames: int = 0  # agent_steps times the frame skip
    updates: int = 0  # optimiser steps
    seconds: float = 0.0  # running time so far, without the time between stop and resume

    @property
    def counts(self) -> tuple[int, int]:
        """Agent steps and updates: everything that a run does depends on these."""
        return self.agent_steps, self.updates


class TimeStep(flax.struct.PyTreeNode, kw_only=True):
    """What N environments returned (numpy on the host, or jax.Array inside a program)."""

    observation: np.ndarray  # dtype[N, *obs], the newest frame
    reward: np.ndarray  # f32[N], clipped if the configuration says so; 0 where is_first
    score: np.ndarray  # f32[N], the game's own reward
    discount: np.ndarray  # f32[N], 0 if the episode terminated (perhaps by a lost life), else 1
    is_first: np.ndarray  # bool[N], first observation of an episode; the last action was ignored
    is_last: np.ndarray  # bool[N], final observation; the next action will be ignored
    game_over: np.ndarray  # bool[N], as is_last, but a lost life alone does not count
    # bool[N, A], which actions are allowed now; None if the game has no masks
    legal: np.ndarray | None = None


class Row(flax.struct.PyTreeNode, kw_only=True):
    """One row of replay: N environments at one time."""

    observation: jax.Array  # dtype[N, *obs]
    reward: jax.Array  # f32[N], arriving
    discount: jax.Array  # f32[N], arriving; 0 at termination
    is_first: jax.Array  # bool[N]
    action: jax.Array  # i32[N], or f32[N, D] if continuous
    policy: jax.Array  # f32[N, A], of the search that chose the action
    value: jax.Array  # f32[N], of its root
    searched: jax.Array  # i32[N], number of updates at that time; NEVER for random play
    legal: jax.Array | None = None  # bool[N, A], as in `TimeStep`
    candidates: jax.Array | None = None  # f32[N, A, D], of `policy` if actions are continuous


class Replay(flax.struct.PyTreeNode, kw_only=True):
    """Ring of rows, contiguous in time for each environment."""

    # Every field with a leading axis T; the frames with `devices.padded_length(T)`, or None if
    # they are in host memory.
    rows: Row
    priority: jax.Array  # f32[T, N], |value - target| or the largest so far for new rows
    count: jax.Array  # i32[], rows ever written


class Batch(flax.struct.PyTreeNode, kw_only=True):
    """Sampled sequences; times are relative to the sampled row, which is 0."""

    observation: jax.Array  # dtype[B, F-1+K+n+1, *obs], frames -(F-1)..K+n kept inside the episode
    row: jax.Array  # i32[B, F-1+K+n+1], their rows in the ring
    action: jax.Array  # i32[B, K], or f32[B, K, D] if continuous
    reward: jax.Array  # f32[B, K+n], entry j is the reward of action j
    discount: jax.Array  # f32[B, K+n+1], arriving
    policy: jax.Array  # f32[B, K+1, A], as stored
    value: jax.Array  # f32[B, K+1], as stored
    searched: jax.Array  # i32[B, K+1], number of updates when these two were searched
    last: jax.Array  # i32[B], time of the last known row of the episode, at most K+n
    goes_on: jax.Array  # bool[B], whether the episode is longer, as far as the ring knows
    position: jax.Array  # i32[B], agent steps of its episode before row 0, as far as in the ring
    age: jax.Array  # i32[B], agent steps since the row was collected
    index: jax.Array  # i32[B], flat position in the ring
    weight: jax.Array  # f32[B], importance weight, at most 1
    legal: jax.Array | None = None  # bool[B, K+1, A], as in `TimeStep`
    candidates: jax.Array | None = None  # f32[B, K+1, A, D], of `policy` if actions are continuous


class Targets(flax.struct.PyTreeNode, kw_only=True):
    """Regression targets of the unrolled predictions, as scalars; the loss encodes them."""

    value: jax.Array  # f32[B, K+1]
    value_prefix: jax.Array  # f32[B, K], entry k after action k
    policy: jax.Array  # f32[B, K+1, A]
    mask: jax.Array  # f32[B, K+1], 1 up to the episode's final observation
    policy_mask: jax.Array  # f32[B, K+1], 1 up to the episode's last action
    candidates: jax.Array | None = None  # f32[B, K+1, A, D], of `policy` if actions are continuous


class Prepared(flax.struct.PyTreeNode, kw_only=True):
    """U updates whose targets were computed together; all fields have leading axes B, U."""

    batch: Batch
    targets: Targets


class Embedding(flax.struct.PyTreeNode, kw_only=True):
    """A node of the model: what mctx keeps in its tree."""

    state: jax.Array  # f[B, h, w, c] or f[B, width]
    carry: tuple[jax.Array, jax.Array]  # LSTM (cell, hidden), f[B, L] each
    value_prefix: jax.Array  # f32[B], predicted since the last reset
    step: jax.Array  # i32[B], model steps since the last reset
    depth: jax.Array | None = None  # i32[B], model steps since the root, if statistics differ


class Root(flax.struct.PyTreeNode, kw_only=True):
    """The root of a search."""

    embedding: Embedding
    policy_logits: jax.Array  # f32[B, A]; of continuous actions f32[B, 2 D], see `continuous.py`
    value: jax.Array  # f32[B]


class SearchOutput(flax.struct.PyTreeNode, kw_only=True):
    """The result of a search."""

    action: jax.Array  # i32[B], to execute, or f32[B, D] if continuous
    policy: jax.Array  # f32[B, A], the improved policy: the regression target
    value: jax.Array  # f32[B], mean return through the root
    gain: jax.Array  # f32[B], Σ (policy - prior) Q: improvement over the prior by the search's Qs
    candidates: jax.Array | None = None  # f32[B, A, D], of `policy` if actions are continuous


class LossOutput(flax.struct.PyTreeNode, kw_only=True):
    """Result of one evaluation of the unrolled loss."""

    loss: jax.Array  # f32[], weighted, summed over steps, mean over the batch
    terms: dict[str, jax.Array]  # f32[] each, unweighted
    priority: jax.Array  # f32[B]
    value: jax.Array  # f32[K+1, B], predicted
    value_prefix: jax.Array  # f32[K, B], predicted
    alike: jax.Array  # f32[], mean cosine of the projections of different samples
    value_gap: jax.Array  # f32[], mean distance of root values in acting mode from `value[0]`
    batch_stats: Any  # after the pass


class TrainState(flax.struct.PyTreeNode, kw_only=True):
    """State of the learner."""

    variables: Variables
    next_target: Variables  # becomes the target at the next refresh
    target: Variables  # one to two target periods old
    opt_state: Any
    updates: jax.Array  # i32[]
    skipped: jax.Array  # i32[], updates dropped because they were not finite
    skipped_in_a_row: jax.Array  # i32[], of these the newest, without a finite one in between


class Sums(flax.struct.PyTreeNode, kw_only=True):
    """Sums of metrics: one array, because every argument of a program has a cost."""

    total: jax.Array  # f32[M]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)  # of the M sums

    @classmethod
    def of(cls, names: Sequence[str]) -> "Sums":
        """All sums at zero."""
        return cls(total=jnp.zeros(len(names)), names=tuple(names))

    def add(self, metrics: Mapping[str, jax.Array]) -> "Sums":
        """Add these metrics, f32[] each; the other sums do not change."""
        if unknown := metrics.keys() - set(self.names):
            raise KeyError(f"no sums of {sorted(unknown)}")
        more = [jnp.asarray(metrics.get(name, 0.0), jnp.float32) for name in self.names]
        return self.replace(total=self.total + jnp.stack(more))

    def by_name(self) -> dict[str, jax.Array]:
        """The sums by name, f32[] each."""
        return dict(zip(self.names, self.total, strict=True))


class RunState(flax.struct.PyTreeNode, kw_only=True):
    """Everything to save of a run besides its clocks."""

    train: TrainState
    replay: Replay
    frames: jax.Array  # dtype[N, F, *obs], the actor's frame stacks
    metrics: Sums  # since the last line of metrics
    key: jax.Array  # of the whole run; random numbers come from it and a clock
    drawn: Batch | None = None  # the next group, without frames, if it is drawn ahead
