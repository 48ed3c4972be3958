"""Normalisations of the image network: plain numpy, and acting beside training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.losses import GAP_EVERY, unroll_terms
from ez_jax.agent.model import make_model
from ez_jax.agent.networks.image import Center
from ez_jax.agent.networks.layers import (
    BATCH_NORM_MOMENTUM,
    NORM_EPSILON,
    NORMS,
    LayerNorm,
    SampleNorm,
    norm_of,
)
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config

pytestmark = pytest.mark.usefixtures("quick_compiling")

SPEC = tiny.make_spec(3, 3, 1)
FREE = ("sample", "layer")  # of statistics
REST = [norm for norm in NORMS if norm not in ("batch", "sample")]


def config_of(norm: str, **changes):
    return tiny.make_config({"network.norm": norm, "learner.augment": False, **changes})


@functools.cache
def model_of(norm: str):
    return make_model(config_of(norm), SPEC)


@functools.cache
def variables_of(norm: str):
    """Parameters and statistics, every entry of both another one."""
    variables, rng = tiny.init(model_of(norm)), np.random.default_rng(5)
    other = lambda x: x + rng.uniform(0.1, 1, x.shape).astype(np.float32)  # noqa: E731
    return {**variables, "batch_stats": jax.tree.map(other, variables["batch_stats"])}


@pytest.fixture(scope="module")
def frames():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 1, 3, 3, 1)), jnp.uint8)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 6)], ids=["image", "vector"])
@pytest.mark.parametrize("norm", [SampleNorm, LayerNorm])
def test_norms_without_statistics_are_those_of_the_formula(norm, shape):
    rng = np.random.default_rng(1)
    x, scale, bias = rng.normal(3, 2, shape), rng.normal(size=6), rng.normal(size=6)
    expected = np.empty(shape)
    for b in range(shape[0]):
        # All of a sample at once, or every cell by itself.
        cells = [()] if norm is SampleNorm else np.ndindex(shape[1:-1])
        for cell in cells:
            part = x[(b, *cell)]
            variance = np.mean((part - part.mean()) ** 2)
            expected[(b, *cell)] = (part - part.mean()) / np.sqrt(variance + NORM_EPSILON)
    params = {"params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}}
    for train in (False, True):
        y = norm().apply(params, jnp.asarray(x), train)
        np.testing.assert_allclose(y, expected * scale + bias, rtol=1e-4, atol=1e-5)


@functools.cache
def passes(norm: str, train: bool):
    """A root and the step after it, jitted: state, policy, value and prefix logits of both."""
    model = model_of(norm)

    @jax.jit
    def run(variables, frames):
        root, _ = model.encode(variables, frames, train=train)
        action = jnp.arange(len(frames)) % tiny.ACTIONS
        following, prefix, _ = model.step(variables, root, action, train=train)
        heads = [
            model.heads(variables, at.state, train=train, depth=at.depth)[0]
            for at in (root, following)
        ]
        return root.state, following.state, prefix, heads

    return run


@pytest.mark.parametrize(
    "norm", ["batch", "sample", *(pytest.param(n, marks=pytest.mark.long) for n in REST)]
)
def test_only_without_statistics_acting_is_training(norm, frames):
    variables = variables_of(norm)
    acting, training = (passes(norm, train)(variables, frames) for train in (False, True))
    close = [
        np.allclose(one, other, rtol=1e-4, atol=1e-5)
        for one, other in zip(*map(jax.tree.leaves, (acting, training)), strict=True)
    ]
    assert all(close) if norm in FREE else not any(close)
    among = variables["batch_stats"].keys()
    assert (among == {"projector", "predictor"}) == (norm in FREE)


def test_a_depth_is_counted_only_where_statistics_differ_by_it(frames):
    for norm in NORMS:
        model = model_of(norm)
        root = jax.eval_shape(model.root, variables_of(norm), frames)
        assert (root.embedding.depth is not None) == (norm == "batch_per_depth")


def test_every_node_acts_by_the_statistics_of_its_own_depth(frames):
    model, variables = model_of("batch_per_depth"), variables_of("batch_per_depth")
    plain, last = model_of("batch"), config_of("batch").learner.unroll_steps
    at = lambda k: {  # noqa: E731
        **variables,
        "batch_stats": jax.tree.map(lambda x: x[min(k, last)], variables["batch_stats"]),
    }
    by_depth = jax.jit(model.predict)
    one_by_one = jax.jit(plain.predict)
    step, plain_step = jax.jit(model.dynamics), jax.jit(plain.dynamics)

    root = jax.jit(model.represent)(variables, frames)
    np.testing.assert_array_equal(root.depth, 0)
    depths = np.array([0, 1, last, last + 4], np.int32)
    mixed = root.replace(depth=jnp.asarray(depths))
    found = by_depth(variables, mixed)
    action = jnp.zeros(len(frames), jnp.int32)
    following, reward = step(variables, mixed, action)
    np.testing.assert_array_equal(following.depth, depths + 1)
    for b, k in enumerate(depths):
        alone = root.replace(depth=None)
        for one, expected in zip(found, one_by_one(at(k), alone), strict=True):
            np.testing.assert_allclose(one[b], expected[b], rtol=1e-4, atol=1e-5)
        expected, expected_reward = plain_step(at(k + 1), alone, action)
        np.testing.assert_allclose(following.state[b], expected.state[b], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(reward[b], expected_reward[b], rtol=1e-3, atol=1e-4)


@functools.cache
def unrolled(norm: str):
    """A batch, and one training pass over it from statistics that are all different."""
    size = GAP_EVERY + 2
    config = config_of(norm, **{"learner.batch_size": size})
    model, variables = model_of(norm), variables_of(norm)
    batch = tiny.random_batch(config, SPEC)

    @jax.jit
    def run(variables, batch):
        targets = make_targets(config, model)(variables, batch, jnp.zeros((), jnp.int32))
        given = jax.random.key(0), batch, targets
        return unroll_terms(variables, *given, model=model, config=config)

    return batch, run(variables, batch)


@pytest.mark.long
def test_training_moves_the_statistics_of_each_depth_by_its_own_batch():
    model, variables = model_of("batch_per_depth"), variables_of("batch_per_depth")
    batch, found = unrolled("batch_per_depth")
    before, after = (
        tree["dynamics"]["norm"] for tree in (variables["batch_stats"], found.batch_stats)
    )
    embedding, _ = model.encode(variables, batch.observation[:, :1], train=True)
    np.testing.assert_array_equal(after["mean"][0], before["mean"][0])  # nothing leads to a root
    kernel = variables["params"]["dynamics"]["conv"]["kernel"]
    for k in range(1, batch.action.shape[1] + 1):
        plane = jnp.full((*embedding.state.shape[:-1], 1), 1.0)
        plane *= (batch.action[:, k - 1] / tiny.ACTIONS)[:, None, None, None]
        x = np.pad(jnp.concatenate([embedding.state, plane], -1), ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = sum(x[:, i : i + 3, j : j + 3] @ kernel[i, j] for i in range(3) for j in range(3))
        y = np.asarray(y, np.float64).reshape(-1, y.shape[-1])
        for name, new in [("mean", y.mean(0)), ("var", y.var(0, ddof=1))]:
            keep = BATCH_NORM_MOMENTUM
            expected = keep * before[name][k] + (1 - keep) * new
            np.testing.assert_allclose(after[name][k], expected, rtol=1e-4, atol=1e-5)
        embedding, _, _ = model.step(variables, embedding, batch.action[:, k - 1], train=True)


def test_without_statistics_there_is_no_value_gap():
    assert float(unrolled("sample")[1].value_gap) == 0


@pytest.mark.long
def test_the_value_gap_is_that_of_some_samples_when_acting():
    norm = "batch_per_depth"
    batch, found = unrolled(norm)
    acting = jax.jit(model_of(norm).root)(variables_of(norm), batch.observation[:, :1]).value
    gaps = [abs(float(acting[b] - found.value[0, b])) for b in (0, GAP_EVERY)]
    assert float(found.value_gap) == pytest.approx(np.mean(gaps), rel=1e-3)
    assert min(gaps) > 1e-3


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_running_statistics_keep_as_much_as_the_momentum_says(momentum):
    config = dataclasses.replace(Config().network, norm="batch", norm_momentum=momentum)
    norm, x = norm_of(config)(jnp.float32), jax.random.normal(jax.random.key(0), (8, 3)) * 2 + 1
    variables = norm.init(jax.random.key(1), x, False)
    _, after = norm.apply(variables, x, True, mutable=["batch_stats"])
    kept = (1 - momentum) * np.asarray(x).mean(0)
    np.testing.assert_allclose(after["batch_stats"]["mean"], kept, rtol=1e-5)


def test_the_mean_image_is_taken_away_and_runs_in_training_alone():
    images = jax.random.uniform(jax.random.key(0), (6, 5, 4, 2))
    images = images.at[:, 0].set(0.75)  # a row that never changes
    center = Center()
    variables = center.init(jax.random.key(1), images, True)
    np.testing.assert_array_equal(center.apply(variables, images, False), images)
    for _ in range(1_000):
        _, variables = center.apply(variables, images, True, mutable=["batch_stats"])
    seen, unchanged = center.apply(variables, images, False, mutable=["batch_stats"])
    np.testing.assert_allclose(seen, images - images.mean(0), atol=1e-4)
    np.testing.assert_allclose(seen[:, 0], 0, atol=1e-4)
    np.testing.assert_array_equal(
        unchanged["batch_stats"]["mean"], variables["batch_stats"]["mean"]
    )


def test_with_a_mean_image_acting_is_training():
    model = make_model(config_of("sample", **{"network.center": True}), SPEC)
    variables = tiny.init(model)
    assert set(variables["batch_stats"]) == {"projector", "predictor", "center"}
    frames = jax.random.uniform(jax.random.key(2), (4, 1, *SPEC.observation_shape))
    acting, _ = model.encode(variables, frames)
    trained, after = model.encode(variables, frames, train=True)
    np.testing.assert_array_equal(acting.state, trained.state)
    assert np.abs(after["batch_stats"]["center"]["mean"]).max() > 0
