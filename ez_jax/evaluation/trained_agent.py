"""A trained agent for use in other code.

agent = ez_jax.load("runs/CartPole/default/seed0")
agent.reset()                        # at the start of an episode
action = agent.act(observation)      # from the game's own observation to its own action
"""

import functools
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
from ez_jax.agent.model import Model, make_model
from ez_jax.config import BadInput, Config
from ez_jax.envs import make_env
from ez_jax.envs.actions import Actions, told_actions
from ez_jax.envs.observations import Encoder, is_unit
from ez_jax.envs.raw_observations import Unlike, batch_of, make_taken
from ez_jax.envs.side_by_side import mask_of
from ez_jax.evaluation import pretrained, weights
from ez_jax.evaluation.play import make_evaluate
from ez_jax.evaluation.scores import Games
from ez_jax.storage import run_folder
from ez_jax.structs import Clocks, EnvSpec, SearchOutput, TimeStep, Variables


class Agent:
    """Acts by search, without noise, in one environment or in a batch of them."""

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        variables: Variables,
        clocks: Clocks,
        *,
        encoder: Encoder,
        actions: Actions | None = None,
    ):
        """Usually created by `load`; `actions` of the game, or numbers from 0 on."""
        self.config = config
        self.spec = spec
        self.model: Model = make_model(config, spec)
        self.variables = variables
        self.clocks = clocks  # of the training run
        self.found: SearchOutput | None = None  # result of the last search, batch of 1 or N
        self._encoder, self._taken = encoder, make_taken(encoder.space)
        self._to_game = (
            actions.to_game if actions else functools.partial(np.asarray, dtype=np.int64)
        )
        self._policies: dict[int, EvalPolicy[SearchOutput]] = {}
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start new episodes with the next observation.

        Args:
          seed: breaks ties between equally good actions, together with the step, like `eval.seed`
            in an evaluation. For a batch of games it is the first one's.
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
        """Return the best action for an observation; earlier frames are remembered.

        Args:
          observation: from `gymnasium.make` of the game, or a batch of N from
            `gymnasium.make_vec`.
          num_simulations: 0 for the number in the run's configuration.
          action_mask: `info["action_mask"]`, if the game has it.
          first: bool or bool[N], whether this observation starts an episode; by default all after
            `reset`, and otherwise none.

        Returns:
          The game's own number of the action, or i64[N] for a batch; if actions are continuous, an
          array of the game's own shape, type and range, or [N, ...]. `found` has the result of the
          search.

        Raises:
          BadInput: not an observation of this game, or a wrong mask.

        Examples:
          >>> agent.reset()  # a new episode
          >>> agent.act(np.zeros(4)) in (0, 1)
          True
          >>> agent.found.policy.shape
          (1, 2)
          >>> agent.reset()
          >>> agent.act(np.zeros((3, 4))).shape  # a batch of three games
          (3,)
        """
        frame, is_batch = self._seen(observation)
        number = len(frame)
        begins = self._playing is None
        if begins:
            self._playing = init_playing(self.spec, self._seed, number)
        elif len(self._playing.seed) != number:
            raise BadInput(
                f"act got {number} observations, but {len(self._playing.seed)} before: call "
                "reset() before other games"
            )
        zero = np.zeros(number, np.float32)
        step = TimeStep(
            observation=frame,
            reward=zero,
            score=zero,
            discount=zero + 1,
            is_first=_of_each(begins if first is None else first, number),
            is_last=np.zeros(number, bool),
            game_over=np.zeros(number, bool),
            legal=self._legal(action_mask, number, is_batch),
        )
        policy = self._policy(num_simulations)
        self.found, self._playing = policy(self.variables, self._playing, step)
        action = self._to_game(np.asarray(self.found.action))
        if is_batch:
            return action
        return action[0, ...] if self.spec.is_continuous else int(action[0])

    def play(self, episodes: int = 1, *, seed: int | None = None, film: int = 0) -> Games:
        """Play full episodes in the run's own environment, as in an evaluation.

        Args:
          episodes: number of episodes, each with its own seed.
          seed: of the first episode; by default `eval.seed` of the run.
          film: number of episodes whose images are kept.

        Examples:
          >>> agent.play(episodes=2, seed=5).returns.shape
          (2,)
        """
        changes = {"eval.episodes": episodes} | ({} if seed is None else {"eval.seed": seed})
        games = make_evaluate(changed(self, changes), self.model)(self.variables, film=film)
        assert games is not None, "nothing stops it"
        return games

    def _seen(self, observation: Any) -> tuple[np.ndarray, bool]:
        """The encoded observations dtype[N, *obs], and whether they are a batch."""
        space, shape = self._encoder.space, self.spec.observation_shape
        if self._is_seen_already(observation):
            return np.asarray(observation).reshape(-1, *shape), np.ndim(observation) > len(shape)
        try:
            batch = batch_of(space, observation)
            raw = self._taken(observation, batch)
        except Unlike as error:
            if isinstance(space, spaces.Box) and np.shape(observation) != (*batch, *space.shape):
                raise BadInput(
                    f"{self.spec.game} was trained on observations of shape {space.shape}, but "
                    f"this one is {np.shape(observation)}"
                ) from None
            raise BadInput(f"{self.spec.game} cannot return this observation: {error}") from None
        except ValueError as error:  # of NumPy: lists of several lengths
            raise BadInput(f"{self.spec.game} cannot return this observation: {error}") from None
        raw = raw if batch else jax.tree.map(lambda part: part[None], raw)
        with np.errstate(over="ignore"):
            seen = self._encoder.encode(raw)
        if not all(np.isfinite(part).all() for part in [seen, *jax.tree.leaves(raw)]):
            raise BadInput(
                f"this observation of {self.spec.game} has numbers that are not finite (NaN or "
                "infinity in float32)"
            )
        if not len(seen):
            raise BadInput("act was given no observation: an array of none")
        return seen, bool(batch)

    def _is_seen_already(self, observation: Any) -> bool:
        """Whether it is an image of bytes with channels last, unlike the game's."""
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
            # After the end of an episode, the next action is ignored.
            masks = np.where(masks.any(axis=-1, keepdims=True), masks, np.ones_like(masks))
        shape = (self.spec.num_actions,)
        try:
            return mask_of(masks, (number, *shape) if is_batch else shape).reshape(number, -1)
        except ValueError as error:
            raise BadInput(f"this action_mask {error}") from None

    def _policy(self, num_simulations: int) -> EvalPolicy[SearchOutput]:
        if num_simulations not in self._policies:
            quiet = config.override(self.config, {"eval.epsilon": 0.0})
            if num_simulations:  # refused as the setting would be
                changed(self, {"search.num_simulations": num_simulations})
            policy = make_eval_policy(quiet, self.model, num_simulations)
            self._policies[num_simulations] = jax.jit(policy)
        return self._policies[num_simulations]


