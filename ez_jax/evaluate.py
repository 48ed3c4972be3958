"""Evaluation: full games, own seeds, without noise unless `eval.epsilon` says so.

    python -m ez_jax.evaluate run=DIR episodes=32 search.num_simulations=50 video=3

Training calls the same functions. Game i is played from `eval.seed + i`, so a score does not
depend on how many games run side by side.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import re
from collections.abc import Sequence

from ez_jax import terminal
from ez_jax.config import BadInput, Config, checks, paths
from ez_jax.evaluation.by_simulations import by_simulations
from ez_jax.evaluation.play import make_evaluate
from ez_jax.evaluation.scores import protocol, scores, summary
from ez_jax.evaluation.trained_agent import changed, check_free, load
from ez_jax.evaluation.video import write_video
from ez_jax.storage import run_folder
from ez_jax.system import compilation, exits
from ez_jax.terminal import arguments
from ez_jax.terminal.progress import Progress

OWN_KEYS = {"run": "", "episodes": 0, "video": 0, "best": False, "simulations": ""}
MOST_SIMULATIONS = checks.AT_MOST["search.num_simulations"]


def _read_counts(text: str) -> list[int]:
    words = [word.strip() for word in text.strip("[]").split(",")]
    if not all(re.fullmatch(r"\d{1,9}", word) and int(word) > 0 for word in words):
        raise BadInput(f"simulations is '{text}': write whole numbers, such as simulations=1,4,16")
    counts = sorted({int(word) for word in words})
    if counts[-1] > MOST_SIMULATIONS:
        raise BadInput(f"simulations is '{text}': at most {MOST_SIMULATIONS:,} are searched")
    return counts


def main(words: Sequence[str]) -> int:
    """Evaluate the weights of a run folder, print the score and write scores.json."""
    values, changes = arguments.read(words, OWN_KEYS)
    counts = _read_counts(values["simulations"]) if values["simulations"] else []
    if not values["run"]:
        raise BadInput("which run? write run=DIR, such as run=runs/CartPole/default/seed0")
    if counts and values["video"]:
        raise BadInput("a video is of one number of simulations: leave out video= or simulations=")
    run = paths.expanded(values["run"])
    check_free(changes)
    if values["episodes"]:
        changes["eval.episodes"] = values["episodes"]
    compilation.configure_jax()
    agent = load(run, best=values["best"])
    chosen = changed(agent, changes)
    progress = Progress()
    progress.say(
        f"playing {chosen.eval.episodes} games of {chosen.game} "
        f"with weights of {agent.clocks.agent_steps:,} agent steps ..."
    )
    if counts:
        found = by_simulations(chosen, agent, counts, progress.say)
        name = run_folder.BY_SIMULATIONS_FILE
        run_folder.write_scores(run, found, agent.clocks, name)
        progress.say(f"wrote {run / name}")
        return exits.DONE
    games = make_evaluate(chosen, agent.model)(agent.variables, film=values["video"])
    assert games is not None, "nobody stops it"
    progress.say(f"{len(games.returns)} episodes, {games.distinct} distinct")
    for name, value in summary(chosen, games).items():
        progress.say(f"{name.removeprefix('eval/'):16} {value:.4g}")
    for i, pictures in enumerate(games.pictures):
        fps = 15 if chosen.env.frame_skip > 1 else 30
        path = run / "videos" / f"step{agent.clocks.agent_steps}_game{i}.mp4"
        progress.say(f"wrote {write_video(path, pictures, fps)}")
    found = scores(chosen, agent.spec.num_actions, games)
    name, remark = _where(agent.config, chosen)
    run_folder.write_scores(run, found, agent.clocks, name)
    progress.say(f"wrote {run / name}{remark}")
    return exits.DONE


def _where(trained: Config, chosen: Config) -> tuple[str, str]:
    """The file for scores, and what is to be said of it.

    Those with another share of random actions than the run's own never come in its place.
    """
    own, other = protocol(trained), protocol(chosen)
    differing = ", ".join(f"{key}={other[key]}" for key in own if own[key] != other[key])
    if trained.eval.epsilon == chosen.eval.epsilon:
        remark = f", of another protocol than the run's own: {differing}" if differing else ""
        return run_folder.SCORES_FILE, remark
    name = f"scores_epsilon_{chosen.eval.epsilon:g}.json"
    return name, f" beside {run_folder.SCORES_FILE}, because the protocol is another: {differing}"


HELP = """usage: python -m ez_jax.evaluate run=DIR [episodes=N] [video=N] [KEY=VALUE ...]

Plays full games with the newest weights of a run, from seeds of their own.
  run=DIR                      the run folder
  episodes=32                  games (default: eval.episodes of the run)
  best=true                    the weights of the best evaluation instead of the newest
  video=3                      film the first games into DIR/videos
  simulations=1,4,16,50        the same games with each, into DIR/scores_by_simulations.json
  eval.epsilon=0.05            a share of random actions, into DIR/scores_epsilon_0.05.json
  search.num_simulations=50    any key of search, eval and env
exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    terminal.start(main, HELP)
