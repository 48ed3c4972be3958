"""Searches in a bandit: one step is worth what its arm pays, nothing comes after."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.config import SearchConfig
from ez_jax.search import SEARCHES, acting_temperature, make_search
from ez_jax.structs import Embedding, Root

BATCH, ARMS, SIMULATIONS = 3, 4, 16
PAYS = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
ALL_VALID = np.zeros((BATCH, ARMS), bool)


class Bandit:
    """Stands in for a model; the state is what the arms pay: [B, ARMS], zeros after the pull."""

    def dynamics(self, variables, embedding, action):
        del variables
        reward = jnp.take_along_axis(embedding.state, action[:, None], axis=1)[:, 0]
        return embedding.replace(state=jnp.zeros_like(embedding.state)), reward

    def predict(self, variables, embedding):
        del variables
        size = len(embedding.state)
        return jnp.zeros((size, ARMS)), jnp.zeros(size)


def root(pays: np.ndarray) -> Root:
    size = len(pays)
    embedding = Embedding(
        state=jnp.asarray(pays),
        carry=(jnp.zeros((size, 1)), jnp.zeros((size, 1))),
        value_prefix=jnp.zeros(size),
        step=jnp.zeros(size, jnp.int32),
    )
    return Root(embedding=embedding, policy_logits=jnp.zeros((size, ARMS)), value=jnp.zeros(size))


@pytest.fixture(scope="module")
def run():
    """Return run(policy, explore, pays=, seed=, temperature=, invalid=) -> SearchOutput."""

    @functools.cache
    def compiled(policy, explore, num_simulations):
        search = make_search(
            SearchConfig(policy=policy, num_simulations=SIMULATIONS),
            Bandit(),
            discount=0.9,
            explore=explore,
            num_simulations=num_simulations,
        )
        return jax.jit(lambda key, root, *rest: search({}, root, key, *rest))

    def call(policy, explore, *, pays=PAYS, seed=0, temperature=1.0, invalid=ALL_VALID, sims=0):
        search = compiled(policy, explore, sims)
        found = search(jax.random.key(seed), root(pays), jnp.float32(temperature), invalid)
        return jax.device_get(found)

    return call


both = pytest.mark.parametrize("policy", sorted(SEARCHES))


@both
def test_the_paying_arm_is_found(run, policy):
    found = run(policy, False)
    np.testing.assert_array_equal(found.action, PAYS.argmax(-1))
    np.testing.assert_array_equal(found.policy.argmax(-1), PAYS.argmax(-1))
    assert np.all((found.value > 0) & (found.value < 1)), "a mean of zeros and ones"


@both
@pytest.mark.parametrize("explore", [False, True])
def test_the_policy_sums_to_one_and_the_paying_arm_gains(run, policy, explore):
    found = run(policy, explore, seed=1)
    np.testing.assert_allclose(found.policy.sum(-1), 1, rtol=1e-5)
    assert np.all(found.policy[PAYS == 1] > 1 / ARMS)


@both
@pytest.mark.parametrize("explore", [False, True])
def test_invalid_actions_are_never_chosen(run, policy, explore):
    invalid = PAYS == 1  # what would be chosen otherwise
    for seed in range(5):
        found = run(policy, explore, seed=seed, invalid=invalid)
        assert not np.any(invalid[np.arange(BATCH), found.action])
        np.testing.assert_allclose(found.policy[invalid], 0, atol=1e-6)


@both
def test_without_exploring_the_key_plays_no_part_even_in_ties(run, policy):
    for pays in (PAYS, np.zeros_like(PAYS)):
        one, other = (run(policy, False, pays=pays, seed=seed) for seed in (0, 1))
        jax.tree.map(np.testing.assert_array_equal, one, other)


@both
def test_exploring_depends_on_the_key_alone(run, policy):
    nothing = np.zeros_like(PAYS)
    seeds = [run(policy, True, pays=nothing, seed=seed).action.tolist() for seed in range(6)]
    again = [run(policy, True, pays=nothing, seed=seed).action.tolist() for seed in range(6)]
    assert seeds == again
    assert len({tuple(actions) for actions in seeds}) > 1


@both
def test_roots_of_a_batch_do_not_influence_each_other(run, policy):
    others = PAYS.copy()
    others[1:] = [[5, 0, 0, 0], [-3, 2, 2, 0]]
    alone, together = run(policy, False), run(policy, False, pays=others)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y[0]), alone, together)


def test_a_low_temperature_takes_the_most_visited_action(run):
    pays = np.array([[0.0, 0.4, 0.5, 0.0]] * BATCH, np.float32)
    cold = [run("puct", True, pays=pays, seed=seed, temperature=0.01) for seed in range(10)]
    for found in cold:
        visits = np.round(found.policy * SIMULATIONS)
        chosen = visits[np.arange(BATCH), found.action]
        np.testing.assert_array_equal(chosen, visits.max(-1))
    hot = [run("puct", True, pays=pays, seed=seed, temperature=1.0).action for seed in range(10)]
    assert len(np.unique(hot)) > 2


def test_the_number_of_simulations_can_be_overridden(run):
    for simulations, given in [(SIMULATIONS, 0), (3, 3)]:
        visits = simulations * run("puct", False, sims=given).policy
        np.testing.assert_allclose(visits, np.round(visits), atol=1e-5)
    assert np.any(np.round(visits) == 1), "three simulations, not a multiple"


@pytest.mark.parametrize(
    ("progress", "temperature"),
    [(0.0, 1.0), (0.49, 1.0), (0.5, 0.5), (0.74, 0.5), (0.75, 0.25), (1.0, 0.25), (1.2, 0.25)],
)
def test_the_temperature_falls_by_phases_of_the_training(progress, temperature):
    assert acting_temperature(SearchConfig(), jnp.asarray(progress)) == temperature


@both
def test_a_bfloat16_model_is_searched_in_float32(policy):
    config = tiny.make_config({"precision": "bfloat16", "search.policy": policy})
    model = tiny.make_vector_model(config)
    search = make_search(config.search, model, discount=0.9, explore=True)

    def run(key):
        variables = model.init(key)
        return search(variables, model.root(variables, jnp.zeros((2, 1, 2))), key)

    found = jax.eval_shape(run, jax.random.key(0))
    assert found.value.dtype == found.policy.dtype == jnp.float32
