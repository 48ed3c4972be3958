"""Searches in a bandit: one step is worth what its arm pays, nothing comes after."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest
import tiny

from ez_jax.agent.schedules import acting_temperature
from ez_jax.agent.search import make_recurrent_fn, make_search
from ez_jax.agent.search.gumbel import completed_q
from ez_jax.agent.search.search import SEARCHES
from ez_jax.config import SearchConfig
from ez_jax.structs import Embedding, Root

pytestmark = pytest.mark.usefixtures("quick_compiling")

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


@pytest.fixture(scope="module", params=["mctx", pytest.param("flat", marks=pytest.mark.long)])
def run(request):
    """Return run(policy, explore, pays=, seed=, temperature=, invalid=) -> SearchOutput."""

    @functools.cache
    def compiled(policy, explore, num_simulations):
        search = make_search(
            SearchConfig(policy=policy, num_simulations=SIMULATIONS, tree=request.param),
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
def test_what_a_root_draws_does_not_depend_on_its_company(policy):
    search = make_search(
        SearchConfig(policy=policy, num_simulations=SIMULATIONS, max_considered_actions=2),
        Bandit(),
        discount=0.9,
        explore=True,
    )
    pays, keys = np.repeat(PAYS, 4, axis=0), jax.random.split(jax.random.key(3), 4 * BATCH)
    together = jax.jit(search)({}, root(pays), keys)
    backwards = jax.jit(search)({}, root(pays[::-1]), keys[::-1])
    assert len(np.unique(together.policy, axis=0)) > BATCH, "each has its own"
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other[::-1], rtol=1e-5, atol=1e-7),
        *(together, backwards),
    )


@pytest.mark.parametrize("invalid", [ALL_VALID, PAYS == 1], ids=["all valid", "some not"])
@pytest.mark.parametrize("explore", [False, True])
def test_gumbel_is_that_of_mctx_but_for_the_keys(explore, invalid):
    config = SearchConfig(policy="gumbel", num_simulations=SIMULATIONS, max_considered_actions=3)
    search = make_search(config, Bandit(), discount=0.9, explore=explore)
    qtransform = functools.partial(
        completed_q,
        value_scale=config.value_scale,
        maxvisit_init=config.maxvisit_init,
        min_q_range=config.min_q_range,
    )
    key = jax.random.key(5)
    _, noise_key = jax.random.split(key)  # as mctx draws
    theirs = jax.jit(
        lambda root: mctx.gumbel_muzero_policy(
            *({}, key, root, make_recurrent_fn(Bandit(), 0.9), SIMULATIONS, invalid[:1]),
            qtransform=qtransform,
            max_num_considered_actions=3,
            gumbel_scale=float(explore),
        )
    )
    ours = jax.jit(lambda root: search({}, root, noise_key[None], 1.0, invalid[:1]))
    start = root(PAYS[:1])
    prior = jnp.asarray([[0.3, -0.2, 1.0, 0.1]])
    found = ours(start.replace(policy_logits=prior))
    output = theirs(
        mctx.RootFnOutput(prior_logits=prior, value=start.value, embedding=start.embedding)
    )
    np.testing.assert_array_equal(found.action, output.action)
    np.testing.assert_allclose(found.policy, output.action_weights, rtol=1e-5)
    np.testing.assert_allclose(found.value, output.search_tree.summary().value, rtol=1e-5)


@pytest.mark.parametrize("policy", ["gumbel", "puct_ez"])  # puct leaves arms out
def test_the_gain_is_what_the_policy_is_worth_more_than_the_prior(run, policy):
    found = run(policy, True, seed=1)
    worth_more = np.sum(found.policy * PAYS, axis=-1) - PAYS.mean(axis=-1)
    np.testing.assert_allclose(found.gain, worth_more, rtol=1e-5)


def test_an_action_that_was_not_tried_gains_the_mixed_value(run):
    mixed = SIMULATIONS / (SIMULATIONS + 1)
    by_seed = [run("puct", True, seed=seed) for seed in range(8)]
    # Where only the paying arm was visited.
    gains = np.concatenate([found.gain[found.policy.max(-1) == 1] for found in by_seed])
    assert gains.size
    np.testing.assert_allclose(gains, 1 - (1 + 3 * mixed) / 4, rtol=1e-4)


@both
@pytest.mark.parametrize("explore", [False, True])
def test_invalid_actions_are_never_chosen(run, policy, explore):
    invalid = PAYS == 1  # what would be chosen otherwise
    for seed in range(5):
        found = run(policy, explore, seed=seed, invalid=invalid)
        assert not np.any(invalid[np.arange(BATCH), found.action])
        np.testing.assert_allclose(found.policy[invalid], 0, atol=1e-6)


@both
def test_without_exploring_the_key_decides_nothing_but_ties(run, policy):
    nothing = np.zeros_like(PAYS)
    found = [run(policy, False, pays=nothing, sims=ARMS + 1, seed=seed) for seed in range(6)]
    again = run(policy, False, pays=nothing, sims=ARMS + 1)
    jax.tree.map(np.testing.assert_array_equal, found[0], again)
    # Sequential halving without noise draws nothing: the first wins a tie.
    ways = {each.policy.tobytes() for each in found}
    assert (len(ways) == 1) == (policy == "gumbel")


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


by_visits = pytest.mark.parametrize("policy", ["puct", "puct_ez"])


@by_visits
def test_a_low_temperature_takes_the_most_visited_action(run, policy):
    pays = np.array([[0.0, 0.4, 0.5, 0.0]] * BATCH, np.float32)
    cold = [run(policy, True, pays=pays, seed=seed, temperature=0.01) for seed in range(10)]
    for found in cold:
        visits = np.round(found.policy * SIMULATIONS)
        chosen = visits[np.arange(BATCH), found.action]
        np.testing.assert_array_equal(chosen, visits.max(-1))
    hot = [run(policy, True, pays=pays, seed=seed, temperature=1.0).action for seed in range(10)]
    assert len(np.unique(hot)) > 2


@by_visits
def test_the_number_of_simulations_can_be_overridden(run, policy):
    for simulations, given in [(SIMULATIONS, 0), (3, 3)]:
        visits = simulations * run(policy, False, sims=given).policy
        np.testing.assert_allclose(visits, np.round(visits), atol=1e-5)
    assert np.any(np.round(visits) == 1), "three simulations, not a multiple"


@pytest.mark.parametrize(
    ("progress", "temperature"),
    [(0.0, 1.0), (0.49, 1.0), (0.5, 0.5), (0.74, 0.5), (0.75, 0.25), (1.0, 0.25), (1.2, 0.25)],
)
def test_the_temperature_falls_by_phases_of_the_training(progress, temperature):
    assert acting_temperature(SearchConfig(), progress) == temperature


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


VALUE_SCALE, MAXVISIT_INIT = 0.5, 2.0


def tree_of(visits: np.ndarray, rewards: np.ndarray, values: np.ndarray) -> mctx.Tree:
    """A tree of as many nodes as rows; raw values 1, discounts 0.5, priors from logits 0, 1, ..."""
    nodes, actions = visits.shape
    logits = np.broadcast_to(np.arange(actions, dtype=np.float32), visits.shape)
    unused = jnp.zeros(nodes)
    return mctx.Tree(
        node_visits=unused,
        raw_values=jnp.ones(nodes),
        node_values=unused,
        parents=unused,
        action_from_parent=unused,
        children_index=unused,
        children_prior_logits=jnp.asarray(logits),
        children_visits=jnp.asarray(visits, jnp.int32),
        children_rewards=jnp.asarray(rewards, jnp.float32),
        children_discounts=jnp.full(visits.shape, 0.5),
        children_values=jnp.asarray(values, jnp.float32),
        root_invalid_actions=unused,
        embeddings=unused,
        extra_data=None,
    )


def completed_q_by_hand(visits, rewards, values, node: int) -> list[float]:
    """Danihelka et al. (2022), eqs. 8 and 33, with the Qs of the whole tree stretched to 0..1."""
    nodes, actions = visits.shape
    qs = [[rewards[n, a] + 0.5 * values[n, a] for a in range(actions)] for n in range(nodes)]
    visited = [qs[n][a] for n in range(nodes) for a in range(actions) if visits[n, a]]
    if not visits[node].any():
        return [0.0] * actions
    prior = np.exp(np.arange(actions)) / np.exp(np.arange(actions)).sum()
    tried = [a for a in range(actions) if visits[node, a]]
    mean = sum(prior[a] * qs[node][a] for a in tried) / sum(prior[a] for a in tried)
    count = visits[node].sum()
    mixed = (1.0 + count * mean) / (1 + count)
    low, spread = min(visited), max(max(visited) - min(visited), 0.01)
    completed = [qs[node][a] if a in tried else mixed for a in range(actions)]
    scaled = [min(1.0, max(0.0, (q - low) / spread)) for q in completed]
    return [(MAXVISIT_INIT + visits[node].max()) * VALUE_SCALE * q for q in scaled]


@pytest.mark.parametrize("spread", [1.0, 1e-4], ids=["wide", "narrower than the smallest range"])
def test_completed_qs_are_those_of_the_paper_on_the_scale_of_the_tree(spread):
    rng = np.random.default_rng(0)
    transform = jax.jit(
        functools.partial(
            completed_q, value_scale=VALUE_SCALE, maxvisit_init=MAXVISIT_INIT, min_q_range=0.01
        )
    )
    for _ in range(10):
        visits = rng.integers(0, 3, (4, 3))
        visits[3] = 0  # a leaf
        rewards, values = 1 + spread * rng.normal(size=(2, 4, 3)).astype(np.float32)
        tree = tree_of(visits, rewards, values)
        for node in range(4):
            expected = completed_q_by_hand(visits, rewards, values, node)
            found = transform(tree, jnp.asarray(node))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_with_no_difference_between_the_arms_the_policy_stays_the_prior(run):
    # Stretched node by node, any noise of two equal arms would become the whole range 0..1.
    noise = 1e-4 * np.random.default_rng(0).normal(size=PAYS.shape).astype(np.float32)
    found = run("gumbel", False, pays=noise)
    np.testing.assert_allclose(found.policy, 1 / ARMS, atol=0.05)
