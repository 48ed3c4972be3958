"""A trained agent in somebody else's code.

agent = ez_jax.load("runs/CartPole/default/seed0")
action = agent.act(observation)      # again and again; agent.reset() where an episode begins
"""

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ez_jax import config
from ez_jax.agent.actor import EvalPolicy, init_playing, make_eval_policy
from ez_jax.agent.learner import init_train_state
from ez_jax.agent.model import Model, make_model
from ez_jax.config import BadInput, Config, paths
from ez_jax.envs import make_env
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.checkpoint_files import BEST
from ez_jax.structs import Clocks, EnvSpec, SearchOutput, TimeStep, Variables


class Agent:
    """Acts by search, without noise, in one environment."""

    def __init__(self, config: Config, spec: EnvSpec, variables: Variables, clocks: Clocks):
        """Usually made by `load`."""
        self.config = config
        self.spec = spec
        self.model: Model = make_model(config, spec)
        self.variables = variables
        self.clocks = clocks  # of the training run
        self.found: SearchOutput | None = None  # what the last search found, batch of 1
        self._policies: dict[int, EvalPolicy[SearchOutput]] = {}
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Forget the last episode: the next observation begins a new one.

        Args:
          seed: with the step it decides between actions that the search finds equal; as
            `eval.seed` does in an evaluation.
        """
        self._playing = init_playing(self.spec, seed, 1)
        self._is_first = True

    def act(self, observation: np.ndarray, num_simulations: int = 0) -> int:
        """The best action for the newest frame; earlier ones are remembered.

        Args:
          observation: one frame of `spec.observation_shape`, images as uint8.
          num_simulations: 0 for as many as in the run's configuration.

        Returns:
          A number in 0..A-1; what the search found is in `found`.

        Raises:
          BadInput: a frame of another shape.

        Examples:
          >>> agent.reset()  # an episode begins
          >>> agent.act(np.zeros(4)) in (0, 1)
          True
          >>> agent.found.policy.shape
          (1, 2)
        """
        frame = np.asarray(observation, self.spec.observation_dtype)
        if frame.shape != self.spec.observation_shape:
            raise BadInput(
                f"{self.spec.game} was learned from frames of shape {self.spec.observation_shape}, "
                f"but this one is {frame.shape}"
            )
        policy = self._policy(num_simulations)
        zero = np.zeros(1, np.float32)
        step = TimeStep(
            observation=frame[None],
            reward=zero,
            score=zero,
            discount=zero + 1,
            is_first=np.array([self._is_first]),
            is_last=np.array([False]),
            game_over=np.array([False]),
        )
        self.found, self._playing = policy(self.variables, self._playing, step)
        self._is_first = False
        return int(self.found.action[0])

    def _policy(self, num_simulations: int) -> EvalPolicy[SearchOutput]:
        if num_simulations not in self._policies:
            quiet = config.override(self.config, {"eval.epsilon": 0.0})
            policy = make_eval_policy(quiet, self.model, num_simulations)
            self._policies[num_simulations] = jax.jit(policy)
        return self._policies[num_simulations]


def _check_module(run: Path, game: str) -> None:
    """Refuse a game whose module would come from the run folder: its files are data."""
    module = game.rpartition(":")[0].partition(".")[0]
    if not module.isidentifier() or module in sys.modules:
        return
    found = importlib.util.find_spec(module)  # imports nothing, as there is no dot in it
    places = [found.origin or "", *(found.submodule_search_locations or ())] if found else []
    if any(Path(place).resolve().is_relative_to(run.resolve()) for place in places if place):
        raise BadInput(f"game {game} is code of the run folder {run}, which is only read as data")


def load(run: str | Path, *, best: bool = False) -> Agent:
    """The agent of a run folder, which is only read.

    Args:
      run: the folder, such as `runs/CartPole/default/seed0`.
      best: the weights of the best evaluation instead of the newest.

    Raises:
      BadInput: there is no such run, or nothing was saved in it yet.

    Examples:
      >>> agent = ez_jax.load(run)
      >>> agent.clocks.agent_steps > 0
      True
    """
    run = paths.expanded(run)
    chosen = config.validate(config.from_dict(run_folder.read_config(run)))
    _check_module(run, chosen.game)
    env = make_env(chosen.game, chosen.env, num_envs=1, seed=0, training=False, render=False)
    spec = env.spec
    env.close()
    model = make_model(chosen, spec)
    template = jax.eval_shape(lambda: init_train_state(chosen, model, jax.random.key(0)))
    with Checkpointer(run) as checkpointer:
        if best and checkpointer.best() is None:
            raise BadInput(f"{run} holds no best weights; an evaluation has to come first")
        wanted = {"train": template}
        restored = (
            checkpointer.restore(BEST, wanted) if best else checkpointer.restore_newest(wanted)
        )
    if restored is None:
        raise BadInput(f"{run} holds no checkpoint yet; train it first")
    return Agent(chosen, spec, restored.state["train"].variables, restored.clocks)


FREE_SECTIONS = ("search.", "eval.", "env.")  # what may differ from the training run
_WEIGHTS = (
    "is what the weights were trained for, and cannot be changed afterwards: train anew with it"
)
_TRAINING = "is of training alone and changes nothing here; leave it out"
# Keys of these sections that may not.
NOT_FREE = {
    **dict.fromkeys(("env.frame_stack", "env.image_size", "env.grayscale"), _WEIGHTS),
    "env.max_episode_steps": "cuts episodes of training alone; write env.eval_max_episode_steps",
    **dict.fromkeys(("env.episodic_life", "env.reward_clip", "eval.every"), _TRAINING),
    **dict.fromkeys(("search.dirichlet_fraction", "search.dirichlet_alpha"), _TRAINING),
    **dict.fromkeys(("search.temperatures", "search.temperature_fractions"), _TRAINING),
    "search.gumbel_scale": _TRAINING,
}


def check_free(keys: Iterable[str]) -> None:
    """Refuse what may not differ from the training run.

    Raises:
      BadInput: names the first such key.
    """
    for key in keys:
        if not key.startswith(FREE_SECTIONS):
            raise BadInput(f"{key} belongs to the training run; only search, eval and env may vary")
        if key in NOT_FREE:
            raise BadInput(f"{key} {NOT_FREE[key]}")


def changed(agent: Agent, changes: Mapping[str, Any]) -> Config:
    """The configuration of a trained agent with some values changed, by dotted key.

    Raises:
      BadInput: an unknown key, a value that is not possible, or a game that the weights do not fit.
    """
    if "search.num_simulations" in changes:  # a number of its own for evaluation would win
        changes = {"eval.num_simulations": 0, **changes}
    chosen = config.validate(config.override(agent.config, changes))
    if chosen.env != agent.config.env:
        env = make_env(chosen.game, chosen.env, num_envs=1, seed=0, training=False)
        seen = [(s.observation_shape, s.num_actions) for s in (env.spec, agent.spec)]
        env.close()
        if seen[0] != seen[1]:
            raise BadInput(
                f"with these settings of env {chosen.game} has observations {seen[0][0]} and "
                f"{seen[0][1]} actions, but the weights are for {seen[1][0]} and {seen[1][1]}"
            )
    return chosen
