"""Evaluation: full episodes with seeds of their own, without noise unless `eval.epsilon` is set.

    python -m ez_jax.evaluate run=DIR episodes=32 search.num_simulations=50 video=3

Training calls the same functions. Episode i has the seed `eval.seed + i`, so a score does not
depend on how many episodes run side by side.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import re
from collections.abc import Sequence
from pathlib import Path

from ez_jax import terminal
from ez_jax.config import BadInput, Config, checks
from ez_jax.config.errors import Fault, in_short
from ez_jax.evaluation import on_track, pretrained
from ez_jax.evaluation.by_simulations import by_simulations
from ez_jax.evaluation.play import make_evaluate
from ez_jax.evaluation.scores import Games, protocol, scores, summary
from ez_jax.evaluation.trained_agent import Agent, changed, check_free, load
from ez_jax.evaluation.video import write_video
from ez_jax.storage import run_folder
from ez_jax.storage.weights_and_biases import WandbWriter
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
    """Evaluate the weights of a run, print the score and write it into the run folder."""
    values, changes = arguments.read(words, OWN_KEYS)
    counts = _read_counts(values["simulations"]) if values["simulations"] else []
    if not values["run"]:
        raise BadInput("which run? write run=DIR, such as run=runs/CartPole/default/seed0")
    if counts and values["video"]:
        raise BadInput("a video needs one number of simulations: leave out video= or simulations=")
    for key in ("episodes", "video"):
        if values[key] < 0:
            raise BadInput(f"{key} is {values[key]}: write how many episodes, such as {key}=3")
    run = pretrained.output_folder(values["run"])
    check_free(changes)
    if values["episodes"]:
        changes["eval.episodes"] = values["episodes"]
    compilation.configure_jax()
    agent = load(values["run"], best=values["best"])
    chosen = changed(agent, changes)
    if not run.exists():  # where that of a pretrained agent goes
        run_folder.make_run_dir(run, key="run")
    progress = Progress()
    progress.say(
        f"playing {chosen.eval.episodes} episodes of {chosen.game} "
        f"with the weights after {agent.clocks.agent_steps:,} agent steps ..."
    )
    if counts:
        found = by_simulations(chosen, agent, counts, progress.say)
        name = run_folder.BY_SIMULATIONS_FILE
        run_folder.write_scores(run, found, agent.clocks, name)
        progress.say(f"wrote {run / name}")
        return exits.DONE
    _play(run, agent, chosen, values["video"], progress)
    return exits.DONE


def _play(run: Path, agent: Agent, chosen: Config, film: int, progress: Progress) -> None:
    """Play, print and write the scores, before videos and Weights & Biases."""
    games = make_evaluate(chosen, agent.model)(agent.variables, film=film)
    assert games is not None, "nothing stops it"
    measured = summary(chosen, games)
    remark = on_track.published(chosen, agent.clocks.agent_steps)
    progress.evaluation(agent.clocks, measured, remark)
    for name, value in measured.items():
        progress.say(f"{name.removeprefix('eval/'):16} {value:.4g}")
    found = scores(chosen, agent.spec.num_actions, games)
    written = run_folder.write_evaluation(run, found, agent.clocks)
    progress.say(f"wrote {written}{_another_protocol(agent.config, chosen)}")
    if games.no_pictures:
        progress.warn(f"no video: {chosen.game} cannot be rendered: {games.no_pictures}")
    videos = _write_videos(run, chosen, agent.clocks.agent_steps, games)
    for path in videos:
        progress.say(f"wrote {path}")
    if agent.config.log.wandb:
        _send(run, agent.clocks.agent_steps, games, videos, progress)


def _another_protocol(trained: Config, chosen: Config) -> str:
    """The note on scores that cannot be compared with the run's own."""
    own, other = protocol(trained), protocol(chosen)
    differing = ", ".join(f"{key}={other[key]}" for key in own if own[key] != other[key])
    return f" (another protocol than the run's own: {differing})" if differing else ""


def _write_videos(run: Path, config: Config, agent_steps: int, games: Games) -> list[Path]:
    """Write what was filmed into a run folder.

    Raises:
      Fault: it cannot be written.
    """
    fps = 15 if config.env.frame_skip > 1 else 30
    names = (f"step{agent_steps}_game{i}.mp4" for i in range(len(games.pictures)))
    try:
        return [
            write_video(run / "videos" / name, pictures, fps)
            for name, pictures in zip(names, games.pictures, strict=True)
        ]
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no ffmpeg
        raise Fault(f"the scores are written, but no video: {in_short(error)}") from error


def _send(
    run: Path, agent_steps: int, games: Games, videos: Sequence[Path], progress: Progress
) -> None:
    """Send an evaluation to the W&B run of a folder."""
    writer = WandbWriter(run, progress.warn)
    rows = list(zip(games.returns.tolist(), games.lengths.tolist(), strict=True))
    writer.write_table("after_training/games", ("return", "length"), rows)
    for i, path in enumerate(videos):
        writer.write_video(f"after_training/game{i}", path, agent_steps)
    writer.close()


HELP = """usage: python -m ez_jax.evaluate run=DIR [episodes=N] [video=N] [KEY=VALUE ...]

Plays full episodes with the newest weights of a run, with seeds that training does not use.
  run=DIR                      the run folder; the scores go to DIR/evaluations/<time>.json
  run=pretrained:CartPole      an agent that comes with ez_jax; DIR is runs/pretrained/CartPole
  episodes=32                  number of episodes (default: eval.episodes of the run)
  best=true                    use the weights of the best evaluation instead of the newest
  video=3                      record the first episodes into DIR/videos
  simulations=1,4,16,50        the same episodes with each number of simulations,
                               into DIR/scores_by_simulations.json
  eval.epsilon=0.05            share of random actions (another protocol)
  search.num_simulations=50    any key of search, eval and env, except those that the weights
                               fix (env.frame_stack, image_size, grayscale) and those of
                               training alone (its noise, env.max_episode_steps)
exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    terminal.start(main, HELP)
