"""Is a game as a run needs it? Checks that say what to mend: `python -m ez_jax.doctor env=GAME`.

Each stage needs what the one before looked at: spaces, random play, the network. Games are played
as training has them (`play.py`); an environment of Gymnasium, which may be one's own, is also
taken by itself, for what it returns before anything of ours has touched it.
"""

import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from ez_jax.config import BadInput, Config, run_folder
from ez_jax.config.games import resolve
from ez_jax.diagnosis.game import repeat, rewards, spaces
from ez_jax.diagnosis.game.play import Play, open_env, play, random_actions
from ez_jax.diagnosis.game.spaces import Unfit
from ez_jax.diagnosis.machine_checks import Check, Note

MOST_SECONDS = 20.0  # of random play
SLOW = 100  # steps per second of one environment
DIM, LARGE = 16, 100.0  # a picture without brighter pixels, a vector with larger numbers


class Subject:
    """The game that is looked at, with what was found out of it so far."""

    def __init__(self, config: Config, steps: int):
        """`steps` of random play at most; the configuration is one that `validate` passed."""
        self.config, self.steps = config, steps
        self.task = resolve(config.game, config.env.backend)
        self.is_gymnasium = self.task.backend == "gymnasium"
        self.warnings: list[str] = []  # of Gymnasium's own checks, while the game was played

    def raw(self) -> gymnasium.Env:
        """The environment of Gymnasium as its author sees it."""
        return gymnasium.make(self.task.task_id, disable_env_checker=True)

    @functools.cached_property
    def num_actions(self) -> int:
        """How many actions there are."""
        env = open_env(self.config)
        env.close()
        return env.spec.num_actions

    @functools.cached_property
    def played(self) -> Play:
        """Random play."""
        actions = random_actions(self.steps, self.num_actions)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            played = play(self.config, actions, most_seconds=MOST_SECONDS)
        told = [re.sub(r"\x1b\[\d*m|WARN: ", "", str(warning.message)) for warning in caught]
        self.warnings = list(dict.fromkeys(told))
        return played

    @functools.cached_property
    def model(self) -> Any:
        """The network that it would get, without weights."""
        from ez_jax.agent.model import make_model

        env = open_env(self.config)
        env.close()
        return make_model(self.config, env.spec)

    def would_get(self) -> dict[str, str]:
        """Preset, search, length, network and memory of a run, by name."""
        from ez_jax.training.planning.needs import memory_plan, plan_rows

        plan = memory_plan(self.config, self.model)
        rows = plan_rows(self.config, self.model, plan, run_folder(self.config), None)
        return {name: text for name, text in rows.items() if name != "folder"}


def stages(subject: Subject) -> Iterator[list[Check]]:
    """The checks, in parts that each need the one before."""
    own = subject.is_gymnasium
    yield _checks(subject, "name")
    if own:
        yield _checks(subject, "actions", "observations")
        yield _checks(subject, "first observation")
    yield _checks(subject, "random play")
    yield _checks(subject, "numbers")
    yield _checks(
        *(subject, "rewards", "games", "observations change", "actions matter"),
        *("same seed, same game", "other seed, other game", *(["reset"] if own else [])),
        *("picture", "speed", "warnings"),
    )
    yield _checks(subject, "network", "memory")


def _checks(subject: Subject, *names: str) -> list[Check]:
    return [
        Check(name, CLAIMS[name][0], functools.partial(CLAIMS[name][1], subject), _mend)
        for name in names
    ]


def _mend(error: Exception) -> str:
    if isinstance(error, Unfit):
        return error.mend
    if isinstance(error, BadInput):
        return "the sentence below names it"
    return (
        "mend the environment where it fails (verbose=true shows the whole traceback): "
        "what it raises ends a run as well"
    )


def _name(subject: Subject) -> str:
    env = subject.raw() if subject.is_gymnasium else open_env(subject.config)
    env.close()
    return f"{subject.task.task_id} of {subject.task.backend}"


def _actions(subject: Subject) -> str:
    env = subject.raw()
    return str(spaces.check_actions(env.action_space, subject.task.task_id))


def _observations(subject: Subject) -> str | Note:
    space = subject.raw().observation_space
    seen = spaces.check_observations(space, subject.task.task_id)
    hint = spaces.hint_on_observations(space)
    return Note(seen, hint) if hint else seen


def _first_observation(subject: Subject) -> str | Note:
    env = subject.raw()
    returned = env.reset(seed=0)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise Unfit(
            f"reset() returned {type(returned).__name__}", "return (observation, {}) from reset()"
        )
    observation, space = returned[0], env.observation_space
    if space.contains(observation):
        return "lies in the declared space"
    sentence = f"reset() returned {_described(observation)}, but the space is {space}"
    shape = getattr(observation, "shape", None)
    mend = "declare what reset() and step() return, or return what is declared"
    is_vector = isinstance(space, gymnasium.spaces.Box) and len(space.shape) < 2
    if is_vector and shape == space.shape:  # taken as they are, whatever the bounds say
        return Note("not in the declared space", f"{sentence}: {mend}")
    raise Unfit(sentence, mend)


def _described(observation: Any) -> str:
    if not isinstance(observation, np.ndarray) or not observation.size:
        return type(observation).__name__
    low, high = observation.min(), observation.max()
    return f"{observation.dtype}{list(observation.shape)} of {low:g} to {high:g}"


