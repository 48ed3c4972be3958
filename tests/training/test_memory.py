import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from ez_jax.config import BadInput
from ez_jax.storage.checkpoint_items import tree_bytes
from ez_jax.structs import EnvSpec
from ez_jax.system.free_memory import Available, available_memory
from ez_jax.training.planning.memory import (
    MemoryNeeds,
    Sizes,
    check,
    residual_bytes,
    search_bytes,
)

GB = 10**9
ATARI = EnvSpec(
    game="Breakout",
    backend="envpool",
    task_id="Breakout-v5",
    num_actions=4,
    observation_shape=(96, 96, 3),
    observation_dtype=np.dtype(np.uint8),
    frame_stack=4,
    frame_skip=4,
)
PUBLISHED = Sizes(
    capacity=100_000,
    batch_size=256,
    frames=14,
    unrolled=6,
    roots=1536,
    num_simulations=50,
    choices=4,
    unsaved=10_000,
)


class Node(flax.struct.PyTreeNode):
    state: jax.Array
    step: jax.Array


def node(batch):
    return Node(state=jnp.zeros((batch, 6, 6, 64)), step=jnp.zeros(batch, jnp.int32))


def make_plan(**changes):
    return MemoryNeeds.of_sizes(
        ATARI,
        dataclasses.replace(PUBLISHED, **changes),
        train_state=jax.ShapeDtypeStruct((33_000_000,), jnp.float32),
        embedding=jax.eval_shape(lambda: node(1)),
        activation_bytes=24_000_000,
    )


def test_published_sizes():
    parts = make_plan().parts
    assert parts["replay"] == pytest.approx(2.77 * GB, rel=0.01)
    assert parts["search tree"] == pytest.approx(1536 * 51 * 36 * 64 * 4, rel=0.02)


def test_the_host_holds_the_rows_that_are_new_and_not_the_whole_replay():
    rows, whole = make_plan(), make_plan(unsaved=100_000)
    assert whole.host - rows.host == 90_000 * rows.per_step
    assert rows.host - make_plan(capacity=50_000).host == 50_000 * (4 + 3) * 4


def test_frames_in_host_memory_are_counted_there_and_once_more_per_batch_on_the_way():
    rows = make_plan(drawn=512)
    frames, on_the_way = 100_000 * 96 * 96 * 3, 512 * 14 * 96 * 96 * 3
    elsewhere = rows.at(on_host=True)
    assert rows.device - elsewhere.device == frames - on_the_way
    assert elsewhere.host - rows.host == frames + on_the_way
    assert rows.replay == elsewhere.replay == rows.parts["replay"]
    assert elsewhere.parts["replay without frames"] == rows.replay - frames
    assert "2.76 GB of it frames of the replay" in elsewhere.describe()


def test_search_bytes_are_those_of_the_tree_that_mctx_makes():
    batch, actions, simulations = 2, 3, 4

    def run():
        root = mctx.RootFnOutput(
            prior_logits=jnp.zeros((batch, actions)), value=jnp.zeros(batch), embedding=node(batch)
        )

        def recurrent_fn(params, key, action, embedding):
            zeros = jnp.zeros(batch)
            output = mctx.RecurrentFnOutput(
                reward=zeros,
                discount=zeros,
                prior_logits=jnp.zeros((batch, actions)),
                value=zeros,
            )
            return output, embedding

        key = jax.random.key(0)
        return mctx.gumbel_muzero_policy((), key, root, recurrent_fn, simulations).search_tree

    tree = jax.eval_shape(run)
    plain = dataclasses.replace(tree, extra_data=None, root_invalid_actions=None)
    sizes = dataclasses.replace(PUBLISHED, num_simulations=simulations, choices=actions)
    expected = search_bytes(tree_bytes(jax.eval_shape(lambda: node(1))), ATARI, sizes)
    assert tree_bytes(plain) == batch * expected


def test_residual_bytes_count_what_a_gradient_keeps():
    def forward(weight, x):
        y = jnp.sin(weight * x)  # keeps x, and the cosine
        return y.astype(jnp.bfloat16).astype(jnp.float32) + 1  # these keep nothing

    weight, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((), (10,)))
    assert residual_bytes(forward, weight, x) == 2 * 40


def test_a_run_that_fits_passes():
    check(make_plan(), Available(device=80 * GB, host=80 * GB, is_shared=False))


@pytest.mark.parametrize(
    "available",
    [
        Available(device=11 * GB, host=11 * GB, is_shared=True),
        Available(device=9 * GB, host=64 * GB, is_shared=False),
        Available(device=80 * GB, host=GB, is_shared=False),
    ],
)
def test_the_replay_that_is_advised_fits_and_is_the_largest(available):
    plan = make_plan()
    with pytest.raises(BadInput, match="would fit") as refusal:
        check(plan, available)
    sentence = str(refusal.value)
    assert "GB are available" in sentence
    assert "batch_size" not in sentence
    capacity = int(sentence.split("replay.capacity=")[1].split()[0])
    check(make_plan(capacity=capacity), available)
    with pytest.raises(BadInput):
        check(make_plan(capacity=int(capacity * 1.02)), available)


def test_host_memory_is_advised_where_only_the_device_is_too_small():
    plan = make_plan()
    available = Available(device=9 * GB, host=64 * GB, is_shared=False)
    with pytest.raises(BadInput, match=r"replay.memory=host would fit; replay.capacity=\d+ would"):
        check(plan, available)
    check(plan.at(on_host=True), available)
    for other in (
        Available(device=9 * GB, host=3 * GB, is_shared=False),
        Available(device=9 * GB, host=9 * GB, is_shared=True),
    ):
        with pytest.raises(BadInput) as refusal:
            check(plan, other)
        assert "replay.memory" not in str(refusal.value)


def test_a_smaller_batch_is_advised_where_no_replay_would_do():
    available = Available(device=4 * GB, host=64 * GB, is_shared=False)
    with pytest.raises(BadInput, match=r"replay.capacity=\d+ learner.batch_size=64 would fit"):
        check(make_plan(), available)


def test_nothing_fits():
    with pytest.raises(BadInput, match="preset=small or a larger machine"):
        check(make_plan(), Available(device=GB // 10, host=GB, is_shared=False))


def test_this_machine_has_some_memory():
    available = available_memory()
    assert 10**8 < available.host < 10**14
    assert available.is_shared == (jax.default_backend() == "cpu")
