"""How far bfloat16 moves what is learned, on the network and the batch of the golden losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_parts import loss_batch, loss_config

from ez_jax.agent.losses import unroll_terms
from ez_jax.agent.search import make_search
from ez_jax.config import override

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
