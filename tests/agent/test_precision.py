"""How far bfloat16 moves what is learned, on the network and the batch of the golden losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from golden_parts import loss_batch, loss_config

from ez_jax.agent.losses import unroll_terms
from ez_jax.agent.model import make_model, precision_of
from ez_jax.agent.search import make_search
from ez_jax.config import Config, override

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_compiling")]


@pytest.fixture(scope="module")
def run(golden):
    """Return run(precision) -> (loss terms, values of the roots, what a search finds)."""
    batch, targets = loss_batch(golden)

    @functools.cache
    def compute(precision: str):
        config = override(loss_config(golden, state_norm=False), {"precision": precision})
        model = golden.model(config, config.horizon)
        network = model.network.clone(dtype=jnp.dtype(precision))
        model = dataclasses.replace(model, network=network)

        @jax.jit
        def everything(variables, batch, targets):
            frames = batch.observation[:, : model.spec.frame_stack]
            key = jax.random.key(0)
            terms = unroll_terms(variables, key, batch, targets, model=model, config=config)
            root = model.root(variables, frames)
            search = make_search(config.search, model, discount=0.99, explore=False)
            return terms, root, search(variables, root, key)

        variables = jax.tree.map(jnp.asarray, golden.convert("loss", "param/"))
        return everything(variables, batch, targets)

    return compute


def test_bfloat16_moves_losses_by_less_than_a_hundredth(run):
    exact, rough = run("float32")[0], run("bfloat16")[0]
    for name, steps in exact.steps.items():
        mean, other = jnp.mean(steps), jnp.mean(rough.steps[name])
        assert mean != other, "it computes in another precision"
        # A cosine, small or not, is a share of 1.
        scale = 1.0 if name == "consistency" else abs(mean)
        assert abs(mean - other) <= 0.01 * scale, name


def test_bfloat16_moves_values_by_less_than_a_tenth(run):
    exact, rough = run("float32")[1].value, run("bfloat16")[1].value
    assert jnp.max(jnp.abs(exact)) > 3
    np.testing.assert_allclose(rough, exact, rtol=0, atol=0.1)


def test_states_are_bfloat16_and_everything_a_search_compares_is_float32(run):
    _, root, found = run("bfloat16")
    assert root.embedding.state.dtype == jnp.bfloat16
    compared = (root.value, root.policy_logits, root.embedding.value_prefix)
    for array in (*compared, found.value, found.policy):
        assert array.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(12, 12, 2), (3,)], ids=["image", "vector"])
def test_weights_that_are_rounded_beforehand_change_nothing(shape):
    config = tiny.make_config({"precision": "bfloat16", "network.norm": "sample"})
    model = make_model(config, tiny.make_spec(*shape))
    frames = jnp.ones((2, 1, *shape), model.spec.observation_dtype)

    @jax.jit
    def step(variables):
        root = model.root(variables, frames)
        embedding, reward = model.dynamics(variables, root.embedding, jnp.ones(2, jnp.int32))
        return root, reward, model.predict(variables, embedding)

    variables = tiny.init(model)
    rounded = model.rounded(variables)
    assert {x.dtype.name for x in jax.tree.leaves(rounded)} == {"bfloat16", "float32"}
    jax.tree.map(np.testing.assert_array_equal, step(variables), step(rounded))


def test_accelerators_compute_in_bfloat16_unless_told_otherwise(monkeypatch):
    chosen = [precision_of(Config(precision=name)) for name in ("auto", "float32", "bfloat16")]
    assert chosen == ["float32", "float32", "bfloat16"]
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert precision_of(Config()) == "bfloat16"
