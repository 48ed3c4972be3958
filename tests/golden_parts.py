"""What the golden files describe, made of our parts: batches, replay contents, models to search."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from golden_params import Golden, under

from ez_jax.agent.replay import ring
from ez_jax.config import Config
from ez_jax.structs import Batch, Embedding, Replay, Root, Row, Targets

ADD = jax.jit(ring.add)


def loss_config(golden: Golden, *, state_norm: bool) -> Config:
    """Settings of the golden losses."""
    sizes, optim = golden.sizes, golden.meta["loss"]["optim"]
    weights = golden.meta["loss"]["coefficients"]
    changes = {
        "network.state_norm": state_norm,
        "learner.unroll_steps": sizes["unroll"],
        "learner.batch_size": sizes["batch"],
        "learner.augment": False,
        "learner.learning_rate": optim["lr"],
        "learner.max_grad_norm": optim["max_grad_norm"],
        "learner.weight_decay": optim["weight_decay"],
        "learner.momentum": optim["momentum"],
        **{f"loss.{name}": float(weight) for name, weight in weights.items()},
    }
    return golden.config("loss", changes)


def loss_batch(golden: Golden) -> tuple[Batch, Targets]:
    """The batch of the golden losses, and its targets."""
    arrays = golden.load("loss")
    size, steps = arrays["actions"].shape
    pixels = arrays["obs"]
    frames = pixels.reshape(size, -1, 3, *pixels.shape[2:]).transpose(0, 1, 3, 4, 2)
    mask = np.concatenate([np.ones((size, 1), np.float32), arrays["mask"]], axis=1)
    batch = Batch(
        observation=frames,
        row=np.zeros(frames.shape[:2], np.int32),
        action=arrays["actions"].astype(np.int32),
        reward=np.zeros((size, steps)),
        discount=np.ones((size, steps + 1)),
        policy=arrays["target_policy"],
        value=arrays["target_value"],
        searched=np.zeros((size, steps + 1), np.int32),
        last=np.full(size, steps, np.int32),
        goes_on=np.ones(size, bool),
        position=np.zeros(size, np.int32),
        age=np.zeros(size, np.int32),
        index=np.arange(size),
        weight=arrays["weights"],
    )
    targets = Targets(
        value=arrays["target_value"],
        value_prefix=arrays["target_value_prefix"][:, :steps],
        policy=arrays["target_policy"],
        mask=mask,
        policy_mask=mask,
    )
    return batch, targets


def stored_episodes(golden: Golden) -> tuple[Replay, np.ndarray]:
    """Return the replay of the golden episodes, and the ring position of every stored step."""
    arrays, sizes = golden.load("targets"), golden.sizes
    rows, positions = [], []
    for e in range(len(sizes["episodes"])):
        episode = under(arrays, f"episode{e}/")
        length = len(episode["rewards"])
        for i in range(length + 1):
            is_last = i == length
            row = min(i, length - 1)
            rows.append(
                Row(
                    observation=np.float32([[episode["frame_ids"][i]]]),
                    reward=np.float32([episode["rewards"][i - 1] if i else 0]),
                    discount=np.float32([0 if is_last else 1]),
                    is_first=np.array([i == 0]),
                    action=np.int32([episode["actions"][row]]),
                    policy=np.float32([episode["visits"][row] / episode["visits"][row].sum()]),
                    value=np.float32([episode["root_values"][row]]),
                    searched=np.int32([0]),
                )
            )
        positions += range(len(rows) - length - 1, len(rows) - 1)
    rows.append(jax.tree.map(np.ones_like, rows[0]))  # the first of the next episode
    spec = tiny.make_spec(1, actions=sizes["actions"])
    window = sizes["stack"] + sizes["unroll"] + sizes["td_steps"]
    replay = ring.init_replay(spec, rows=len(rows) + window, num_envs=1)
    for row in rows:
        replay = ADD(replay, row)
    return replay, np.array(positions)


class FrameModel:
    """Stands in for a model: a frame is its number, its value and policy stand in a table."""

    def __init__(self, arrays: dict[str, np.ndarray], stack: int):
        self.spec = tiny.make_spec(1, stack=stack)
        self.value = jnp.asarray(arrays["value_by_frame"])

    def root(self, variables: dict, frames: jax.Array) -> Root:
        del variables
        frame = frames[:, -1, 0].astype(jnp.int32)
        nothing = jnp.zeros(frame.shape)
        embedding = Embedding(
            state=frame, carry=(nothing, nothing), value_prefix=nothing, step=nothing
        )
        return Root(embedding=embedding, policy_logits=nothing, value=self.value[frame])


class TableModel:
    """Stands in for a model: a state is a number, everything else stands in tables."""

    def __init__(self, tables: dict[str, np.ndarray], *, accumulate: bool, horizon: int):
        self.tables = {name: jnp.asarray(table) for name, table in tables.items()}
        self.accumulate, self.horizon = accumulate, horizon

    def dynamics(self, variables: dict, embedding: Embedding, action: jax.Array):
        del variables
        prefix = self.tables["reward"][embedding.state, action]
        if self.accumulate:
            prefix += embedding.carry[0]
        step = embedding.step + 1
        ends = step == self.horizon
        following = Embedding(
            state=self.tables["transition"][embedding.state, action],
            carry=(jnp.where(ends, 0.0, prefix), embedding.carry[1]),
            value_prefix=jnp.where(ends, 0.0, prefix),
            step=jnp.where(ends, 0, step),
        )
        return following, prefix - embedding.value_prefix

    def predict(self, variables: dict, embedding: Embedding):
        del variables
        return self.tables["policy_logits"][embedding.state], self.tables["value"][embedding.state]
