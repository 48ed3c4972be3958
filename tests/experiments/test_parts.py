"""Parts of a run, as `experiments.bench` times them."""

import jax

from experiments.bench import parts
from ez_jax.config.presets import make_config
from tests import runs


def test_parts_of_a_continuous_game_can_be_timed():
    changes = {
        **runs.SETTINGS,
        "search.max_considered_actions": 2,
        "search.root_candidates": 2,
        "reanalyse.ratio": 1.0,
    }
    setting = parts.make_setting(make_config("Pendulum", changes=changes), (2,))
    for part in (parts.search, parts.update, parts.reanalyse):
        [case] = part(setting)
        jax.block_until_ready(case.call())
        assert case.items > 0
        assert case.cost.flops > 0
