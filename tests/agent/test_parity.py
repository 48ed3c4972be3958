"""Numbers equal to those of the official EfficientZero: every stage of the algorithm.

    pytest tests/agent/test_parity.py                  # against tests/golden
    pytest tests/agent/test_parity.py --golden DIR     # against another folder of the same format

`tests/golden/README.md` says where the numbers come from. Tolerances are about ten times what the
official code itself moves when it computes in float64.
"""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest
import tiny
from golden_params import Golden, convert, latent_side, under
from golden_parts import FrameModel, TableModel, loss_batch, loss_config, stored_episodes

from ez_jax.agent.learner import make_optimizer, make_update
from ez_jax.agent.losses import unroll_terms
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.schedules import acting_temperature, importance_exponent, learning_rate
from ez_jax.agent.search import make_recurrent_fn, puct_ez
from ez_jax.agent.support import ZERO_BELOW, decode, encode, transform, two_hot
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config, SearchConfig, override, presets
from ez_jax.structs import Batch, Embedding, Root, SearchOutput, Targets, TrainState

pytestmark = pytest.mark.usefixtures("quick_compiling")


def pytest_generate_tests(metafunc):
    """Run the tests on every case that the golden files have."""
    meta = Golden(metafunc.config.getoption("golden")).meta
    cases = {
        "support": meta["transforms"]["supports"],
        "variant": [
            pytest.param(name, marks=[pytest.mark.long] if settings["state_norm"] else [])
            for name, settings in meta["loss"]["variants"].items()
        ],
        "target_variant": list(meta["targets"]["variants"]),
        "case": list(meta["search"]["cases"]),
    }
    for name in cases.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(name, cases[name], ids=str)


# --- transforms -----------------------------------------------------------------------------------


@pytest.fixture
def transforms(golden, support):
    """Arrays of one support, its size, and how exact its two-hot distributions are."""
    size = support
    arrays = jax.tree.map(jnp.asarray, under(golden.load("transforms"), f"s{size}_"))
    return arrays, size, 1e-5 if size <= 30 else 1e-4


