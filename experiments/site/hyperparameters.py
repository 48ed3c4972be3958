"""One page of hyper-parameters: presets side by side, and what other libraries call them."""

from typing import Any

from experiments.site import links, settings
from experiments.site.status import table
from ez_jax.config import flatten
from ez_jax.config.presets import make_config

# By key: LightZero's `policy` (EfficientZero) and the arguments of Stable-Baselines3's DQN.
NAMES = {
    "total_agent_steps": ("max_env_step", "total_timesteps"),
    "updates_per_step": ("replay_ratio, earlier model_update_ratio", "gradient_steps / train_freq"),
    "learner.start": ("random_collect_episode_num, in episodes", "learning_starts"),
    "learner.batch_size": ("batch_size", "batch_size"),
    "learner.learning_rate": ("learning_rate", "learning_rate"),
    "learner.optimizer": ("optim_type", "policy_kwargs: optimizer_class"),
    "learner.max_grad_norm": ("grad_clip_value", "max_grad_norm"),
    "learner.target_period": ("target_update_freq", "target_update_interval, in steps"),
    "learner.unroll_steps": ("num_unroll_steps", ""),
    "learner.lstm_horizon_len": ("lstm_horizon_len", ""),
    "learner.augment": ("use_augmentation", ""),
    "discount": ("discount_factor, per step", "gamma"),
    "targets.td_steps": ("td_steps", ""),
    "replay.capacity": ("replay_buffer_size", "buffer_size"),
    "prioritised": ("use_priority", ""),
    "replay.priority_exponent": ("priority_prob_alpha", ""),
    "replay.importance_exponent": ("priority_prob_beta", ""),
    "reanalyse.ratio": ("reanalyze_ratio", ""),
    "search.num_simulations": ("num_simulations", ""),
    "search.policy": ("gumbel_algo", ""),
    "search.dirichlet_alpha": ("root_dirichlet_alpha", ""),
    "search.dirichlet_fraction": ("root_noise_weight", ""),
    "consistency": ("model.self_supervised_learning_loss", ""),
    "loss.consistency": ("ssl_loss_weight", ""),
    "loss.value": ("value_loss_weight", ""),
    "loss.value_prefix": ("reward_loss_weight", ""),
    "network.support": ("model.support_scale", ""),
    "network.lstm_width": ("model.lstm_hidden_size", ""),
    "network.norm": ("model.norm_type", ""),
    "actor.num_envs": ("collector_env_num", "n_envs of make_vec_env"),
    "eval.num_envs": ("evaluator_env_num", ""),
}
_OF_THE_RUN = ("game", "preset", "seed", "name", "run_dir")


def presets_on(*columns: tuple[str, str]) -> str:
    """A column per preset and game, a row per key in which they differ or that is often tuned."""
    configs = [flatten(make_config(game, preset)) for preset, game in columns]
    rows = []
    for key, first in configs[0].items():
        values = [config[key] for config in configs]
        if key in _OF_THE_RUN or (key not in NAMES and all(v == first for v in values)):
            continue
        rows.append([links.key(key), *(_cell(value, first) for value in values)])
    presets, games = map(set, zip(*columns, strict=True))
    heads = [
        preset if len(games) == 1 else game if len(presets) == 1 else f"{preset}, {game}"
        for preset, game in columns
    ]
    return table(["key", *heads], rows)


def _cell(value: Any, usual: Any) -> str:
    text = settings.typed(value).replace("_", "&#95;")
    return text if value == usual else f"**{text}**"


def names() -> str:
    """Rows of what other libraries call a key."""
    rows = []
    for key, others in NAMES.items():
        cells = [links.key(key), *(f"`{name}`" if name else "" for name in others)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
