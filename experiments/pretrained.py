"""Makes the agents that come with the package, from runs, and plays them.

    python -m experiments.pretrained run=DIR            from the newest weights of a run
    python -m experiments.pretrained run=DIR best=true  from those of its best evaluation
    python -m experiments.pretrained check              do all agents still score as on their cards?

The name of an agent is that of its game. Its parameters are kept in half precision; the same
episodes are played before and after, and both scores are written on the card. Exit code 0: done,
1: an agent scores differently, 2: bad input.
"""

import json
import shutil

import numpy as np

import ez_jax
from ez_jax.config import BadInput, paths
from ez_jax.config import conversion as configs
from ez_jax.evaluation import pretrained, weights
from ez_jax.evaluation.scores import Games, scores
from ez_jax.storage import run_folder, safe_files
from ez_jax.system import compilation, exits
from ez_jax.terminal import arguments, start

EPISODES = 100
OF_RUN = ("commit", "device", "seconds", "episodes", "mean")  # of its scores.json, onto the card
FAR = 4.0  # standard errors between two scores of the same agent


def make(run: str, *, best: bool, episodes: int) -> str:
    """Make an agent of the package from a run; returns its name."""
    told = safe_files.read_json(paths.expanded(run).absolute() / run_folder.SCORES_FILE)
    agent = ez_jax.load(run, best=best)
    name = agent.config.game.replace(":", "-")
    folder = pretrained.AGENTS / name
    shutil.rmtree(folder, ignore_errors=True)
    run_folder.make_run_dir(folder)
    kept = {"run_dir": "", "log.wandb": False}
    run_folder.write_config(folder, configs.to_dict(configs.override(agent.config, kept)))
    weights.save_alone(folder, agent.variables, agent.clocks)
    before, after = agent.play(episodes), ez_jax.play(f"{pretrained.PREFIX}{name}", episodes)
    found = scores(agent.config, agent.spec.num_actions, after)
    run_folder.write_scores(folder, found, agent.clocks)
    card = {
        "weights": "best evaluation" if best else "newest",
        "full_precision": mean_and_error(before),
        "half_precision": mean_and_error(after),
        "trained": {key: told[key] for key in OF_RUN},
    }
    safe_files.write_whole(folder / pretrained.CARD_FILE, json.dumps(card, indent=2) + "\n")
    return name


def mean_and_error(games: Games) -> dict[str, float]:
    """The mean return, its standard error and the number of episodes."""
    returns = np.asarray(games.returns, float)
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    return {"mean": float(returns.mean()), "error": float(error), "episodes": len(returns)}


def differs(name: str, episodes: int) -> bool:
    """Play an agent as its card says, and compare."""
    there = pretrained.card(name)["card"]["half_precision"]
    here = mean_and_error(ez_jax.play(f"{pretrained.PREFIX}{name}", episodes))
    apart = abs(here["mean"] - there["mean"])
    is_far = apart > FAR * np.hypot(here["error"], there["error"])
    print(f"{name:24} {here['mean']:8.4g} ± {here['error']:.2g}, on the card {there['mean']:.4g}")
    return bool(is_far)


def main(words: list[str]) -> int:
    """Make or check agents; returns the exit code."""
    compilation.configure_jax()
    if words[:1] == ["check"]:
        values, _ = arguments.read(words[1:], {"episodes": EPISODES})
        different = [name for name in pretrained.names() if differs(name, values["episodes"])]
        return exits.FAILED if different else exits.DONE
    values, _ = arguments.read(words, {"run": "", "best": False, "episodes": EPISODES})
    if not values["run"]:
        raise BadInput("which run? write run=DIR, such as run=runs/CartPole/default/seed0")
    name = make(**values)
    card = pretrained.card(name)["card"]
    print(name, *(f"{key} {card[key]}" for key in ("full_precision", "half_precision")), sep="\n")
    return exits.DONE


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
