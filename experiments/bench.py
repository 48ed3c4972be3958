"""How fast the searches are: a table, and a line of JSON for each row.

    python -m experiments.bench search
    python -m experiments.bench search --game Breakout --preset efficientzero --batches 1 16

Without a game the model costs next to nothing (18 actions): what is timed is the tree. Every row is
the median and the least of repeats, after a first call that compiles. The searches take turns, so
that they share whatever else the machine does: compare rows of one run.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ez_jax import presets
from ez_jax.config import SearchConfig
from ez_jax.envs import make_env
from ez_jax.model import make_model
from ez_jax.run_folder import provenance
from ez_jax.search import make_search
from ez_jax.structs import Embedding, Root

ACTIONS = 18  # of the free model: as many as an Atari game can have
# Those that a preset uses: policy and simulations.
SEARCHES = (("puct_ez", 50), ("puct", 50), ("gumbel", 50), ("gumbel", 16))


class FreeModel:
    """Looks like a model; rewards, values and priors are cheap hashes of a number."""

    def root(self, variables: Any, frames: jax.Array) -> Root:
        """As `Model.root`, of numbers [B, 1]."""
        del variables
        zeros = jnp.zeros(len(frames))
        embedding = Embedding(
            state=frames[:, 0], carry=(zeros, zeros), value_prefix=zeros, step=zeros.astype(int)
        )
        logits, value = self.predict(None, embedding)
        return Root(embedding=embedding, policy_logits=logits, value=value)

    def dynamics(self, variables: Any, embedding: Embedding, action: jax.Array):
        """As `Model.dynamics`."""
        del variables
        state = jnp.sin(embedding.state * 1.7 + action)
        return embedding.replace(state=state), 0.1 * jnp.cos(5 * state)

    def predict(self, variables: Any, embedding: Embedding):
        """As `Model.predict`."""
        del variables
        return jnp.sin(embedding.state[:, None] * jnp.arange(1, ACTIONS + 1)), embedding.state


def roots(game: str, preset: str, batch: int) -> tuple[Any, Any, Root]:
    """A model, its variables and a batch of roots in it."""
    rng = np.random.default_rng(0)
    if not game:
        model = FreeModel()
        return model, {}, model.root({}, jnp.asarray(rng.normal(size=(batch, 1)), jnp.float32))
    config = presets.make_config(game, preset)
    env = make_env(config.game, config.env, num_envs=1, seed=0, training=False)
    env.close()
    model = make_model(config, env.spec)
    variables = jax.jit(model.init)(jax.random.key(0))
    frames = rng.integers(0, 256, (batch, env.spec.frame_stack, *env.spec.observation_shape))
    frames = jnp.asarray(frames, env.spec.observation_dtype)
    return model, variables, jax.jit(model.root)(variables, frames)


def bench_search(game: str, preset: str, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of one search of a batch, for every policy."""
    model, variables, root = roots(game, preset, batch)
    calls: list[Callable[[], Any]] = []
    for policy, simulations in SEARCHES:
        config = SearchConfig(policy=policy, num_simulations=simulations)
        search = jax.jit(make_search(config, model, discount=0.988, explore=True))
        calls.append(functools.partial(search, variables, root, jax.random.key(0)))
    rows = []
    for (policy, simulations), seconds in zip(SEARCHES, take_turns(calls, repeats), strict=True):
        median = statistics.median(seconds)
        row = {"policy": policy, "simulations": simulations, "batch": batch}
        row |= {"median_ms": 1e3 * median, "least_ms": 1e3 * min(seconds)}
        rows.append(row | {"simulations_per_s": batch * simulations / median})
    return rows


def take_turns(calls: list[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of each call, `repeats` times one after the other; all were called once before."""
    jax.block_until_ready([call() for call in calls])
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - began)
    return seconds


def main(words: list[str]) -> None:
    """Time a workload and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("workload", choices=["search"])
    parser.add_argument("--game", default="", help="whose network; none: a free model")
    parser.add_argument("--preset", default="", help="of the network")
    parser.add_argument("--batches", type=int, nargs="+", default=[32], help="roots per search")
    parser.add_argument("--repeats", type=int, default=10)
    chosen = parser.parse_args(words)
    sys.stdout.write(f"{'policy':8} {'sims':>5} {'batch':>6} {'median ms':>10} {'least ms':>9}\n")
    for batch in chosen.batches:
        for row in bench_search(chosen.game, chosen.preset, batch, chosen.repeats):
            shape = f"{row['policy']:8} {row['simulations']:5} {batch:6}"
            times = f"{row['median_ms']:10.2f} {row['least_ms']:9.2f}"
            sys.stdout.write(f"{shape} {times}\n")
            found = {"workload": chosen.workload, "game": chosen.game, **row, **provenance()}
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
