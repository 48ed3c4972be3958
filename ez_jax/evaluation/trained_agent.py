"""A trained agent in somebody else's code.

agent = ez_jax.load("runs/CartPole/default/seed0")
agent.reset()                        # where an episode begins
action = agent.act(observation)      # again and again: what the game returned, its own action
"""

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from ez_jax import config
from ez_jax.agent.actor import EvalPolicy, init_playing, make_eval_policy
from ez_jax.agent.learner import init_train_state
from ez_jax.agent.model import Model, make_model
from ez_jax.config import BadInput, Config, paths
from ez_jax.envs import make_env
from ez_jax.envs.observations import Encoder, is_unit
from ez_jax.envs.raw_observations import Unlike, batch_of, make_taken
from ez_jax.envs.side_by_side import mask_of
from ez_jax.evaluation.play import make_evaluate
from ez_jax.evaluation.scores import Games
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.checkpoint_files import BEST
from ez_jax.structs import Clocks, EnvSpec, SearchOutput, TimeStep, Variables


class Agent:
    """Acts by search, without noise, in one environment or in several side by side."""

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        variables: Variables,
        clocks: Clocks,
        *,
        encoder: Encoder,
        first_action: int = 0,
    ):
        """Usually made by `load`."""
        self.config = config
        self.spec = spec
        self.model: Model = make_model(config, spec)
        self.variables = variables
        self.clocks = clocks  # of the training run
        self.found: SearchOutput | None = None  # what the last search found, batch of 1 or N
        self._encoder, self._taken = encoder, make_taken(encoder.space)
        self._first_action = first_action
        self._policies: dict[int, EvalPolicy[SearchOutput]] = {}
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Forget the last episodes: the next observation begins new ones.

        Args:
          seed: with the step it decides between actions that the search finds equal; as
            `eval.seed` does in an evaluation. Of several games side by side it is the first's.
        """
        self._seed = seed
        self._playing: Any = None

    def act(
        self,
        observation: Any,
        num_simulations: int = 0,
        *,
        action_mask: Any = None,
        first: Any = None,
    ) -> Any:
        """The best action for what the game just returned; earlier frames are remembered.

        Args:
          observation: as `gymnasium.make` of the game gives it, or N side by side as
            `gymnasium.make_vec` does.
          num_simulations: 0 for as many as in the run's configuration.
          action_mask: `info["action_mask"]`, where the game has it.
          first: bool or bool[N], where an episode begins with this observation; without, in all
            games after `reset` and else in none.

        Returns:
          The game's own number of the action, or i64[N] of N; what the search found is in `found`.

        Raises:
          BadInput: no observation that the game can return, or a mask that is none.

        Examples:
          >>> agent.reset()  # an episode begins
          >>> agent.act(np.zeros(4)) in (0, 1)
          True
          >>> agent.found.policy.shape
          (1, 2)
          >>> agent.reset()
          >>> agent.act(np.zeros((3, 4))).shape  # three games side by side
          (3,)
        """
        frame, is_batch = self._seen(observation)
        number = len(frame)
        begins = self._playing is None
        if begins:
            self._playing = init_playing(self.spec, self._seed, number)
        elif len(self._playing.seed) != number:
            raise BadInput(
                f"act was given {number} observations, but {len(self._playing.seed)} before: call "
                "reset() where other games begin"
            )
        zero = np.zeros(number, np.float32)
        step = TimeStep(
            observation=frame,
            reward=zero,
            score=zero,
            discount=zero + 1,
            is_first=np.broadcast_to(begins if first is None else np.asarray(first, bool), number),
            is_last=np.zeros(number, bool),
            game_over=np.zeros(number, bool),
            legal=self._legal(action_mask, number, is_batch),
        )
        policy = self._policy(num_simulations)
        self.found, self._playing = policy(self.variables, self._playing, step)
        action = np.asarray(self.found.action, np.int64) + self._first_action
        return action if is_batch else int(action[0])

    def play(self, episodes: int = 1, *, seed: int | None = None, film: int = 0) -> Games:
        """Play whole games in the run's own environment, as an evaluation does.

        Args:
          episodes: games, one from each seed.
          seed: of the first; by default `eval.seed` of the run.
          film: games whose pictures are kept.

        Examples:
          >>> agent.play(episodes=2, seed=5).returns.shape
          (2,)
        """
        changes = {"eval.episodes": episodes} | ({} if seed is None else {"eval.seed": seed})
        games = make_evaluate(changed(self, changes), self.model)(self.variables, film=film)
        assert games is not None, "nobody stops it"
        return games

    def _seen(self, observation: Any) -> tuple[np.ndarray, bool]:
        """What the networks see, dtype[N, *obs], and whether N games were given."""
        space, shape = self._encoder.space, self.spec.observation_shape
        if self._is_seen_already(observation):
            return np.asarray(observation).reshape(-1, *shape), np.ndim(observation) > len(shape)
        batch = batch_of(space, observation)
        try:
            raw = self._taken(observation, batch)
        except Unlike as error:
            if isinstance(space, spaces.Box) and np.shape(observation) != (*batch, *space.shape):
                raise BadInput(
                    f"{self.spec.game} was learned from observations of shape {space.shape}, but "
                    f"this one is {np.shape(observation)}"
                ) from None
            raise BadInput(f"{self.spec.game} cannot return this observation: {error}") from None
        if not all(np.isfinite(part).all() for part in jax.tree.leaves(raw)):
            raise BadInput(
                f"this observation of {self.spec.game} has numbers that are not finite (NaN or "
                "infinity)"
            )
        raw = raw if batch else jax.tree.map(lambda part: part[None], raw)
        return self._encoder.encode(raw), bool(batch)

    def _is_seen_already(self, observation: Any) -> bool:
        """Whether it is a picture of bytes that has its channels last though the game's has not."""
        space, shape = self._encoder.space, self.spec.observation_shape
        if getattr(observation, "dtype", None) != np.uint8 or space.dtype != np.uint8:
            return False
        given = np.shape(observation)
        is_other = isinstance(space, spaces.Box) and space.shape != shape and not is_unit(space)
        return is_other and given[-3:] == shape and len(given) in (3, 4)

    def _legal(self, mask: Any, number: int, is_batch: bool) -> np.ndarray | None:
        if mask is None and not self.spec.has_masks:
            return None
        if mask is None:
            raise BadInput(
                f"{self.spec.game} says which actions are allowed: call act(observation, "
                'action_mask=info["action_mask"])'
            )
        masks = np.asarray(mask)
        if is_batch and masks.dtype.kind in "biuf" and masks.ndim == 2:
            # In a game that is over the next action is swallowed.
            masks = np.where(masks.any(axis=-1, keepdims=True), masks, np.ones_like(masks))
        shape = (self.spec.num_actions,)
        try:
            return mask_of(masks, (number, *shape) if is_batch else shape).reshape(number, -1)
        except ValueError as error:
            raise BadInput(f"this action_mask {error}") from None

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
    spec, encoder, first_action = env.spec, env.encoder, env.first_action
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
    variables = restored.state["train"].variables
    return Agent(
        *(chosen, spec, variables, restored.clocks), encoder=encoder, first_action=first_action
    )


def play(
    run: str | Path,
    episodes: int = 1,
    *,
    seed: int | None = None,
    best: bool = False,
    film: int = 0,
) -> Games:
    """Play whole games with the agent of a run folder; see `load` and `Agent.play`.

    Examples:
      >>> games = ez_jax.play(run, episodes=2)
      >>> games.returns.shape, games.lengths.shape
      ((2,), (2,))
    """
    return load(run, best=best).play(episodes, seed=seed, film=film)


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
