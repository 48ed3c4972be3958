"""Evaluation: full games, no noise, own seeds.

    python -m ez_jax.evaluate run=DIR episodes=32 search.num_simulations=50 video=3

Training calls the same functions. Game i is played from `eval.seed + i`, so a score does not
depend on how many games run side by side.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ez_jax import arguments, config
from ez_jax.actor import init_frames, make_policy
from ez_jax.agent import Agent, load
from ez_jax.config import BadInput, Config, checks, override
from ez_jax.envs import VectorEnv, make_env
from ez_jax.model import Model
from ez_jax.progress import Progress
from ez_jax.scores import human_normalised
from ez_jax.search import make_search, resolve
from ez_jax.storage import run_folder
from ez_jax.structs import Variables
from ez_jax.system import compilation, devices, exits, watchdog
from ez_jax.video import write_video

OWN_KEYS = {"run": "", "episodes": 0, "video": 0, "best": False, "simulations": ""}
MOST_SIMULATIONS = checks.AT_MOST["search.num_simulations"]
FREE_SECTIONS = ("search.", "eval.", "env.")  # what may differ from the training run


@dataclasses.dataclass(frozen=True)
class Games:
    """What was played, game by game."""

    returns: np.ndarray  # f64[episodes], the game's own score
    lengths: np.ndarray  # i64[episodes], agent steps
    pictures: tuple[np.ndarray, ...] = ()  # u8[t, H, W, 3] of the games that were filmed


EvaluateFn = Callable[..., Games]


def make_eval_policy(config: Config, model: Model) -> Callable[..., Any]:
    """The jitted policy of evaluation, without noise; frames are donated."""
    search = make_search(
        config.search,
        model,
        discount=config.discount,
        explore=False,
        num_simulations=config.eval.num_simulations,
    )
    return jax.jit(make_policy(model, search), donate_argnums=1)


def make_evaluate(config: Config, model: Model) -> EvaluateFn:
    """`evaluate(variables, film=0, stop)` plays `eval.episodes` games; the first `film` are filmed.

    None if `stop()` became true meanwhile.
    """
    policy = make_eval_policy(config, model)
    num_envs = min(config.eval.num_envs, config.eval.episodes)

    @watchdog.at("evaluating")
    def evaluate(
        variables: Variables, film: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> Games | None:
        waves = []
        for first in range(0, config.eval.episodes, num_envs):
            env = make_env(
                config.game,
                config.env,
                num_envs=num_envs,
                seed=config.eval.seed + first,
                training=False,
            )
            try:
                games = _play(policy, variables, env, film=max(0, film - first), stop=stop)
            finally:
                env.close()
            if games is None:
                return None
            waves.append(games)
        count = config.eval.episodes  # the last wave may have played more
        return Games(
            returns=np.concatenate([games.returns for games in waves])[:count],
            lengths=np.concatenate([games.lengths for games in waves])[:count],
            pictures=sum((games.pictures for games in waves), ())[:film],
        )

    return evaluate


def _play(
    policy: Callable[..., Any],
    variables: Variables,
    env: VectorEnv,
    *,
    film: int,
    stop: Callable[[], bool],
) -> Games | None:
    """One game in each environment, until the last is over; None if stopped."""
    num_envs = env.num_envs
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    playing = np.ones(num_envs, bool)
    pictures: list[list[np.ndarray]] = [[] for _ in range(min(film, num_envs))]
    frames = jax.device_put(init_frames(env.spec, num_envs), devices.everywhere())
    key, no_temperature = jax.random.key(0), jnp.zeros(())
    step = env.reset()
    while playing.any():
        if stop():
            return None
        _film(pictures, env, playing)
        found, frames = policy(variables, frames, step, key, no_temperature)
        acted = playing & ~step.is_last  # after a lost life an action is swallowed
        step = env.step(np.asarray(found.action))
        watchdog.beat()
        returns += step.score * playing
        lengths += acted
        playing &= ~step.game_over
    return Games(returns, lengths, tuple(np.stack(film) for film in pictures))


def _film(pictures: list[list[np.ndarray]], env: Any, playing: np.ndarray) -> None:
    if any(playing[: len(pictures)]):
        for i, picture in enumerate(env.render()[: len(pictures)]):
            if playing[i]:
                pictures[i].append(picture)


def protocol(config: Config) -> dict[str, Any]:
    """How the games of an evaluation were played; scores of different protocols do not compare."""
    env = config.env
    return {
        "game": config.game,
        "frame_skip": env.frame_skip,
        "sticky_actions": env.sticky_actions,
        "noop_max": env.noop_max,
        "max_episode_steps": env.eval_max_episode_steps,
        "episodic_life": False,
        "reward_clip": False,
        "search": config.search.policy,
        "num_simulations": config.eval.num_simulations or config.search.num_simulations,
        "first_seed": config.eval.seed,
    }


def summary(config: Config, games: Games) -> dict[str, float]:
    """Evaluation metrics by name; the human-normalised score where a human has played."""
    mean = float(games.returns.mean())
    metrics = {
        "eval/return_mean": mean,
        "eval/return_std": float(games.returns.std()),
        "eval/return_median": float(np.median(games.returns)),
        "eval/length_mean": float(games.lengths.mean()),
        "eval/episodes": len(games.returns),
    }
    normalised = human_normalised(config.game, mean)
    return metrics if normalised is None else metrics | {"eval/human_normalised": normalised}


def scores(config: Config, games: Games) -> dict[str, Any]:
    """The content of scores.json, apart from clocks and versions."""
    mean = float(games.returns.mean())
    return {
        "protocol": protocol(config),
        "seed": config.seed,
        "preset": config.preset,
        "episodes": len(games.returns),
        "returns": games.returns.tolist(),
        "mean": mean,
        "human_normalised": human_normalised(config.game, mean),
    }


def by_simulations(
    config: Config, agent: Agent, counts: Sequence[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """The content of scores_by_simulations.json: the same games with several searches."""
    rows = []
    say(f"{'simulations':>11} {'mean':>10} {'std':>10}")
    for count in counts:
        chosen = override(config, {"eval.num_simulations": count})
        returns = make_evaluate(chosen, agent.model)(agent.variables).returns
        row = {"num_simulations": count, "mean": float(returns.mean()), "std": float(returns.std())}
        say(f"{count:11} {row['mean']:10.4g} {row['std']:10.4g}")
        rows.append(row | {"returns": returns.tolist()})
    played = {key: value for key, value in protocol(config).items() if key != "num_simulations"}
    about = {"seed": config.seed, "preset": config.preset, "episodes": config.eval.episodes}
    return {"protocol": played, **about, "rows": rows}


def _read_counts(text: str) -> list[int]:
    words = [word.strip() for word in text.strip("[]").split(",")]
    if not all(re.fullmatch(r"\d{1,9}", word) and int(word) > 0 for word in words):
        raise BadInput(f"simulations is '{text}': write whole numbers, such as simulations=1,4,16")
    counts = sorted({int(word) for word in words})
    if counts[-1] > MOST_SIMULATIONS:
        raise BadInput(f"simulations is '{text}': at most {MOST_SIMULATIONS:,} are searched")
    return counts


def check_free(keys: Iterable[str]) -> None:
    """Refuse what may not differ from the training run.

    Raises:
      BadInput: names the first such key.
    """
    for key in keys:
        if not key.startswith(FREE_SECTIONS):
            raise BadInput(f"{key} belongs to the training run; only search, eval and env may vary")


def changed(agent: Agent, changes: Mapping[str, Any]) -> Config:
    """The configuration of a trained agent with some values changed, by dotted key.

    Raises:
      BadInput: an unknown key, or a value that is not possible.
    """
    chosen = config.validate(config.override(agent.config, changes))
    return resolve(chosen, agent.spec.num_actions)


def main() -> int:
    """Evaluate the weights of a run folder, print the score and write scores.json."""
    values, changes = arguments.read(sys.argv[1:], OWN_KEYS)
    counts = _read_counts(values["simulations"]) if values["simulations"] else []
    if not values["run"]:
        raise BadInput("which run? write run=DIR, such as run=runs/CartPole/default/seed0")
    if counts and values["video"]:
        raise BadInput("a video is of one number of simulations: leave out video= or simulations=")
    check_free(changes)
    if values["episodes"]:
        changes["eval.episodes"] = values["episodes"]
    compilation.configure_jax()
    agent = load(values["run"], best=values["best"])
    chosen = changed(agent, changes)
    progress = Progress()
    progress.say(
        f"playing {chosen.eval.episodes} games of {chosen.game} "
        f"with weights of {agent.clocks.agent_steps:,} agent steps ..."
    )
    if counts:
        found = by_simulations(chosen, agent, counts, progress.say)
        name = run_folder.BY_SIMULATIONS_FILE
        run_folder.write_scores(values["run"], found, agent.clocks, name)
        progress.say(f"wrote {Path(values['run']) / name}")
        return exits.DONE
    games = make_evaluate(chosen, agent.model)(agent.variables, film=values["video"])
    for name, value in summary(chosen, games).items():
        progress.say(f"{name.removeprefix('eval/'):16} {value:.4g}")
    for i, pictures in enumerate(games.pictures):
        fps = 15 if chosen.env.frame_skip > 1 else 30
        path = Path(values["run"]) / "videos" / f"step{agent.clocks.agent_steps}_game{i}.mp4"
        progress.say(f"wrote {write_video(path, pictures, fps)}")
    run_folder.write_scores(values["run"], scores(chosen, games), agent.clocks)
    return exits.DONE


HELP = """usage: python -m ez_jax.evaluate run=DIR [episodes=N] [video=N] [KEY=VALUE ...]

Plays full games with the newest weights of a run, without noise, from seeds of their own.
  run=DIR                      the run folder
  episodes=32                  games (default: eval.episodes of the run)
  best=true                    the weights of the best evaluation instead of the newest
  video=3                      film the first games into DIR/videos
  simulations=1,4,16,50        the same games with each, into DIR/scores_by_simulations.json
  search.num_simulations=50    any key of search, eval and env
"""

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(HELP)
        sys.exit(exits.DONE)
    sys.exit(exits.guarded(main))
