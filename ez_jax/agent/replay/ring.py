"""Prioritised replay on the device: a ring of rows, contiguous in time for each environment.

Frames are stored once, unstacked; stacks are gathered when a batch is made. Episodes follow each
other in the ring; `is_first` marks their beginnings. A row can be sampled when the whole window
behind and ahead of it is in the ring and its action has a recorded result.

With several devices, each holds the frames of some rows; the rest, a hundredth of it, is on all.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ez_jax.agent import schedules
from ez_jax.config import Config
from ez_jax.structs import Batch, EnvSpec, Replay, Row
from ez_jax.system import devices


def num_rows(capacity: int, num_envs: int, window: int) -> int:
    """Number of rows of a ring with `capacity` agent steps that can be sampled."""
    return -(-capacity // num_envs) + window


def ring_rows(config: Config, spec: EnvSpec) -> int:
    """Number of rows of the replay of a run."""
    window = spec.frame_stack + config.learner.unroll_steps + config.targets.td_steps
    rows = num_rows(config.replay.capacity, config.actor.num_envs, window)
    return rows + schedules.rows_ahead(config)


def init_replay(
    spec: EnvSpec, *, rows: int, num_envs: int, candidates: int = 0, has_frames: bool = True
) -> Replay:
    """An empty ring [rows, num_envs].

    Args:
      spec: of the environment.
      rows: T.
      num_envs: N.
      candidates: of every search over continuous actions.
      has_frames: false if the frames are in host memory.
    """
    width = candidates if spec.is_continuous else spec.num_actions
    shape, long = (rows, num_envs), (devices.padded_length(rows), num_envs)
    # Deviates (frames): exact bytes, no JPEG.
    frames = lambda: jnp.zeros((*long, *spec.observation_shape), spec.observation_dtype)  # noqa: E731
    return Replay(
        rows=Row(
            observation=frames() if has_frames else None,  # type: ignore[arg-type] # on the host
            reward=jnp.zeros(shape),
            discount=jnp.ones(shape),
            is_first=jnp.zeros(shape, bool),
            action=jnp.zeros((*shape, *spec.action_shape), spec.action_dtype),
            policy=jnp.zeros((*shape, width)),
            value=jnp.zeros(shape),
            searched=jnp.zeros(shape, jnp.int32),
            legal=jnp.ones((*shape, width), bool) if spec.has_masks else None,
            candidates=jnp.zeros((*shape, width, spec.action_size)) if spec.is_continuous else None,
        ),
        priority=jnp.zeros(shape),
        count=jnp.zeros((), jnp.int32),
    )


def add(replay: Replay, row: Row) -> Replay:
    """Write one row per environment over the oldest; it gets the largest priority so far.

    Args:
      replay: a ring of T rows of N environments.
      row: what arrived and was decided in each of the N environments at one time.

    Examples:
      >>> empty = init_replay(env.spec, rows=4, num_envs=2)
      >>> added = add(empty, jax.tree.map(lambda x: x[0], replay.rows))
      >>> int(added.count), float(added.priority[0, 0])
      (1, 1.0)
    """
    position = replay.count % replay.priority.shape[0]
    # Deviates (priority of new data, V2): its errors are not known yet.
    highest = jnp.max(replay.priority)
    rows = jax.tree.map(
        lambda ring, new: ring.at[position].set(new), _but_frames(replay.rows), _but_frames(row)
    )
    frames = replay.rows.observation
    if frames is not None:
        rows = rows.replace(observation=devices.write(frames, position, row.observation))
    return Replay(
        rows=rows,
        priority=replay.priority.at[position].set(jnp.where(highest > 0, highest, 1.0)),
        count=replay.count + 1,
    )


def _but_frames(rows: Row) -> Row:
    return rows.replace(observation=None)


def placement(replay: Replay) -> Replay:
    """The placement of its arrays on the devices: a tree of `PartitionSpec`."""
    whole = jax.tree.map(lambda _: devices.WHOLE, replay)
    frames = jax.tree.map(lambda _: devices.SPLIT, replay.rows.observation)
    return whole.replace(rows=whole.rows.replace(observation=frames))


def placed(replay: Replay) -> Replay:
    """The same replay, constrained to its placement inside a program."""
    if devices.count() == 1:
        return replay
    return jax.lax.with_sharding_constraint(replay, placement(replay))


def add_where(replay: Replay, row: Row, wanted: Bool[Array, ""]) -> Replay:
    """`add` if wanted, otherwise the replay unchanged; never copies more than one row."""
    position = replay.count % replay.priority.shape[0]
    before = jax.tree.map(lambda ring: ring[position], (replay.rows, replay.priority))
    added = add(replay, row)
    after = jax.tree.map(lambda ring: ring[position], (added.rows, added.priority))
    rows, priority = jax.tree.map(
        lambda ring, new, old: ring.at[position].set(jnp.where(wanted, new, old)),
        (added.rows, added.priority),
        after,
        before,
    )
    return Replay(rows=rows, priority=priority, count=replay.count + wanted)


# Fields that never change once written; searches and learning refresh the rest of a row.
FRAMES = "observation"
RECORDED = (FRAMES, "reward", "discount", "is_first", "action", "legal")


def recorded_names(replay: Replay) -> tuple[str, ...]:
    """The fields of `RECORDED` here: not all games have masks; frames may be on the host."""
    has_no_masks = replay.rows.legal is None
    return tuple(name for name in RECORDED if not (name == "legal" and has_no_masks))


def without_recorded(replay: Replay) -> Replay:
    """The replay without the fields that never change."""
    nothing = dict.fromkeys(RECORDED)
    return replay.replace(rows=replay.rows.replace(**nothing))


def with_recorded(replay: Replay, recorded: Mapping[str, Array]) -> Replay:
    """The inverse of `without_recorded`."""
    return replay.replace(rows=replay.rows.replace(**recorded))


def recorded_rows(replay: Replay, first: Int[Array, ""], count: int) -> dict[str, Array]:
    """The recorded fields [count, N, ...] of rows first..first+count-1, counted from the start.

    Without frames if the replay has none.
    """
    at = (first + jnp.arange(count)) % replay.priority.shape[0]
    names = [name for name in recorded_names(replay) if name != FRAMES]
    rows = {name: getattr(replay.rows, name)[at] for name in names}
    if replay.rows.observation is None:
        return rows
    return rows | {FRAMES: devices.whole(devices.read(replay.rows.observation, at))}


def put_rows(
    recorded: dict[str, Array], rows: dict[str, Array], first: Int[Array, ""], count: Int[Array, ""]
) -> dict[str, Array]:
    """Write the first `count` of `rows` into rings of recorded fields; inverse of the above."""
    size, number = len(recorded["reward"]), jnp.arange(len(rows["reward"]))
    past = len(recorded.get(FRAMES, recorded["reward"]))  # past the end: dropped
    at = jnp.where(number < count, (first + number) % size, past)
    short = {name: ring for name, ring in recorded.items() if name != FRAMES}
    short = {name: ring.at[at].set(rows[name], mode="drop") for name, ring in short.items()}
    short = devices.whole(short)
    if FRAMES not in recorded:
        return short
    return short | {FRAMES: devices.write(recorded[FRAMES], at, rows[FRAMES])}


def can_be_sampled(
    replay: Replay, *, behind: int, ahead: int, spare: int = 0
) -> Bool[Array, "T N"]:
    """Rows with `behind` rows before them, `ahead` rows after them, and a result of their action.

    None of these rows may be overwritten by the next `spare` rows.
    """
    size = replay.priority.shape[0]
    newer = (replay.count - 1 - jnp.arange(size)) % size  # rows written later
    older = jnp.minimum(replay.count, size) - 1 - newer  # negative: never written
    # Before anything is overwritten, the first rows start their episodes and need no history.
    needed = jnp.where(replay.count + spare > size, behind + spare, 0)
    # Deviates (priorities of sequences): complete targets only.
    in_ring = (newer >= ahead) & (older >= needed)
    is_final = jnp.roll(replay.rows.is_first, -1, axis=0)
    return in_ring[:, None] & ~is_final


def draw(  # noqa: PLR0913, as many as the draw has settings
    replay: Replay,
    key: Array,
    *,
    batch_size: int,
    unroll_steps: int,
    td_steps: int,
    frame_stack: int,
    priority_exponent: float,
    importance_exponent: Float[Array, ""],
    spare: int = 0,
) -> Batch:
    """Sample sequences without replacement, p ∝ priority^α (Schaul et al., 2016, §3.3-3.4).

    Importance weights are (M p)^-β over the M candidates, divided by the largest in the batch (so
    that M cancels). If fewer than `batch_size` rows can be sampled, the rest have weight 0.

    Args:
      replay: a ring of T rows of N environments.
      key: consumed.
      batch_size: B, number of sequences.
      unroll_steps: K, actions of each.
      td_steps: n, steps of reward after the last of them.
      frame_stack: F, frames of an observation.
      priority_exponent: α; 0 samples uniformly.
      importance_exponent: β, f32[].
      spare: rows that may be written before the frames are fetched.

    Returns:
      A `Batch` without frames but with their places; `with_frames` fetches them.

    Examples:
      >>> sizes = {"batch_size": 4, "unroll_steps": 1, "td_steps": 2, "frame_stack": 1}
      >>> exponents = {"priority_exponent": 0.6, "importance_exponent": 0.4}
      >>> batch = with_frames(replay, draw(replay, jax.random.key(0), **sizes, **exponents))
      >>> batch.observation.shape, batch.reward.shape  # [B, F-1+K+n+1, *obs], [B, K+n]
      ((4, 4, 4), (4, 3))
    """
    behind, ahead = frame_stack - 1, unroll_steps + td_steps
    allowed = can_be_sampled(replay, behind=behind, ahead=ahead, spare=spare).reshape(-1)
    logits = priority_exponent * jnp.log(jnp.maximum(replay.priority.reshape(-1), 1e-12))
    logits = jnp.where(allowed, logits, -jnp.inf)
    # The largest logits + Gumbel noise are samples without replacement.
    _, index = jax.lax.top_k(logits + jax.random.gumbel(key, logits.shape), batch_size)
    weight = importance_weights(logits, index, importance_exponent)
    return gather(replay, index, weight, unroll_steps=unroll_steps, behind=behind, ahead=ahead)


def with_frames(replay: Replay, batch: Batch) -> Batch:
    """Add the frames of its windows to a drawn batch."""
    env = (batch.index % replay.priority.shape[1])[:, None]
    return batch.replace(observation=devices.read(replay.rows.observation, batch.row, env))


def importance_weights(
    logits: Float[Array, " R"], index: Int[Array, " B"], exponent: Float[Array, ""]
) -> Float[Array, " B"]:
    """Weights of the sampled rows, (M p)^-β divided by the largest; 0 where p is 0."""
    log_p = jax.nn.log_softmax(logits)[index]
    log_weight = jnp.where(jnp.isfinite(log_p), -exponent * log_p, -jnp.inf)
    return jnp.exp(log_weight - jnp.max(log_weight))


def episode_positions(replay: Replay) -> Int[Array, "T N"]:
    """Agent steps of its episode before each row, as far as they are still in the ring."""
    size = replay.priority.shape[0]
    oldest = jnp.where(replay.count > size, replay.count % size, 0)
    time = (jnp.arange(size) - oldest) % size
    # In order of time: the newest first row so far.
    is_first = jnp.roll(replay.rows.is_first, -oldest, axis=0)
    begin = jax.lax.cummax(jnp.where(is_first, jnp.arange(size)[:, None], 0), axis=0)
    return time[:, None] - jnp.roll(begin, oldest, axis=0)


def gather(
    replay: Replay, index: Int[Array, " B"], weight: Array, *, unroll_steps: int, behind: int,
    ahead: int,
) -> Batch:  # fmt: skip
    """The sequences around some rows, without frames; a sequence ends with its episode.

    Args:
      replay: a ring of T rows of N environments.
      index: flat positions, row * N + environment.
      weight: f32[B], importance weights, passed through.
      unroll_steps: K.
      behind: rows before each, F - 1.
      ahead: rows after each, K + n.

    Examples:
      >>> sizes = {"unroll_steps": 1, "behind": 0, "ahead": 3}
      >>> sequences = gather(replay, jnp.array([0, 3]), jnp.ones(2), **sizes)
      >>> sequences.action.shape, sequences.row[:, 0].tolist()
      ((2, 1), [0, 1])
    """
    size, num_envs = replay.priority.shape
    start, env = index // num_envs, index % num_envs
    time = jnp.arange(-behind, ahead + 1)

    def rows_at(ring: Array | None, relative: Int[Array, "B W"]) -> Any:
        return None if ring is None else ring[(start[:, None] + relative) % size, env[:, None]]

    is_first = rows_at(replay.rows.is_first, jnp.broadcast_to(time, (len(index), len(time))))
    # The episode of row 0 within the window: from its own first row to the row before the next
    # first row. Outside of it, the nearest row inside is repeated.
    begin = jnp.max(jnp.where(is_first & (time <= 0), time, -behind), axis=1)
    last = jnp.min(jnp.where(is_first & (time > 0), time - 1, ahead), axis=1)
    inside = jnp.clip(time, begin[:, None], last[:, None])  # [B, W]
    now = slice(behind, None)  # positions 0..ahead
    following = (start + ahead + 1) % size  # beyond the window: perhaps not written yet
    is_over = replay.rows.is_first[following, env] & ((replay.count - 1 - start) % size > ahead)
    discount = rows_at(replay.rows.discount, inside[:, now])
    return Batch(
        observation=None,  # type: ignore[arg-type] # `with_frames` puts them in
        row=(start[:, None] + inside) % size,
        action=rows_at(replay.rows.action, inside[:, now][:, :unroll_steps]),
        reward=rows_at(replay.rows.reward, inside[:, behind + 1 :]),
        discount=discount,
        policy=rows_at(replay.rows.policy, inside[:, now][:, : unroll_steps + 1]),
        value=rows_at(replay.rows.value, inside[:, now][:, : unroll_steps + 1]),
        searched=rows_at(replay.rows.searched, inside[:, now][:, : unroll_steps + 1]),
        legal=rows_at(replay.rows.legal, inside[:, now][:, : unroll_steps + 1]),
        candidates=rows_at(replay.rows.candidates, inside[:, now][:, : unroll_steps + 1]),
        last=last,
        goes_on=(last == ahead) & (discount[:, -1] > 0) & ~is_over,
        position=episode_positions(replay)[start, env],
        age=((replay.count - 1 - start) % size) * num_envs,
        index=index,
        weight=weight,
    )


def update_priorities(
    replay: Replay, index: Int[Array, " B"], priority: Float[Array, " B"]
) -> Replay:
    """Set the priorities of some rows; a priority that is not finite is dropped.

    Args:
      replay: a ring of T rows of N environments.
      index: flat positions, row * N + environment, as in `Batch.index`.
      priority: |value - target| of each, in units of reward.

    Examples:
      >>> updated = update_priorities(replay, jnp.array([1, 2]), jnp.array([5.0, jnp.nan]))
      >>> float(updated.priority[0, 1]), float(updated.priority[1, 0])
      (5.0, 1.0)
    """
    num_envs = replay.priority.shape[1]
    row, env = index // num_envs, index % num_envs
    # A single NaN in the ring would make all later samples NaN.
    priority = jnp.where(jnp.isfinite(priority), priority, replay.priority[row, env])
    return replay.replace(priority=replay.priority.at[row, env].set(priority))
