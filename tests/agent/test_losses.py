"""The unrolled loss: what it sums, and what must not reach the gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent import continuous, losses
from ez_jax.agent.losses import negative_cosine, unroll_loss
from ez_jax.agent.model import Model, make_model
from ez_jax.config import override
from ez_jax.structs import Batch, Embedding, Targets

pytestmark = pytest.mark.usefixtures("quick_compiling")

# The vector network: only the batch norm of the projections mixes the samples of a batch.
CONFIG = tiny.make_config()
STEPS, SUPPORT = CONFIG.learner.unroll_steps, CONFIG.network.support


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.make_vector_model(CONFIG)


@pytest.fixture(scope="module")
def variables(model) -> dict:
    return tiny.init(model)


@pytest.fixture(scope="module")
def batch(model) -> Batch:
    return tiny.random_batch(CONFIG, model.spec)


@pytest.fixture(scope="module")
def targets(batch) -> Targets:
    """Noise; samples 1 and 2 are masked from steps 2 and 0 on."""
    rng = np.random.default_rng(1)
    size = len(batch.index)
    mask = np.ones((size, STEPS + 1), np.float32)
    mask[1, 2:], mask[2] = 0, 0
    policy_mask = mask * (rng.random(mask.shape) < 0.7)
    return Targets(
        value=jnp.asarray(rng.normal(0, 5, (size, STEPS + 1)), jnp.float32),
        value_prefix=jnp.asarray(rng.normal(0, 5, (size, STEPS)), jnp.float32),
        policy=batch.policy,
        mask=jnp.asarray(mask),
        policy_mask=jnp.asarray(policy_mask, jnp.float32),
    )


@pytest.fixture(scope="module")
def differentiate(model, variables):
    """Return call(batch, targets, config) -> (gradient of the parameters, LossOutput)."""

    def loss(params, batch, targets, config):
        key, stats = jax.random.key(0), variables["batch_stats"]
        return unroll_loss(params, stats, key, batch, targets, model=model, config=config)

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=3)
    return lambda batch, targets, config=CONFIG: jax.device_get(
        gradient(variables["params"], batch, targets, config)
    )


def assert_trees_close(one, other, atol=1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=atol), one, other)


def two_hot_by_hand(x: float) -> np.ndarray:
    """MuZero, appendix F."""
    y = np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 0.001 * x
    y = np.clip(y, -SUPPORT, SUPPORT)
    low = min(int(np.floor(y)), SUPPORT - 1)
    distribution = np.zeros(2 * SUPPORT + 1)
    distribution[low + SUPPORT], distribution[low + 1 + SUPPORT] = low + 1 - y, y - low
    return distribution


def cross_entropy_by_hand(target: np.ndarray, logits: np.ndarray) -> float:
    logits = np.asarray(logits, np.float64)
    return float(-np.sum(target * (logits - np.log(np.sum(np.exp(logits))))))


def decode_by_hand(logits: np.ndarray) -> np.ndarray:
    """The inverse of h, as published, of the expected bin."""
    weights = np.exp(np.asarray(logits, np.float64))
    y = weights @ np.arange(-SUPPORT, SUPPORT + 1) / weights.sum(-1)
    root = (np.sqrt(1 + 4 * 0.001 * (np.abs(y) + 1 + 0.001)) - 1) / (2 * 0.001)
    return np.sign(y) * (root**2 - 1)


@pytest.fixture(scope="module")
def predictions(model, variables, batch):
    """What the network says at each step: (policy, value logits), prefix logits, projections."""

    @jax.jit
    def step(variables, embedding, action, frames):
        embedding, prefix, variables = model.step(variables, embedding, action, train=True)
        heads, _ = model.heads(variables, embedding.state, train=True)
        online, _ = model.projections(variables, embedding.state, predict=True)
        seen, _ = model.encode(variables, frames, train=True)
        target, _ = model.projections(variables, seen.state, predict=False)
        return embedding, (heads, prefix, (online, target))

    embedding = model.represent(variables, batch.observation[:, :1])
    steps = [(model.heads(variables, embedding.state)[0], None, None)]
    for k in range(1, STEPS + 1):
        frames = batch.observation[:, k : k + 1]
        embedding, said = step(variables, embedding, batch.action[:, k - 1], frames)
        steps.append(said)
    return jax.device_get(steps)


def test_the_loss_is_the_weighted_sum_over_terms_steps_and_samples(
    differentiate, predictions, batch, targets
):
    batch, targets = jax.device_get((batch, targets))
    weights = {"policy": 1.0, "value": 0.25, "value_prefix": 1.0, "consistency": 2.0}
    means, total = dict.fromkeys(weights, 0.0), 0.0
    size = len(batch.index)
    for b in range(size):
        sums = dict.fromkeys(weights, 0.0)
        for k in range(STEPS + 1):
            (policy_logits, value_logits), prefix_logits, projections = predictions[k]
            mask = targets.mask[b, k]
            policy = cross_entropy_by_hand(targets.policy[b, k], policy_logits[b])
            sums["policy"] += targets.policy_mask[b, k] * policy
            value = two_hot_by_hand(float(targets.value[b, k]))
            sums["value"] += mask * cross_entropy_by_hand(value, value_logits[b])
            if k > 0:
                prefix = two_hot_by_hand(float(targets.value_prefix[b, k - 1]))
                sums["value_prefix"] += mask * cross_entropy_by_hand(prefix, prefix_logits[b])
                online, target = (x[b] / np.linalg.norm(x[b]) for x in projections)
                sums["consistency"] -= mask * np.dot(online, target)
        total += batch.weight[b] * sum(weights[name] * sums[name] for name in weights) / size
        means = {name: means[name] + sums[name] / size for name in weights}

    _, output = differentiate(batch, targets)

    np.testing.assert_allclose(output.loss, total, rtol=1e-4)
    assert output.terms.keys() == means.keys()
    for name, mean in means.items():
        np.testing.assert_allclose(output.terms[name], mean, rtol=1e-4, err_msg=name)


def test_nothing_after_the_end_of_an_episode_reaches_the_loss(differentiate, batch, targets):
    # Sample 1 is masked from step 2 on: action 1 leads there.
    action = batch.action.at[1, 1:].set((batch.action[1, 1:] + 1) % tiny.ACTIONS)
    other = batch.replace(action=action, observation=batch.observation.at[1, 2:].add(1.0))
    elsewhere = targets.replace(
        value=targets.value.at[1, 2:].add(3.0),
        value_prefix=targets.value_prefix.at[1, 1:].add(3.0),
        policy=targets.policy.at[1, 2:].set(jax.nn.one_hot(0, tiny.ACTIONS)),
    )
    config = override(CONFIG, {"consistency": False})  # its batch norm mixes the samples
    gradient, output = differentiate(batch, targets, config)
    same_gradient, same_output = differentiate(other, elsewhere, config)
    assert_trees_close(gradient, same_gradient)
    np.testing.assert_allclose(output.loss, same_output.loss, rtol=1e-6)


def test_a_masked_sample_counts_as_one_without_weight(differentiate, batch, targets):
    unmasked = targets.replace(
        mask=targets.mask.at[2].set(1), policy_mask=targets.mask.at[2].set(1)
    )
    weightless = batch.replace(weight=batch.weight.at[2].set(0.0))
    masked, _ = differentiate(batch, targets)
    without_weight, _ = differentiate(
        weightless, unmasked.replace(policy_mask=targets.policy_mask.at[2].set(1))
    )
    assert_trees_close(masked, without_weight)


def test_the_gradient_is_the_weighted_sum_of_the_samples_gradients(differentiate, batch, targets):
    size = len(batch.index)
    alone = [differentiate(batch.replace(weight=jnp.eye(size)[b]), targets)[0] for b in range(size)]
    together, _ = differentiate(batch, targets)
    weight = np.asarray(batch.weight)
    expected = jax.tree.map(lambda *xs: sum(w * x for w, x in zip(weight, xs, strict=True)), *alone)
    assert_trees_close(together, expected)


class Linear:
    """Stands in for a model; each of its methods has a parameter of its own."""

    spec = tiny.make_spec(2)

    def encode(self, variables, frames, *, train):
        size = len(frames)
        embedding = Embedding(
            state=variables["params"]["encode"] * frames[:, 0],
            carry=(jnp.zeros((size, 1)), jnp.zeros((size, 1))),
            value_prefix=jnp.zeros(size),
            step=jnp.zeros(size, jnp.int32),
        )
        return embedding, variables

    def step(self, variables, embedding, action, *, train):
        state = embedding.state + variables["params"]["step"] * (action[:, None] + 1)
        return embedding.replace(state=state), self._logits(state), variables

    def heads(self, variables, state, *, train, depth):
        return (jnp.zeros((len(state), tiny.ACTIONS)), self._logits(state)), variables

    def projections(self, variables, state, *, predict, depth):
        return state + variables["params"]["predict" if predict else "project"], variables

    def _logits(self, state):
        return jnp.zeros((len(state), 2 * SUPPORT + 1))


@pytest.fixture(scope="module")
def linear_loss(batch, targets):
    """Return loss(params, changes) of the linear model, whose roots are all zero."""
    batch = batch.replace(observation=batch.observation.at[:, 0].set(0.0))

    def loss(params, changes):
        config = tiny.make_config(changes)
        key = jax.random.key(0)
        return unroll_loss(params, {}, key, batch, targets, model=Linear(), config=config)

    return loss


def test_the_observed_side_of_the_consistency_loss_gets_no_gradient(linear_loss):
    params = {"encode": 1.0, "step": jnp.array([1.0, 0.5]), "project": jnp.ones(2)}
    params["predict"] = jnp.array([0.5, 0.0])
    consistency_alone = {"loss.policy": 0, "loss.value": 0, "loss.value_prefix": 0}
    gradient = jax.jit(jax.grad(lambda params: linear_loss(params, consistency_alone)[0]))
    grads: dict[str, Any] = gradient(params)
    # Roots are zero, so `encode` could get a gradient from the observed side alone.
    assert np.all(grads["encode"] == 0)
    assert np.all(grads["project"] == 0)
    assert np.all(grads["step"] != 0)
    assert np.all(grads["predict"] != 0)


def test_without_consistency_nothing_is_projected(linear_loss):
    params = {"encode": 1.0, "step": jnp.ones(2)}  # projections would miss their parameters
    _, output = jax.eval_shape(lambda: linear_loss(params, {"consistency": False}))
    assert output.terms.keys() == {"policy", "value", "value_prefix"}


def test_a_term_without_a_weight_is_an_error(monkeypatch, linear_loss):
    monkeypatch.setattr(losses, "loss_weights", lambda config: {"policy": 1.0, "valeu": 0.25})
    params = {"encode": 1.0, "step": jnp.ones(2)}
    with pytest.raises(ValueError, match="valeu"):
        jax.eval_shape(lambda: linear_loss(params, {"consistency": False}))


@pytest.mark.parametrize("numbers", [0, 2], ids=["discrete", "continuous"])
def test_the_entropy_of_the_policy_is_a_term_if_it_has_a_weight(batch, targets, numbers):
    rng, shape = np.random.default_rng(2), targets.policy.shape
    width = 2 * numbers or shape[-1]
    policy = rng.normal(size=(STEPS + 1, shape[0], width)).astype(np.float32)
    value = np.zeros((STEPS + 1, shape[0], 2 * SUPPORT + 1), np.float32)
    if numbers:
        drawn = rng.uniform(-0.9, 0.9, (*shape, numbers))
        targets = targets.replace(candidates=jnp.asarray(drawn, jnp.float32))
        entropy = np.asarray(continuous.entropy(policy))
    else:
        p = np.exp(policy) / np.exp(policy).sum(-1, keepdims=True)
        entropy = -(p * np.log(p)).sum(-1)
    weighted = override(CONFIG, {"loss.entropy": 0.05})
    terms = losses._head_losses((policy, value), targets, weighted)
    expected = -np.asarray(targets.policy_mask).T * entropy
    np.testing.assert_allclose(terms["entropy"], expected, rtol=1e-4, atol=1e-6)
    assert losses.loss_weights(weighted)["entropy"] == 0.05
    assert "entropy" not in losses._head_losses((policy, value), targets, CONFIG)
    assert "entropy" not in losses.loss_weights(CONFIG)


def test_priorities_are_the_errors_of_the_root_values(differentiate, predictions, batch, targets):
    (_, value_logits), _, _ = predictions[0]
    _, output = differentiate(batch, targets)
    expected = np.abs(decode_by_hand(value_logits) - targets.value[:, 0]) + 1e-6
    np.testing.assert_allclose(output.priority, expected, rtol=1e-5, atol=1e-5)


def test_the_cosine_of_a_zero_vector_has_a_finite_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    y = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(negative_cosine(x, y), [0, -0.8], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(negative_cosine(x, y)))(x)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((2,), {}),
        ((8, 8, 1), {"network.blocks": 0}),
        pytest.param(
            (8, 8, 1),
            {"network.norm": "batch_per_depth", "network.blocks": 0},
            marks=pytest.mark.long,
        ),
    ],
)
def test_all_steps_at_once_give_what_one_after_the_other_gives(monkeypatch, shape, changes):
    """Statistics included, which move with every step on both sides of the consistency loss."""
    model = make_model(tiny.make_config(changes), tiny.make_spec(*shape))
    rng, variables = np.random.default_rng(0), dict(tiny.init(model))
    random = lambda x: jnp.asarray(rng.uniform(0.1, 0.3, x.shape), x.dtype)  # noqa: E731
    variables["batch_stats"] = jax.tree.map(random, variables["batch_stats"])
    frames = jnp.asarray(rng.uniform(size=(3, 8, 1, *shape)), jnp.float32)
    imagined = jax.vmap(lambda x: model.represent(variables, x))(frames[::-1])
    found = []
    for at_once in (True, False):
        monkeypatch.setattr(type(model.network), "steps_at_once", at_once)
        run = jax.jit(lambda *given: losses._consistency(model, *given))
        found.append(run(variables, imagined, frames))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-3)
    jax.tree.map(close, *found)
    moved = jax.tree.map(lambda new, old: jnp.max(jnp.abs(new - old)), found[0][2], variables)
    for side in ("projector", "predictor"):
        assert all(distance > 1e-3 for distance in jax.tree.leaves(moved["batch_stats"][side]))