def _random_play(subject: Subject) -> str:
    played = subject.played
    return f"{played.steps:,} steps, {len(played.lengths):,} games"


def _numbers(subject: Subject) -> str | Note:
    played = subject.played
    for name, numbers in (("observation", played.low), ("reward", played.score)):
        if not np.isfinite(numbers).all():
            row = int(np.argmin(np.isfinite(numbers)))
            raise Unfit(
                f"the {name} of row {row} is not finite (NaN or infinity)",
                "return finite numbers only: an update that meets another is skipped",
            )
    low, high = played.low.min(), played.high.max()
    told = f"finite, observations {low:g} to {high:g}"
    if subject.model.spec.is_image and high < DIM:
        hint = f"pixels reach {high:g} of 255, so all are nearly black: multiply them"
        return Note(told, f"{hint} (TransformObservation), or give planes of 0 and 1")
    if not subject.model.spec.is_image and max(-low, high) > LARGE:
        hint = "numbers of about 1 are learned from best: divide by what is usual in the game"
        return Note(told, f"{hint} (TransformObservation)")
    return told


def _observations_change(subject: Subject) -> str:
    played = subject.played
    inside = ~played.is_first[1:]
    changed = (played.digest[1:] != played.digest[:-1])[inside]
    if not changed.any():
        raise Unfit(
            "step() never returned another observation than the one before",
            "observe the state after the action in step(), and not only in reset()",
        )
    return f"in {changed.mean():.0%} of all steps"


def _picture(subject: Subject) -> str | Note:
    env = open_env(subject.config)
    try:
        env.reset()
        try:
            pictures = [env.render()[0]]
        except RuntimeError:
            return Note(
                "draws none",
                "videos and pages of the search cannot show it: add metadata = {'render_modes': "
                "['rgb_array']}, an argument render_mode, and render()",
            )
        for action in random_actions(20, subject.num_actions):
            env.step(np.array([action], np.int32))
            pictures.append(env.render()[0])
    finally:
        env.close()
    return _judge_pictures(pictures)


def _judge_pictures(pictures: Sequence[np.ndarray]) -> str | Note:
    first = np.asarray(pictures[0])
    if first.dtype != np.uint8 or first.ndim != 3 or first.shape[-1] != 3:
        raise Unfit(
            f"render() returned {first.dtype}{list(first.shape)}",
            "return a picture of uint8 [height, width, 3] from render()",
        )
    told = f"{first.shape[1]}x{first.shape[0]} pixels"
    if all(np.array_equal(first, other) for other in pictures[1:]):
        return Note(told, "the picture is the same after 20 random steps: draw the present state")
    return told


def _speed(subject: Subject) -> str | Note:
    rate = (subject.played.steps - 1) / max(subject.played.seconds, 1e-9)
    told = f"{rate:,.0f} steps/s of one environment"
    if rate < SLOW:
        hours = subject.config.total_agent_steps / rate / 3600
        hint = f"{subject.config.total_agent_steps:,} agent steps of play alone take {hours:.1f} h"
        return Note(told, f"{hint}: see what is slow in step()")
    return told


def _warnings(subject: Subject) -> str | Note:
    if not subject.warnings:
        return "none while it was played"
    more = f" (and {len(subject.warnings) - 2} more)" if len(subject.warnings) > 2 else ""
    count = len(subject.warnings)
    return Note(f"{count} while it was played", " | ".join(subject.warnings[:2]) + more)


def _network(subject: Subject) -> str:
    kind = type(subject.model.network).__name__
    kinds = {"ImageNetwork": "convolutions", "VectorNetwork": "a perceptron"}
    frames = subject.model.spec.frame_stack
    return f"{kinds[kind]} over {frames} frame{'s' * (frames != 1)}"


def _memory(subject: Subject) -> str:
    from ez_jax.system import free_memory
    from ez_jax.training.planning import memory
    from ez_jax.training.planning.needs import memory_plan

    plan, available = memory_plan(subject.config, subject.model), free_memory.available_memory()
    memory.check(plan, available)
    return f"{free_memory.gigabytes(plan.device)} of {free_memory.gigabytes(available.device)}"


CLAIMS: dict[str, tuple[str, Callable[[Subject], str | Note | None]]] = {
    "name": ("is there", _name),
    "actions": ("are one finite set", _actions),
    "observations": ("are an image or a vector", _observations),
    "first observation": ("lies in the declared space", _first_observation),
    "random play": ("is possible", _random_play),
    "numbers": ("are finite", _numbers),
    "rewards": ("fit the bins of values", rewards.rewards),
    "games": ("begin and end", rewards.games),
    "observations change": ("with the steps", _observations_change),
    "actions matter": ("what is done makes a difference", repeat.actions_matter),
    "same seed, same game": ("a resumed run goes on exactly", repeat.same_seed),
    "other seed, other game": ("games are not all alike", repeat.other_seed),
    "reset": ("with a seed begins the same game", repeat.reset_begins_anew),
    "picture": ("can be drawn", _picture),
    "speed": ("is enough", _speed),
    "warnings": ("Gymnasium has none", _warnings),
    "network": ("takes such observations", _network),
    "memory": ("is enough", _memory),
}
