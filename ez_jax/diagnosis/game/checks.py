"""Can a game be trained on? Checks that name the fix: `python -m ez_jax.doctor env=GAME`.

Each stage needs the one before: spaces, random play, the network. Games are played as in training
(`play.py`); a Gymnasium environment, perhaps the user's own, is also checked alone, for what it
returns before our adapters change it.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from ez_jax.config import BadInput
from ez_jax.config.errors import Fault
from ez_jax.diagnosis.game import repeat, rewards, spaces
from ez_jax.diagnosis.game.play import Game, allowed, open_env, random_actions
from ez_jax.diagnosis.game.spaces import Unfit
from ez_jax.diagnosis.machine_checks import Check, Note
from ez_jax.envs.observations import BadPicture, make_encoder
from ez_jax.envs.raw_observations import Unlike, described, make_taken

SLOW = 100  # steps per second of one environment
DIM, LARGE = 16, 100.0  # an image without brighter pixels, a vector with larger numbers


def stages(game: Game) -> Iterator[list[Check]]:
    """The checks, in stages that each need the one before."""

    def check(name: str, claim: str, look: Callable[[Game], str | Note]) -> Check:
        return Check(name, claim, functools.partial(look, game), _fix)

    yield [check("name", "is there", _name)]
    if game.is_gymnasium:
        yield [
            check("actions", "are one finite set, or numbers with bounds", _actions),
            check("observations", "are an image or a vector", _observations),
        ]
        yield [check("first observation", "lies in the declared space", _first_observation)]
        yield [check("first step", "has Gymnasium's interface", _first_step)]
    yield [check("random play", "is possible", _random_play)]
    yield [check("numbers", "are finite", _numbers)]
    beside = check("side by side", "games do not disturb each other", repeat.side_by_side)
    reset = check("reset", "with a seed starts the same game", repeat.reset_begins_anew)
    yield [
        check("rewards", "fit the bins of values", rewards.rewards),
        check("games", "begin and end", rewards.games),
        check("observations change", "with the steps", _observations_change),
        check("actions matter", "different actions matter", repeat.actions_matter),
        check("same seed, same game", "a resumed run is exact", repeat.same_seed),
        check("other seed, other game", "games differ", repeat.other_seed),
        *([beside, reset] if game.is_gymnasium else []),
        check("picture", "can be drawn", _picture),
        check("speed", "is enough", _speed),
        check("warnings", "Gymnasium has none", _warnings),
    ]
    yield [
        check("network", "accepts the observations", _network),
        check("memory", "is enough", _memory),
    ]


def _fix(error: Exception) -> str:
    if isinstance(error, Unfit):
        return error.fix
    if isinstance(error, BadInput):
        return "the sentence below names it"
    if isinstance(error, Fault):
        return error.fix or "the sentence below names it"
    return (
        "fix the environment where it fails (verbose=true shows the whole traceback): "
        "the error would end a run, too"
    )


def _name(game: Game) -> str:
    env = game.raw() if game.is_gymnasium else open_env(game.config)
    env.close()
    return f"{game.task.task_id} of {game.task.backend}"


def _actions(game: Game) -> str:
    env = game.raw()
    return spaces.check_actions(env.action_space, game.task.task_id)


def _observations(game: Game) -> str | Note:
    space = game.raw().observation_space
    seen = spaces.check_observations(space, game.task.task_id)
    hint = spaces.hint_on_observations(space, game.task.task_id)
    return Note(seen, hint) if hint else seen


def _first_observation(game: Game) -> str | Note:
    env = game.raw()
    returned = env.reset(seed=0)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise Unfit(
            f"reset() returned {type(returned).__name__}", "return (observation, {}) from reset()"
        )
    observation, space = returned[0], env.observation_space
    fix = "declare what reset() and step() return, or return what is declared"
    try:
        make_taken(make_encoder(space, game.task.task_id).space)(observation)
    except Unlike as error:
        raise Unfit(f"reset() returned {error}", fix) from None
    if space.contains(observation):
        return "lies in the declared space"
    sentence = f"reset() returned {described(observation)}, but the space is {space}"
    return Note("not in the declared space", f"{sentence}: {fix}")


def _first_step(game: Game) -> str:
    # Without the limit, because its wrapper expects the result that is checked here.
    env = gymnasium.make(game.task.task_id, disable_env_checker=True, max_episode_steps=-1)
    _, info = env.reset(seed=0)
    nothing = np.zeros(game.spec.action_shape, game.spec.action_dtype)
    returned: Any = env.step(repeat.own_action(env, nothing, info))
    if not (isinstance(returned, tuple) and len(returned) == 5 and isinstance(returned[4], dict)):
        count = (
            f"{len(returned)} values" if isinstance(returned, tuple) else type(returned).__name__
        )
        raise Unfit(
            f"step() returned {count}",
            "return (observation, reward, terminated, truncated, info) from step(): what Gym "
            "called done is terminated where the game ended, truncated where a limit cut it",
        )
    return "observation, reward, terminated, truncated, info"


def _random_play(game: Game) -> str:
    played = game.played
    return f"{played.steps:,} steps, {len(played.lengths):,} games"


def _numbers(game: Game) -> str | Note:
    played = game.played  # where one is not finite, this fails
    low, high = played.low.min(), played.high.max()
    told = f"finite, observations {low:g} to {high:g}"
    if game.spec.is_image and high < DIM:
        hint = f"pixels reach {high:g} of 255, so all are nearly black: multiply them"
        return Note(told, f"{hint} (TransformObservation), or give planes of 0 and 1")
    if not game.spec.is_image and max(-low, high) > LARGE:
        hint = "numbers of about 1 are best for learning: divide by the usual size"
        return Note(told, f"{hint} (TransformObservation)")
    return told


def _observations_change(game: Game) -> str:
    played = game.played
    inside = ~played.is_first[1:]
    changed = (played.digest[1:] != played.digest[:-1])[inside]
    if not changed.any():
        raise Unfit(
            "step() never changed the observation",
            "observe the state after the action in step(), and not only in reset()",
        )
    return f"in {changed.mean():.0%} of all steps"


def _picture(game: Game) -> str | Note:
    env = open_env(game.config, render=True)
    try:
        step = env.reset()
        try:
            pictures = [env.render()[0]]
            for action in random_actions(20, game.spec):
                step = env.step(np.array([allowed(action, step.legal)], game.spec.action_dtype))
                pictures.append(env.render()[0])
        except BadPicture as error:
            fix = "return an image of uint8 [height, width, 3] from render()"
            raise Unfit(str(error), fix) from error
        except RuntimeError:
            return Note(
                "draws none",
                "videos and pages of the search cannot show it: add metadata = {'render_modes': "
                "['rgb_array']}, an argument render_mode, and render()",
            )
    finally:
        env.close()
    return _judge_pictures(pictures)


def _judge_pictures(pictures: Sequence[np.ndarray]) -> str | Note:
    first = pictures[0]
    told = f"{first.shape[1]}x{first.shape[0]} pixels"
    if len({other.shape for other in pictures}) > 1:
        raise Unfit(
            "render() returned images of different sizes",
            "render all images of a game in one size, as a video needs",
        )
    if all(np.array_equal(first, other) for other in pictures[1:]):
        return Note(told, "the image is the same after 20 random steps: render the current state")
    return told


def _speed(game: Game) -> str | Note:
    rate = (game.played.steps - 1) / max(game.played.seconds, 1e-9)
    told = f"{rate:,.0f} steps/s of one environment"
    if rate < SLOW:
        hours = game.config.total_agent_steps / rate / 3600
        hint = (
            f"{game.config.total_agent_steps:,} agent steps take {hours:.1f} h for the game alone"
        )
        return Note(told, f"{hint}: find what is slow in step()")
    return told


def _warnings(game: Game) -> str | Note:
    if not game.warnings:
        return "none during play"
    more = f" (and {len(game.warnings) - 2} more)" if len(game.warnings) > 2 else ""
    count = len(game.warnings)
    return Note(f"{count} during play", " | ".join(game.warnings[:2]) + more)


def _network(game: Game) -> str:
    kind = type(game.model.network).__name__
    kinds = {"ImageNetwork": "convolutions", "VectorNetwork": "a perceptron"}
    frames = game.spec.frame_stack
    return f"{kinds[kind]} over {frames} frame{'s' * (frames != 1)}"


def _memory(game: Game) -> str:
    from ez_jax.system import free_memory
    from ez_jax.training.planning import memory
    from ez_jax.training.planning.needs import memory_needs

    needs, available = memory_needs(game.config, game.model), free_memory.available_memory()
    memory.check(needs, available)
    return f"{free_memory.gigabytes(needs.device)} of {free_memory.gigabytes(available.device)}"