def _of_each(first: Any, number: int) -> np.ndarray:
    """bool[N]."""
    flags = np.asarray(first, bool)
    if flags.shape not in ((), (1,), (number,)):
        raise BadInput(f"first is {flags.tolist()}: give one bool, or {number}, one for each game")
    return np.broadcast_to(flags, number)


def _check_module(run: Path, game: str) -> None:
    """Refuse a game whose module would come from the run folder, whose files are data."""
    module = game.rpartition(":")[0].partition(".")[0]
    if not module.isidentifier() or module in sys.modules:
        return
    found = importlib.util.find_spec(module)  # imports nothing, because it has no dot
    places = [found.origin or "", *(found.submodule_search_locations or ())] if found else []
    if any(Path(place).resolve().is_relative_to(run.resolve()) for place in places if place):
        raise BadInput(f"game {game} is code of the run folder {run}, which is only read as data")


def load(run: str | Path, *, best: bool = False) -> Agent:
    """Load the agent of a run folder, without changing the folder, or one of the package's.

    Args:
      run: the folder, such as `runs/CartPole/default/seed0`, or `pretrained:CartPole`.
      best: the weights of the best evaluation instead of the newest.

    Raises:
      BadInput: there is no such run or agent, or the run has not saved anything yet.

    Examples:
      >>> agent = ez_jax.load(run)
      >>> agent.clocks.agent_steps > 0
      True
    """
    run = pretrained.folder_of(run)
    chosen = config.validate(config.from_dict(run_folder.read_config(run)))
    _check_module(run, chosen.game)
    env = make_env(chosen.game, chosen.env, num_envs=1, seed=0, training=False, render=False)
    spec, encoder, actions = env.spec, env.encoder, env.actions
    env.close()
    model = make_model(chosen, spec)
    variables, clocks = weights.restore(run, chosen, model, best=best)
    return Agent(*(chosen, spec, variables, clocks), encoder=encoder, actions=actions)


def play(
    run: str | Path,
    episodes: int = 1,
    *,
    seed: int | None = None,
    best: bool = False,
    film: int = 0,
) -> Games:
    """Play full episodes with the agent of a run folder; see `load` and `Agent.play`.

    Examples:
      >>> games = ez_jax.play(run, episodes=2)
      >>> games.returns.shape, games.lengths.shape
      ((2,), (2,))
    """
    return load(run, best=best).play(episodes, seed=seed, film=film)


FREE_SECTIONS = ("search.", "eval.", "env.")  # sections that may differ from the training run
_WEIGHTS = "is fixed by the training of these weights: start a new run to change it"
_TRAINING = "affects training only and has no effect here; leave it out"
# Keys of these sections that may not differ.
NOT_FREE = {
    **dict.fromkeys(("env.frame_stack", "env.image_size", "env.grayscale"), _WEIGHTS),
    "env.max_episode_steps": "cuts training episodes only; write env.eval_max_episode_steps",
    **dict.fromkeys(("env.episodic_life", "env.reward_clip", "eval.every"), _TRAINING),
    **dict.fromkeys(("search.dirichlet_fraction", "search.dirichlet_alpha"), _TRAINING),
    **dict.fromkeys(("search.temperatures", "search.temperature_fractions"), _TRAINING),
    "search.gumbel_scale": _TRAINING,
}


def check_free(keys: Iterable[str]) -> None:
    """Refuse keys that may not differ from the training run.

    Raises:
      BadInput: names the first such key.
    """
    for key in keys:
        if not key.startswith(FREE_SECTIONS):
            raise BadInput(f"{key} belongs to the training run; only search, eval and env may vary")
        if key in NOT_FREE:
            raise BadInput(f"{key} {NOT_FREE[key]}")


def changed(agent: Agent, changes: Mapping[str, Any]) -> Config:
    """The configuration of a trained agent with some values changed by dotted key.

    Raises:
      BadInput: an unknown key, an impossible value, or a game that does not fit the weights.
    """
    if "search.num_simulations" in changes:  # the number for evaluation would take precedence
        changes = {"eval.num_simulations": 0, **changes}
    chosen = config.validate(config.override(agent.config, changes))
    if chosen.env != agent.config.env:
        env = make_env(chosen.game, chosen.env, num_envs=1, seed=0, training=False)
        seen = [(s.observation_shape, told_actions(s)) for s in (env.spec, agent.spec)]
        env.close()
        if seen[0] != seen[1]:
            raise BadInput(
                f"with these settings of env {chosen.game} has observations {seen[0][0]} and "
                f"{seen[0][1]}, but the weights are for {seen[1][0]} and {seen[1][1]}"
            )
    return chosen
