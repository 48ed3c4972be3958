"""Networks: sizes, initialisation, types (parity with the official code: test_parity.py)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.networks import make_network, normalise_state
from ez_jax.agent.networks.image import ImageNetwork
from ez_jax.agent.networks.layers import BatchNorm
from ez_jax.agent.networks.vector import Scaling
from ez_jax.agent.support import decode
from ez_jax.config import BadInput, NetworkConfig
from ez_jax.structs import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiling")

SMALL = NetworkConfig(
    channels=8,
    head_channels=4,
    head_hidden=8,
    lstm_width=16,
    projection=32,
    predictor_hidden=16,
    support=10,
    vector_width=16,
)
ACTIONS = 4


def spec(*shape: int, stack: int = 1) -> EnvSpec:
    return EnvSpec(
        game="Game",
        backend="gymnasium",
        task_id="Game-v0",
        num_actions=ACTIONS,
        observation_shape=shape,
        observation_dtype=np.dtype(np.uint8 if len(shape) == 3 else np.float32),
        frame_stack=stack,
        frame_skip=1,
    )


def shapes_of(network: nn.Module, *observation: int) -> dict:
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *observation)))


def caller(network: nn.Module, train: bool):
    """Return call(variables, method, *inputs) -> (output, variables)."""

    def call(variables: dict, method: str, *inputs: jax.Array):
        if not train:
            return network.apply(variables, *inputs, train=False, method=method), variables
        output, updated = network.apply(
            variables, *inputs, train=True, method=method, mutable=["batch_stats"]
        )
        return output, variables | updated

    return call


@pytest.mark.parametrize(("actions", "count"), [(4, 8_350_246), (6, 8_350_312), (18, 8_350_708)])
def test_published_sizes_give_the_published_parameter_count(actions, count):
    atari = tiny.make_spec(96, 96, 3, stack=4, actions=actions)
    variables = shapes_of(ImageNetwork(NetworkConfig(), atari), 96, 96, 12)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count


def test_published_sizes_for_control_give_the_published_parameter_count():
    """Of EfficientZero V2 for images with four numbers per action."""
    images = tiny.make_spec(96, 96, 3, stack=4, actions=0)
    config = NetworkConfig(
        support=25,
        action_channels=16,
        lstm_width=0,
        head_activation="elu",
        policy_hidden=64,
        predictor_hidden=256,
    )
    network = ImageNetwork(config, dataclasses.replace(images, action_size=4))
    variables = shapes_of(network, 96, 96, 12)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 5_586_382


@pytest.mark.parametrize(
    ("observation", "latent"),
    [
        ((96, 96, 12), (6, 6)),
        ((84, 84, 4), (6, 6)),
        ((65, 70, 3), (5, 5)),
        ((32, 32, 3), (8, 8)),
        ((28, 17, 1), (7, 5)),
        ((10, 10, 4), (10, 10)),
        ((10, 5, 1), (10, 5)),
        ((7, 7, 3), (7, 7)),
    ],
)
def test_the_stem_follows_the_size_of_the_image(observation, latent):
    network = make_network(SMALL, spec(*observation))
    represent = functools.partial(network.apply, train=False, method="represent")
    variables = shapes_of(network, *observation)
    state = jax.eval_shape(represent, variables, jnp.zeros((2, *observation)))
    assert state.shape == (2, *latent, SMALL.channels)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "latent"), [((6, 5, 3), (6, 5, 8)), ((7,), (16,))])
def test_all_methods_have_the_documented_shapes_and_types(shape, latent, dtype, train):
    network = make_network(SMALL, spec(*shape), jnp.dtype(dtype))
    variables = shapes_of(network, *shape)
    call, batch, bins = caller(network, train), 3, 2 * SMALL.support + 1

    def all_methods(variables: dict, observation: jax.Array):
        state, _ = call(variables, "represent", observation)
        following, _ = call(variables, "transition", state, jnp.arange(batch))
        prefix, _ = call(variables, "value_prefix", following, network.initial_carry(batch))
        projection, _ = call(variables, "project", following)
        predicted, _ = call(variables, "predict_projection", projection)
        predictions, _ = call(variables, "predict", state)
        return (state, following, *prefix[1]), (prefix[0], *predictions, projection, predicted)

    inside, outputs = jax.eval_shape(all_methods, variables, jnp.zeros((batch, *shape)))
    width = SMALL.lstm_width
    assert [x.shape[1:] for x in inside] == [latent, latent, (width,), (width,)]
    assert {str(x.dtype) for x in inside} == {dtype}
    assert [x.shape[1:] for x in outputs] == [(bins,), (ACTIONS,), (bins,), (32,), (32,)]
    assert {x.dtype for x in outputs} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.fixture(scope="module", params=[(5, 5, 3), (7,)], ids=["image", "vector"])
def fresh(request):
    """A new network with its variables, and what it says about three observations."""
    network = make_network(SMALL, spec(*request.param))
    call = caller(network, train=False)

    @jax.jit
    def start(key: jax.Array, observation: jax.Array):
        variables = network.init(key, observation)
        state, _ = call(variables, "represent", observation)
        predictions, _ = call(variables, "predict", state)
        prefix, _ = call(variables, "value_prefix", state, network.initial_carry(3))
        states = jnp.repeat(state[:1], ACTIONS, axis=0)
        following, _ = call(variables, "transition", states, jnp.arange(ACTIONS))
        return variables, (*predictions, prefix[0]), following

    key = jax.random.key(0, impl="unsafe_rbg")  # compiles in a third of the default's time
    observation = jnp.asarray(np.random.default_rng(0).uniform(size=(3, *request.param)))
    return network, *start(key, observation)


def test_a_new_network_knows_nothing(fresh):
    _, _, (policy_logits, value_logits, prefix_logits), _ = fresh
    np.testing.assert_array_equal(policy_logits, 0)
    np.testing.assert_array_equal(decode(value_logits), 0)
    np.testing.assert_array_equal(decode(prefix_logits), 0)


def test_the_next_state_depends_on_the_action(fresh):
    _, _, _, following = fresh
    assert len(np.unique(following, axis=0)) == ACTIONS


def test_initial_weights_fill_pytorchs_bounds(fresh):
    _, variables, _, _ = fresh
    params = variables["params"]
    lstm = params["prefix_head"]["lstm"]
    bounded = [
        (params["projector"]["linear1"], SMALL.projection),
        (lstm["input"], SMALL.lstm_width),
        (lstm["hidden"], SMALL.lstm_width),
    ]
    if "conv" in params["dynamics"]:
        bounded.append((params["dynamics"]["conv"], 9 * (SMALL.channels + 1)))
    for layer, fan_in in bounded:
        for weights in layer.values():
            assert 0.85 < np.abs(weights).max() * np.sqrt(fan_in) <= 1 + 1e-6


@pytest.mark.parametrize("fresh", [(7,)], ids=["vector"], indirect=True)
def test_vector_networks_treat_every_sample_alone(fresh):
    network, variables, _, _ = fresh
    assert variables["batch_stats"].keys() == {"projector", "predictor"}
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 7)), jnp.float32)
    together, _ = caller(network, train=True)(variables, "represent", 100 * x)
    alone, _ = caller(network, train=False)(variables, "represent", 100 * x[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)


def test_projections_cannot_all_be_one(fresh):
    # Else the consistency loss is at its smallest when all states look alike.
    network, variables, _, states = fresh
    rng = np.random.default_rng(1)
    alike = jnp.asarray(5 + 0.1 * rng.normal(size=(8, *states.shape[1:])), jnp.float32)
    projection, _ = caller(network, train=True)(variables, "project", alike)
    unit = projection / np.linalg.norm(projection, axis=1, keepdims=True)
    assert (unit @ unit.T)[~np.eye(8, dtype=bool)].mean() < 0.1


def test_batch_norm_remembers_the_unbiased_variance():
    x = jnp.array([[0.0], [2.0]])
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)
    y, updated = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, [[-1], [1]], rtol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.1], rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.9 + 0.1 * 2], rtol=1e-6)


def test_normalised_states_span_zero_to_one_in_every_sample():
    state = jax.random.normal(jax.random.key(0), (3, 2, 2, 4))
    scaled = normalise_state(state)
    np.testing.assert_array_equal(scaled.min((1, 2, 3)), 0)
    np.testing.assert_array_equal(scaled.max((1, 2, 3)), 1)


def test_convolutions_over_a_vector_are_refused():
    with pytest.raises(BadInput, match=r"network\.kind=image does not fit Game"):
        make_network(NetworkConfig(kind="image"), spec(7))


def test_scaled_observations_have_one_scale():
    rng = np.random.default_rng(0)
    draw = lambda: (rng.normal(size=(64, 3)) * [1, 100, 0.1] + [5, 0, -1]).astype(np.float32)  # noqa: E731
    module, stats = Scaling(), {}
    np.testing.assert_allclose(
        module.init_with_output(jax.random.key(0), x := draw(), False)[0], x, rtol=1e-4
    )
    for _ in range(20):
        _, stats = module.apply(stats, draw(), train=True, mutable=["batch_stats"])
    scaled = module.apply(stats, np.concatenate([draw() for _ in range(20)]), train=False)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(scaled.std(0), 1, atol=0.1)


def test_acting_and_training_scale_observations_equally():
    module, x = Scaling(), jnp.array([[3.0, -2.0], [1.0, 0.0]])
    stats = {"mean": jnp.array([0.5, -0.5]), "square": jnp.array([2.5, 0.625]), "weight": 0.5}
    acting = module.apply({"batch_stats": stats}, x, train=False)
    training, _ = module.apply({"batch_stats": stats}, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(acting, [[1, -2], [0, 2]], rtol=1e-4)
    np.testing.assert_array_equal(acting, training)


@pytest.mark.parametrize("shape", [(3,), (20, 20, 1)])
def test_every_number_of_a_continuous_action_reaches_the_next_state(shape):
    of_game = dataclasses.replace(spec(*shape), num_actions=0, action_size=2)
    module = make_network(SMALL, of_game)
    variables = jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.ones((1, *shape)))
    state = module.apply(variables, jnp.ones((1, *shape)), train=False, method="represent")
    call = functools.partial(module.apply, variables, state, train=False, method="transition")
    still = call(jnp.zeros((1, 2)))
    for action in ([[0.5, 0.0]], [[0.0, 0.5]]):
        assert (call(jnp.array(action)) != still).any()
    policy, _ = module.apply(variables, state, train=False, method="predict")
    assert policy.shape == (1, 4)


def test_a_perceptron_takes_a_small_image_cell_by_cell():
    network = make_network(dataclasses.replace(tiny.NETWORK, kind="vector"), spec(2, 3, 4))
    images = np.random.default_rng(0).random((5, 2, 3, 4)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0, impl="unsafe_rbg"), images)
    encode = lambda x: network.apply(variables, x, train=False, method="represent")  # noqa: E731

    states = encode(images)

    assert states.shape == (5, 8)
    np.testing.assert_array_equal(states, encode(images.reshape(5, -1)))
