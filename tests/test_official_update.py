"""One training batch and two updates equal those of the official code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from golden_params import convert, load, under

from ez_jax.learner import make_optimizer, make_update
from ez_jax.model import Model
from ez_jax.networks import ImageNetwork
from ez_jax.structs import Batch, Targets, TrainState

LATENT = 2  # side of the golden latent images
HORIZONS = {"official": 5, "reset": 2}
MAX_GRAD_NORM = 4.486000061035156
# The official prediction network also sees the observed states of the consistency loss, which moves
# its running statistics and nothing else.
OFFICIAL_MOVES_MORE = ("prediction_tower", "policy_", "value_neck", "value_head")
GOLDEN_CONFIG = tiny.make_config(
    {
        "network.channels": 8,
        "network.head_channels": 4,
        "network.lstm_width": 16,
        "network.projection": 32,
        "network.predictor_hidden": 16,
        "network.support": 10,
        "learner.unroll_steps": 5,
        "learner.batch_size": 6,
        "learner.augment": False,
        "learner.learning_rate": 0.05,
        "learner.max_grad_norm": MAX_GRAD_NORM,
        "learner.weight_decay": 1e-4,
        "learner.momentum": 0.9,
    }
)


def golden_batch(golden: dict[str, np.ndarray]) -> tuple[Batch, Targets]:
    size, steps = golden["actions"].shape
    frames = golden["obs"].reshape(size, -1, 3, *golden["obs"].shape[2:]).transpose(0, 1, 3, 4, 2)
    mask = np.concatenate([np.ones((size, 1), np.float32), golden["mask"]], axis=1)
    batch = Batch(
        observation=frames,
        action=golden["actions"].astype(np.int32),
        reward=np.zeros((size, steps)),
        discount=np.ones((size, steps + 1)),
        policy=golden["target_policy"],
        value=golden["target_value"],
        last=np.full(size, steps, np.int32),
        age=np.zeros(size, np.int32),
        index=np.arange(size),
        weight=golden["weights"],
    )
    targets = Targets(
        value=golden["target_value"],
        value_prefix=golden["target_value_prefix"][:, :steps],
        policy=golden["target_policy"],
        mask=mask,
        policy_mask=mask,
    )
    return batch, targets


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return load("loss")


@pytest.fixture(scope="module")
def golden_update(golden):
    """Return update(horizon, train) -> (train, output, metrics, gradient) on the golden batch."""
    spec = tiny.make_spec(32, 32, 3, stack=4, actions=4)
    network = ImageNetwork(GOLDEN_CONFIG.network, 4)

    @jax.jit  # the horizon is traced, so that both variants share one compilation
    def run(horizon: jax.Array, train: TrainState, batch: Batch, targets: Targets):
        model = Model(network=network, spec=spec, horizon=horizon, support=10)
        return make_update(GOLDEN_CONFIG, model)(train, jax.random.key(0), batch, targets)

    batch, targets = golden_batch(golden)
    return lambda horizon, train: run(jnp.int32(horizon), train, batch, targets)


def golden_train(golden) -> TrainState:
    variables = jax.tree.map(jnp.asarray, convert(under(golden, "param/"), LATENT))
    return TrainState(
        variables=variables,
        next_target=variables,
        target=variables,
        opt_state=make_optimizer(GOLDEN_CONFIG.learner).init(variables["params"]),
        updates=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )


def unclipped_gradient(train: TrainState, before: TrainState, norm: float) -> dict:
    """The gradient, from the momentum after the first update: clipped gradient plus L2 term."""
    momentum = train.opt_state[2].trace
    decay = GOLDEN_CONFIG.learner.weight_decay
    return jax.tree.map(
        lambda m, p: (m - decay * p) * max(1, norm / MAX_GRAD_NORM),
        momentum,
        before.variables["params"],
    )


@pytest.fixture(scope="module")
def after_one_update(golden, golden_update):
    """Return both variants' (train, output, gradient norm) after one update."""
    before = golden_train(golden)
    results = {}
    for variant, horizon in HORIZONS.items():
        train, output, metrics = golden_update(horizon, before)
        results[variant] = train, output, float(metrics["opt/grad_norm"])
    return results


@pytest.mark.parametrize("variant", HORIZONS)
def test_losses_and_priorities_equal_the_official_code(golden, after_one_update, variant):
    _, output, norm = after_one_update[variant]
    expected = under(golden, f"{variant}/")
    for name, term in output.terms.items():
        np.testing.assert_allclose(term, expected[f"mean_{name}_loss"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.loss, expected["total_loss"], rtol=1e-5)
    np.testing.assert_allclose(output.priority, expected["priorities"], rtol=0, atol=4e-3)
    np.testing.assert_allclose(norm, expected["grad_norm"], rtol=2e-5)


@pytest.mark.parametrize("variant", HORIZONS)
def test_gradients_equal_the_official_code(golden, after_one_update, variant):
    train, _, norm = after_one_update[variant]
    official = under(golden, f"{variant}/grad/")
    stem = "representation_network.downsample_net"  # one tensor under two names
    official[f"{stem}.downsample_block.downsample.weight"] = official[f"{stem}.conv2.weight"]
    expected = convert(official, LATENT)["params"]

    def compare(ours: np.ndarray, theirs: np.ndarray) -> None:
        # Biases in front of a batch normalisation have a gradient of 0 plus noise.
        scale = max(np.linalg.norm(theirs), 1e-3 * norm)
        assert np.linalg.norm(ours - theirs) <= 3e-4 * scale

    jax.tree.map(compare, unclipped_gradient(train, golden_train(golden), norm), expected)


def test_two_updates_equal_the_official_code(golden, golden_update, after_one_update):
    first, _, _ = after_one_update["official"]
    second, _, _ = golden_update(HORIZONS["official"], first)
    for train, name, atol in [(first, "after1", 2e-5), (second, "after2", 1e-4)]:
        expected = convert(under(golden, f"optim/{name}/"), LATENT)
        ours = dict(train.variables)
        for part in expected["batch_stats"]:
            if part.startswith(OFFICIAL_MOVES_MORE):
                ours["batch_stats"] |= {part: expected["batch_stats"][part]}
        jax.tree.map(lambda x, y, a=atol: np.testing.assert_allclose(x, y, atol=a), ours, expected)
