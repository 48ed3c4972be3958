"""The same episodes with several numbers of simulations."""

from collections.abc import Callable, Sequence
from typing import Any

from ez_jax.config import Config, override
from ez_jax.evaluation.play import make_evaluate
from ez_jax.evaluation.scores import protocol
from ez_jax.evaluation.trained_agent import Agent


def by_simulations(
    config: Config, agent: Agent, counts: Sequence[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """The content of scores_by_simulations.json; `say` prints each row as it is done."""
    rows, limit = [], 0
    say(f"{'simulations':>11} {'mean':>10} {'std':>10}")
    for count in counts:
        chosen = override(config, {"eval.num_simulations": count})
        games = make_evaluate(chosen, agent.model)(agent.variables)
        assert games is not None, "nothing stops it"
        returns, limit = games.returns, games.limit
        row = {"num_simulations": count, "mean": float(returns.mean()), "std": float(returns.std())}
        say(f"{count:11} {row['mean']:10.4g} {row['std']:10.4g}")
        rows.append(row | {"returns": returns.tolist()})
    played = protocol(config, limit)
    del played["num_simulations"]
    about = {"seed": config.seed, "preset": config.preset, "episodes": config.eval.episodes}
    return {"protocol": played, **about, "rows": rows}
