"""The presets against the numbers of the two papers' code, key by key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ez_jax.agent.model import make_model
from ez_jax.agent.networks.image import ActionEmbedding
from ez_jax.config import BadInput, Config, dotted_keys, from_dict, search_budget, to_dict
from ez_jax.config.families import merge
from ez_jax.config.presets import PRESETS, make_config
from ez_jax.evaluation.scores import Games, scores

# Atari of EfficientZero (V1) and EfficientZero V2; one value where they agree.
PUBLISHED = {
    # An agent step is four frames; 100,000 of them, and 20,000 updates more than steps.
    "total_agent_steps": 100_000,
    "final_updates": 20_000,
    "discount": 0.997**4,
    "env.image_size": 96,
    "env.grayscale": False,
    "env.frame_stack": 4,
    "env.frame_skip": 4,
    "env.noop_max": 30,
    "env.episodic_life": True,
    "env.reward_clip": True,
    "env.sticky_actions": 0.0,
    "env.max_episode_steps": 3_000,
    "env.eval_max_episode_steps": 27_000,
    "eval.max_episode_steps": 3_000,  # of V1; nothing is known of V2
    "eval.epsilon": 0.0,
    "network.channels": 64,
    "network.blocks": 1,
    "network.norm": "batch",
    "network.norm_momentum": 0.9,
    "network.center": False,
    "network.action_channels": (0, 16),
    "network.head_channels": 16,
    "network.head_hidden": 32,
    "network.head_layers": 1,
    "network.policy_hidden": 0,
    "network.head_activation": ("relu", "elu"),
    "network.lstm_width": 512,
    "network.projection": 1024,
    "network.predictor_hidden": (512, 256),
    "network.state_norm": False,
    "network.support": 300,
    "network.value_bin": 1.0,
    "network.prefix_bin": 1.0,
    "search.policy": ("puct_ez", "gumbel"),
    "search.num_simulations": (50, 0),  # 0: see BUDGETS
    "search.min_q_range": 0.01,
    "search.dirichlet_fraction": 0.25,  # this and the next three: V1 only
    "search.dirichlet_alpha": 0.3,
    "search.pb_c_init": 1.25,
    "search.pb_c_base": 19_652.0,
    "search.temperatures": [1.0, 0.5, 0.25],
    "search.temperature_fractions": [0.5, 0.75],
    "search.max_considered_actions": (8, 0),  # this and the next three: V2 only
    "search.gumbel_scale": 1.0,
    "search.value_scale": 0.1,
    "search.maxvisit_init": 50.0,
    "actor.num_envs": 4,
    "actor.random_start": (True, False),
    "replay.capacity": 100_000,
    "replay.priority_exponent": (0.6, 1.0),
    "replay.importance_exponent": (0.4, 1.0),
    "replay.importance_exponent_final": 1.0,
    "replay.min_weight": (0.0, 0.1),
    "reanalyse.ratio": (0.99, 1.0),
    "reanalyse.mode": "batch",
    "reanalyse.updates_per_search": 1,
    "targets.value": ("td", "mixed"),
    "targets.mixed_updates": 30_000,  # this and the next: V2 only
    "targets.mixed_newest": 5_000,
    "targets.td_steps": 5,
    "targets.age_fraction": 0.3,  # V1 only
    "off_policy_correction": (True, False),
    "value_prefix": True,
    "consistency": True,
    "prioritised": True,
    "loss.policy": 1.0,
    "loss.value": 0.25,  # V2: 0.5 of a loss that is halved
    "loss.value_prefix": 1.0,
    "loss.consistency": (2.0, 5.0),
    "loss.entropy": 0.0,
    "learner.batch_size": 256,
    "learner.unroll_steps": 5,
    "learner.lstm_horizon_len": 5,
    "learner.start": 2_000,
    "learner.optimizer": "sgd",
    "learner.learning_rate": 0.2,
    "learner.momentum": 0.9,
    "learner.weight_decay": 1e-4,
    "learner.max_grad_norm": 5.0,
    "learner.warmup_updates": 1_000,
    "learner.decay_every": 100_000,
    "learner.decay_rate": 0.1,
    "learner.target_period": 200,
    "learner.augment": True,
    "learner.augment_shift": 4,
    "learner.augment_intensity": 0.05,
    "eval.every": 10_000,
    "eval.episodes": (32, 10),
}
# EfficientZero V2's code for DeepMind Control from states, where it differs from that for Atari.
CONTROL = {
    "discount": 0.997**2,
    "value_prefix": False,
    "env.frame_stack": 1,
    "env.frame_skip": 2,
    "env.noop_max": 0,
    "env.episodic_life": False,
    "env.reward_clip": False,
    "env.max_episode_steps": 500,
    "env.eval_max_episode_steps": 500,
    "network.head_hidden": 256,
    "network.head_layers": 2,
    "network.head_activation": "relu",
    "network.predictor_hidden": 512,
    "network.projection": 512,  # and 128 at its end
    "network.lstm_width": 0,
    "network.support": 25,  # 51 bins for values up to 299 and rewards up to 2
    "network.value_bin": pytest.approx((300**0.5 - 1 + 0.299) / 25, rel=5e-4),
    "network.prefix_bin": pytest.approx((3**0.5 - 1 + 0.002) / 25, rel=5e-4),
    "search.num_simulations": 32,
    "search.max_considered_actions": 16,
    "search.gumbel_scale": 0.0,
    "targets.mixed_updates": 40_000,
    "targets.mixed_newest": 20_000,
    "loss.consistency": 2.0,
    "loss.entropy": 0.05,
    "learner.optimizer": "adam",
    "learner.learning_rate": 3e-4,
    "learner.weight_decay": 2e-5,
    "learner.decay_every": 300_000,
}
# The same for control from images. Discount and frames, which belong to the game, are not compared.
VISUAL = {
    "value_prefix": False,
    "total_agent_steps": 200_000,
    "network.policy_hidden": 64,
    "network.lstm_width": 0,
    **{key: CONTROL[key] for key in CONTROL if key.startswith(("search.", "targets."))},
    **{key: CONTROL[key] for key in ("network.support", "network.value_bin", "network.prefix_bin")},
    "actor.num_envs": 8,
    "loss.consistency": 2.0,
    "loss.entropy": 0.005,
    "learner.warmup_updates": 2_000,
}
# Only of vectors or of continuous actions.
OF_CONTROL = {
    "network.vector_width": 128,
    "network.vector_blocks": 2,
    "network.scale_observations": True,
    "search.root_candidates": 16,
    "search.node_candidates": 2,
    "search.widened": 0.75,
    "search.widening": 3.0,
    "search.candidate_target": "auto",
}
# What no paper says: names, folders, what is written and how, and what only we have.
OURS = {
    *("game", "preset", "seed", "name", "run_dir", "updates_per_step", "precision"),
    *("env.backend", "network.kind", "network.patch"),
    *("search.minmax", "targets.block_length", "targets.max_td_steps"),
    *("reanalyse.max_age", "reanalyse.chunk", "replay.memory", "devices"),
    *("eval.num_envs", "eval.num_simulations", "eval.seed"),
    *(
        "checkpoint.every",
        "checkpoint.keep",
        "checkpoint.keep_best",
        "checkpoint.minutes",
        "log.every",
        "log.tensorboard",
        "log.wandb",
        "log.progress",
    ),
    *("log.watchdog", "learner.max_skipped", "search.tree"),
}
# Up to how many actions: simulations, actions considered at the root.
BUDGETS = {2: (4, 2), 3: (4, 2), 4: (16, 4), 15: (16, 4), 16: (16, 8), 18: (16, 8)}
# Parameters that are used, counted in the official networks.
PARAMETERS = {
    ("efficientzero", 4): 8_350_246,
    ("efficientzero_v2", 4): 7_835_014,
    ("efficientzero_v2", 6): 7_835_080,
    ("efficientzero_v2", 18): 7_835_476,
}


def flat(config: Config) -> dict:
    """Settings by dotted key."""
    values = to_dict(config)
    sections = {key.partition(".")[0] for key in dotted_keys() if "." in key}
    inner = {f"{name}.{k}": v for name in sections for k, v in values[name].items()}
    return {key: (values | inner)[key] for key in dotted_keys()}


def published(preset: str) -> dict:
    """The column of a preset."""
    column = ["efficientzero", "efficientzero_v2"].index(preset)
    return {k: v[column] if isinstance(v, tuple) else v for k, v in PUBLISHED.items()}


def test_every_key_is_in_the_table_or_ours_alone():
    assert PUBLISHED.keys() | OURS | OF_CONTROL.keys() == set(dotted_keys())
    assert not PUBLISHED.keys() & OURS


@pytest.mark.parametrize("preset", ["efficientzero", "efficientzero_v2"])
def test_a_preset_has_the_published_numbers(preset):
    chosen = flat(make_config("Breakout", preset))
    assert {key: chosen[key] for key in PUBLISHED} == published(preset)


@pytest.mark.parametrize("game", ["CartpoleSwingup", "WalkerWalk"])
def test_the_preset_for_control_has_the_published_numbers(game):
    chosen = flat(make_config(game, "efficientzero_v2"))
    expected = published("efficientzero_v2") | CONTROL | OF_CONTROL
    of_images = {"env.image_size", "env.grayscale", "eval.max_episode_steps"}
    differing = {key for key in expected if chosen[key] != expected[key]} - of_images
    assert differing == set()


def test_the_preset_for_control_from_images_has_the_published_numbers():
    chosen = flat(from_dict(merge(to_dict(Config()), PRESETS["efficientzero_v2_visual"])))
    expected = published("efficientzero_v2") | VISUAL | OF_CONTROL
    differing = {key for key in expected if chosen[key] != expected[key]}
    of_the_game = {key for key in PUBLISHED if key.startswith("env.")} | {"discount"}
    of_the_game.add("eval.max_episode_steps")
    of_vectors = {"network.vector_width", "network.vector_blocks", "network.scale_observations"}
    assert differing <= of_the_game | of_vectors


def test_the_presets_differ_where_the_table_says_so_and_nowhere_else():
    v1, v2 = (flat(make_config("Pong", name)) for name in ("efficientzero", "efficientzero_v2"))
    differing = {key for key in PUBLISHED if isinstance(PUBLISHED[key], tuple)}
    ours = {"preset", "eval.num_envs"}  # as many as games
    assert {key for key in dotted_keys() if v1[key] != v2[key]} == differing | ours


def test_switches_of_our_own_are_off_in_both():
    for preset in ("efficientzero", "efficientzero_v2"):
        chosen, default = flat(make_config("Breakout", preset)), flat(Config())
        changed = {key for key in OURS if chosen[key] != default[key]}
        assert changed <= {"game", "preset", "eval.num_envs"}


@pytest.mark.parametrize("actions", BUDGETS)
def test_v2_searches_as_much_as_the_number_of_actions_wants(actions):
    config = make_config("Breakout", "efficientzero_v2")
    assert search_budget(config.search, actions) == BUDGETS[actions]
    played = scores(config, actions, Games(*np.zeros((2, 1))))["protocol"]
    assert played["num_simulations"] == BUDGETS[actions][0]


def test_what_was_asked_for_is_not_left_to_the_number_of_actions():
    config = make_config("Breakout", "efficientzero_v2", changes={"search.num_simulations": 50})
    assert search_budget(config.search, 4) == (50, 4)
    assert search_budget(Config().search, 4) == (50, 8)


def test_only_gumbel_can_leave_it_to_the_number_of_actions():
    with pytest.raises(BadInput, match="set a number for puct"):
        make_config("Breakout", "efficientzero_v2", changes={"search.policy": "puct"})


@pytest.mark.parametrize(("preset", "actions"), PARAMETERS)
def test_the_networks_have_as_many_parameters_as_the_official_ones(preset, actions):
    config = make_config("Breakout", preset)
    model = make_model(config, tiny.make_spec(96, 96, 3, stack=4, actions=actions))
    params = jax.eval_shape(model.init, jax.random.key(0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[preset, actions]


def test_the_action_embedding_is_normalised_as_a_whole():
    rng = np.random.default_rng(0)
    module, plane = ActionEmbedding(2, jnp.float32), rng.normal(size=(3, 4, 5, 1))
    shapes = jax.eval_shape(module.init, jax.random.key(0), plane, False)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)
    linear, norm = variables["params"]["linear"], variables["params"]["norm"]
    expected = (plane * linear["kernel"][0] + linear["bias"]).reshape(3, -1)
    spread = np.sqrt(expected.var(1, keepdims=True) + 1e-5)
    expected = (expected - expected.mean(1, keepdims=True)) / spread
    expected = np.maximum(0, expected * norm["scale"] + norm["bias"]).reshape(3, 4, 5, 2)
    np.testing.assert_allclose(module.apply(variables, plane, False), expected, atol=1e-5)