def test_scalars_are_encoded_equally(transforms):
    arrays, size, atol = transforms
    np.testing.assert_allclose(transform(arrays["x"]), arrays["h"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(encode(arrays["x"], size), arrays["phi"], rtol=0, atol=atol)
    np.testing.assert_allclose(two_hot(arrays["t"], size), arrays["t_phi"], rtol=0, atol=atol)


def test_distributions_are_decoded_equally(transforms):
    arrays, _, _ = transforms
    for name, logits in [("inv", arrays["logits"]), ("phi_roundtrip", jnp.log(arrays["phi"]))]:
        deviation = np.abs(decode(logits) - arrays[name]) / np.maximum(1, np.abs(arrays[name]))
        # The official inverse carries noise of 1e-4, enough to cross the threshold to zero.
        undecided = np.abs(np.abs(arrays[name]) - ZERO_BELOW) < 1e-4
        assert undecided.sum() <= 2
        assert deviation[~undecided].max() <= 5e-4, name


# --- networks -------------------------------------------------------------------------------------

NETWORK_TOLERANCES = {  # name in the golden file: (rtol, atol)
    "latent": (1e-4, 1e-4),
    "policy_logits": (1e-4, 1e-4),
    "value_logits": (1e-4, 1e-4),
    "value_prefix_logits": (1e-4, 1e-4),
    "project_grad": (1e-4, 1e-4),
    "project_nograd": (1e-4, 1e-4),
    "reward_h": (0, 1e-5),
    "reward_c": (0, 1e-5),
    "value": (0, 5e-3),
    "value_prefix": (0, 5e-3),
}
MODES = ["eval", "train", "eval_statenorm", "train_statenorm"]


@pytest.fixture(scope="module")
def passes(golden):
    """Return run(mode) -> (outputs named as in the file, variables before any projection)."""
    arrays = golden.load("network")
    batch, stacked, height, width = arrays["obs"].shape
    frames = arrays["obs"].reshape(batch, stacked // 3, 3, height, width).transpose(0, 1, 3, 4, 2)
    carry = arrays["c0"][0], arrays["h0"][0]

    def unroll(variables: dict, latents: list[np.ndarray], *, train: bool, state_norm: bool):
        """Projections are made of the official latents: three batch norms over a handful of
        samples would enlarge the rounding of ours by thirty.
        """
        config = golden.config("network", {"network.state_norm": state_norm})
        model = golden.model(config, horizon=len(arrays["actions"]) + 1)
        embedding, variables = model.encode(variables, frames, train=train)
        embedding = embedding.replace(carry=carry)
        outputs = {}
        for k in range(len(arrays["actions"]) + 1):
            if k:
                action = arrays["actions"][k - 1].astype(np.int32)
                embedding, logits, variables = model.step(variables, embedding, action, train=train)
                cell, hidden = embedding.carry
                outputs |= {
                    f"step{k}/reward_c": cell[None],
                    f"step{k}/reward_h": hidden[None],
                    f"step{k}/value_prefix_logits": logits,
                    f"step{k}/value_prefix": decode(logits),
                }
            heads, variables = model.heads(variables, embedding.state, train=train)
            outputs |= {
                f"step{k}/latent": embedding.state.transpose(0, 3, 1, 2),
                f"step{k}/policy_logits": heads[0],
                f"step{k}/value_logits": heads[1],
                f"step{k}/value": decode(heads[1]),
            }
        for k, latent in enumerate(latents):
            project = functools.partial(_project, model, variables, latent, train)
            outputs[f"step{k}/project_nograd"] = project(predict=False)
            outputs[f"step{k}/project_grad"] = project(predict=True)
        return outputs, variables

    @functools.cache
    def run(mode: str):
        train, state_norm = mode.startswith("train"), mode.endswith("statenorm")
        compiled = jax.jit(functools.partial(unroll, train=train, state_norm=state_norm))
        steps = range(len(arrays["actions"]) + 1)
        latents = [arrays[f"{mode}/step{k}/latent"].transpose(0, 2, 3, 1) for k in steps]
        return compiled(golden.convert("network", "param/"), latents)

    return run


def _project(model, variables, state, train, *, predict):
    if train:
        return model.projections(variables, state, predict=predict)[0]
    call = functools.partial(model.network.apply, variables, train=False)
    projection = call(state, method="project")
    return call(projection, method="predict_projection") if predict else projection


@pytest.mark.parametrize("mode", MODES)
def test_forward_passes_are_equal(golden, passes, mode):
    outputs, _ = passes(mode)
    expected = under(golden.load("network"), f"{mode}/step")
    assert outputs.keys() == {f"step{name}" for name in expected}
    for name, value in expected.items():
        rtol, atol = NETWORK_TOLERANCES[name.split("/")[1]]
        np.testing.assert_allclose(outputs[f"step{name}"], value, rtol=rtol, atol=atol)


def test_running_statistics_after_a_training_pass_are_equal(golden, passes):
    _, variables = passes("train")
    expected = golden.convert("network", "train/buffers_after/")["batch_stats"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, variables["batch_stats"], expected)


def test_evaluation_leaves_the_running_statistics_alone(golden, passes):
    _, variables = passes("eval")
    before = golden.convert("network", "param/")["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], before)


# --- loss, gradients and optimiser ----------------------------------------------------------------

# The official prediction network also sees the observed states of the consistency loss, which moves
# its running statistics and nothing else.
OFFICIAL_MOVES_MORE = ("prediction_tower", "policy_", "value_neck", "value_head")


@pytest.fixture(scope="module")
def losses(golden):
    """Return run(variant) -> (train before, train after, output, gradient norm, terms
    per step, the update itself).

    The horizon is traced, so that variants of equal state normalisation share one compilation.
    """
    batch, targets = loss_batch(golden)

    @functools.cache
    def compiled(state_norm: bool):
        config = loss_config(golden, state_norm=state_norm)

        @jax.jit
        def run(horizon: jax.Array, train: TrainState, batch: Batch, targets: Targets):
            model, key = golden.model(config, horizon), jax.random.key(0)
            terms = unroll_terms(train.variables, key, batch, targets, model=model, config=config)
            return *make_update(config, model)(train, key, batch, targets), terms

        return run

    @functools.cache
    def run(variant: str):
        settings = golden.meta["loss"]["variants"][variant]
        step = compiled(settings["state_norm"])
        before = fresh_train(golden)
        horizon = jnp.int32(settings["lstm_horizon_len"])
        update = lambda train: step(horizon, train, batch, targets)  # noqa: E731
        after, output, metrics, terms = update(before)
        return before, after, output, float(metrics["opt/grad_norm"]), terms, update

    return run


def fresh_train(golden: Golden) -> TrainState:
    variables = jax.tree.map(jnp.asarray, golden.convert("loss", "param/"))
    learner = loss_config(golden, state_norm=False).learner
    return TrainState(
        variables=variables,
        next_target=variables,
        target=variables,
        opt_state=make_optimizer(learner).init(variables["params"]),
        updates=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def test_every_loss_term_of_every_step_and_sample_is_equal(golden, losses, variant):
    terms = losses(variant)[4]
    expected = under(golden.load("loss"), f"{variant}/")
    for name, steps in terms.steps.items():
        ours = np.asarray(steps)
        if name in terms.at_root:
            ours = np.concatenate([terms.at_root[name][None], ours])
        np.testing.assert_allclose(ours, expected[f"{name}_loss"], rtol=0, atol=1e-4, err_msg=name)


def test_total_loss_and_priorities_are_equal(golden, losses, variant):
    _, _, output, norm, _, _ = losses(variant)
    expected = under(golden.load("loss"), f"{variant}/")
    for name, term in output.terms.items():
        np.testing.assert_allclose(term, expected[f"mean_{name}_loss"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.loss, expected["total_loss"], rtol=1e-5)
    np.testing.assert_allclose(output.priority, expected["priorities"], rtol=0, atol=4e-3)
    np.testing.assert_allclose(norm, expected["grad_norm"], rtol=2e-5)


def test_the_gradient_of_every_parameter_is_equal(golden, losses, variant):
    before, after, _, norm, _, _ = losses(variant)
    official = under(golden.load("loss"), f"{variant}/grad/")
    stem = "representation_network.downsample_net"  # one tensor under two names
    official[f"{stem}.downsample_block.downsample.weight"] = official[f"{stem}.conv2.weight"]
    latent = latent_side(under(golden.load("loss"), "param/"))
    expected = convert(official, latent)["params"]

    def compare(ours: np.ndarray, theirs: np.ndarray) -> None:
        # Biases in front of a batch normalisation have a gradient of 0 plus noise.
        scale = max(np.linalg.norm(theirs), 1e-3 * norm)
        assert np.linalg.norm(ours - theirs) <= 3e-4 * scale

    jax.tree.map(compare, unclipped_gradient(golden, after, before, norm), expected)


def unclipped_gradient(golden: Golden, after: TrainState, before: TrainState, norm: float) -> dict:
    """The gradient, from the momentum after the first update: clipped gradient plus L2 term."""
    optim = golden.meta["loss"]["optim"]
    decay, clip = optim["weight_decay"], max(1, norm / optim["max_grad_norm"])
    momentum = after.opt_state[2].trace
    return jax.tree.map(lambda m, p: (m - decay * p) * clip, momentum, before.variables["params"])


def test_parameters_after_one_and_two_updates_are_equal(golden, losses):
    _, first, _, _, _, update = losses("official")
    second = update(first)[0]
    for train, name, atol in [(first, "after1", 2e-5), (second, "after2", 1e-4)]:
        expected = golden.convert("loss", f"optim/{name}/")
        ours = dict(train.variables)
        for part in expected["batch_stats"]:
            if part.startswith(OFFICIAL_MOVES_MORE):
                ours["batch_stats"] |= {part: expected["batch_stats"][part]}
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol), ours, expected)


# --- targets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collected(golden):
    """Return the replay of the golden episodes, and the ring position of every stored step."""
    return stored_episodes(golden)


def flat(differences: dict) -> dict:
    """Nested differences by dotted key."""
    return {f"{part}.{key}": v for part, inner in differences.items() for key, v in inner.items()}


@pytest.fixture(scope="module")
def made_targets(golden, collected):
    """Return run(variant, compat) -> (batch, targets, config), one row per row of the file."""
    arrays, sizes, meta = golden.load("targets"), golden.sizes, golden.meta["targets"]
    replay, positions = collected
    unroll_steps, stack = meta["num_unroll_steps"], meta["stacked_observations"]
    batch = ring.gather(
        replay,
        jnp.asarray(positions[arrays["indices"]], jnp.int32),
        jnp.ones(len(arrays["indices"])),
        unroll_steps=unroll_steps,
        behind=stack - 1,
        ahead=unroll_steps + meta["td_steps"],
    )
    batch = ring.with_frames(replay, batch)
    batch = batch.replace(age=jnp.asarray(meta["total_transitions"] - arrays["indices"]))
    fresh = len(arrays["official/reanalysed_visits"])
    visits = arrays["official/reanalysed_visits"].astype(np.float32)
    policies = visits / np.maximum(visits.sum(-1, keepdims=True), 1)

    def search(variables: dict, roots: Root, key: jax.Array) -> SearchOutput:
        del variables, key
        return SearchOutput(
            action=jnp.zeros(roots.value.shape, jnp.int32),
            policy=jnp.asarray(policies.transpose(1, 0, 2).reshape(-1, sizes["actions"])),
            value=jnp.zeros(roots.value.shape),
            gain=jnp.zeros(roots.value.shape),
        )

    @functools.cache
    def run(variant: str, compat: str):
        settings = meta["variants"][variant]
        changes = {
            **flat(presets.COMPAT[compat]),
            "discount": meta["discount"],
            "total_agent_steps": 1,
            "targets.age_fraction": float(settings["auto_td_steps"]),
            "targets.td_steps": meta["td_steps"],
            "off_policy_correction": settings["auto_td_steps"] <= meta["total_transitions"],
            "learner.unroll_steps": unroll_steps,
            "learner.lstm_horizon_len": settings["lstm_horizon_len"],
            "learner.batch_size": len(arrays["indices"]),
            "reanalyse.ratio": fresh / len(arrays["indices"]),
        }
        if compat == "official":
            changes["targets.block_length"] = meta["history_length"]
        config = tiny.make_config(changes)
        model, updates = FrameModel(arrays, stack), jnp.int32(0)
        reanalyse = make_reanalyse(config, model, search)

        # The official code searches the first samples of a batch, ours are spread evenly.
        size = len(arrays["indices"])
        is_fresh = np.diff(np.arange(size + 1) * fresh // size) > 0
        place = np.argsort(~is_fresh, kind="stable")  # of the official sample in our batch
        ours = np.argsort(place)

        @jax.jit
        def make(batch: Batch) -> Targets:
            batch = jax.tree.map(lambda x: x[ours], batch)
            done = reanalyse({}, jax.random.key(0), batch, replay, updates)
            targets = make_targets(config, model)({}, done.batch, updates)
            return jax.tree.map(lambda x: x[place], targets)

        return jax.device_get((batch, make(batch)))

    return run


def test_targets_with_the_official_block_ends_are_equal(golden, made_targets, target_variant):
    arrays = golden.load("targets")
    expected = under(arrays, f"{target_variant}/")
    _, targets = made_targets(target_variant, "official")
    np.testing.assert_allclose(targets.value, expected["target_value"], rtol=0, atol=2e-6)
    # Beyond the mask nothing is learned. The last column is never used.
    used = arrays["action_mask"] > 0
    np.testing.assert_array_equal(targets.mask[:, 0], 1)
    np.testing.assert_array_equal(targets.mask[:, 1:] > 0, used)
    prefix = expected["target_value_prefix"][:, :-1]
    np.testing.assert_allclose(targets.value_prefix[used], prefix[used], rtol=0, atol=1e-6)


def test_policy_targets_are_equal(golden, made_targets):
    arrays = golden.load("targets")
    _, targets = made_targets("official", "official")
    fresh = len(arrays["official/target_policy_reanalysed"])
    expected = arrays["official/target_policy_stored"].copy()
    expected[:fresh] = arrays["official/target_policy_reanalysed"]
    # Official policies are zero where ours are masked.
    ours = targets.policy * targets.policy_mask[..., None]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_whole_episodes_differ_from_blocks_only_near_their_seams(golden, made_targets):
    arrays, meta = golden.load("targets"), golden.meta["targets"]
    batch, whole = made_targets("official", "none")
    _, blocks = made_targets("official", "official")
    reach = np.arange(meta["num_unroll_steps"] + 1) + arrays["official/td_steps"][:, None]
    to_seam = meta["history_length"] - batch.position % meta["history_length"]
    inside = reach < np.minimum(to_seam, batch.last)[:, None]
    np.testing.assert_array_equal(whole.value[inside], blocks.value[inside])
    crosses = (reach >= to_seam[:, None]) & (reach < batch.last[:, None])
    assert np.any(crosses)
    assert np.all(whole.value[crosses] != blocks.value[crosses])


def test_observations_and_actions_of_a_batch_are_equal(golden, made_targets):
    arrays, meta = golden.load("targets"), golden.meta["targets"]
    batch, _ = made_targets("official", "official")
    steps, stack = meta["num_unroll_steps"], meta["stacked_observations"]
    used = arrays["action_mask"] > 0
    np.testing.assert_array_equal(batch.action[used], arrays["actions_unrolled"][used])
    newest = batch.observation[:, stack - 1 : stack + steps, 0]
    expected = arrays["input_frame_ids"][:, stack - 1 :]
    seen = np.concatenate([np.ones((len(used), 1), bool), used], axis=1)
    np.testing.assert_array_equal(newest[seen], expected[seen])


def test_importance_weights_are_equal(golden):
    arrays, meta = golden.load("targets"), golden.meta["targets"]["per"]
    logits = meta["alpha"] * jnp.log(jnp.asarray(arrays["per/priorities"]))
    np.testing.assert_allclose(jax.nn.softmax(logits), arrays["per/probs"], rtol=0, atol=1e-6)
    for i, beta in enumerate(meta["betas"]):
        weights = ring.importance_weights(logits, arrays[f"per/indices_{i}"], jnp.float32(beta))
        np.testing.assert_allclose(weights, arrays[f"per/weights_{i}"], rtol=0, atol=1e-6)


def test_schedules_are_equal(golden):
    expected = under(golden.load("targets"), "schedule/")
    meta = golden.meta["targets"]["schedule"]
    changes = {
        "total_agent_steps": meta["training_steps"],
        "updates_per_step": 1.0,
        "final_updates": meta["last_steps"],
        "learner.start": 0,
        "learner.learning_rate": meta["lr_init"],
        "learner.warmup_updates": round(meta["lr_warm_up"] * meta["training_steps"]),
        "learner.decay_rate": meta["lr_decay_rate"],
        "learner.decay_every": meta["lr_decay_steps"],
        "replay.importance_exponent": meta["beta0"],
    }
    config = override(Config(), changes)
    rate = learning_rate(config.learner)
    for i, step in enumerate(expected["step"]):
        updates = jnp.int32(step)
        progress = step / meta["training_steps"]
        # float32 steps of the warm-up
        np.testing.assert_allclose(rate(updates), expected["lr"][i], rtol=1e-6, atol=1e-8)
        beta = importance_exponent(config, updates)
        np.testing.assert_allclose(beta, expected["beta"][i], rtol=1e-6)
        temperature = acting_temperature(config.search, progress)
        np.testing.assert_allclose(temperature, expected["temperature"][i], rtol=1e-6)


# --- search ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mctx", pytest.param("flat", marks=pytest.mark.long)])
def search_tree(golden, request):
    """Return run(case, num_simulations, minmax) -> the tree of `puct_ez`, lowest action at ties."""

    @functools.cache
    def run(case: str, num_simulations: int, minmax: str) -> mctx.Tree:
        settings = golden.meta["search"]["cases"][case]
        tables = under(golden.load("search"), f"{case}/")
        horizon, accumulate = settings["lstm_horizon_len"], settings["accumulate"]
        model = TableModel(tables, accumulate=accumulate, horizon=horizon)
        state = jnp.asarray(tables["root_states"], jnp.int32)
        zeros = jnp.zeros(state.shape)
        embedding = Embedding(
            state=state, carry=(zeros, zeros), value_prefix=zeros, step=zeros.astype(jnp.int32)
        )
        root = mctx.RootFnOutput(
            prior_logits=jnp.log(tables["root_prior"]),
            value=model.tables["value"][state],
            embedding=embedding,
        )
        config = SearchConfig(
            tree=request.param,
            minmax=minmax,
            min_q_range=settings["value_delta_max"],
            pb_c_init=settings["pb_c_init"],
            pb_c_base=float(settings["pb_c_base"]),
        )
        ties = jnp.zeros((len(state), num_simulations + 1, tables["root_prior"].shape[1]))
        grow = functools.partial(
            puct_ez.search,
            recurrent_fn=make_recurrent_fn(model, settings["discount"]),
            num_simulations=num_simulations,
            config=config,
            tie_break=ties,
        )
        return jax.device_get(jax.jit(grow)({}, jax.random.key(0), root))

    return run


@pytest.mark.parametrize("minmax", ["official", "parent"])
def test_visits_and_root_values_are_equal(golden, search_tree, case, minmax):
    arrays = under(golden.load("search"), f"{case}/")
    counts = sorted(int(n) for n in golden.meta["search"]["cases"][case]["sims"])
    suffix = {"official": "", "parent": "_true_parent"}[minmax]
    # The shorter searches are its beginnings: their visits follow from the trace, see below.
    tree = search_tree(case, counts[-1], minmax)
    expected = under(arrays, f"sims{counts[-1]}/")
    np.testing.assert_array_equal(tree.children_visits[:, 0], expected[f"visits{suffix}"])
    value = puct_ez.root_value(tree)
    np.testing.assert_allclose(value, expected[f"root_value{suffix}"], rtol=0, atol=1e-5)


def test_every_simulation_goes_the_same_way(golden, search_tree, case):
    counts = sorted(int(n) for n in golden.meta["search"]["cases"][case]["sims"])
    tree = search_tree(case, counts[-1], "official")
    expected = under(golden.load("search"), f"{case}/sims{counts[-1]}/trace_")
    parents, depth = tree.parents[:, 1:], np.zeros(tree.parents.shape, int)
    for i in range(1, depth.shape[1]):
        depth[:, i] = depth[np.arange(len(depth)), tree.parents[:, i]] + 1
    np.testing.assert_array_equal(tree.action_from_parent[:, 1:].T, expected["action"])
    np.testing.assert_array_equal(parents.T, expected["parent_sim"])
    np.testing.assert_array_equal(depth[:, 1:].T, expected["depth"])
    for count in counts:  # the first action of every simulation tells the visits of shorter ones
        nodes = range(1, count + 1)
        first = np.array([[first_action(tree, b, i) for i in nodes] for b in range(len(depth))])
        visits = np.stack([(first == a).sum(1) for a in range(tree.num_actions)], axis=1)
        shorter = golden.load("search")[f"{case}/sims{count}/visits"]
        np.testing.assert_array_equal(visits, shorter)


def first_action(tree: mctx.Tree, root: int, node: int) -> int:
    """The action at the root that leads towards a node."""
    while tree.parents[root, node] != mctx.Tree.ROOT_INDEX:
        node = tree.parents[root, node]
    return tree.action_from_parent[root, node]
