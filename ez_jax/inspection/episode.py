"""One evaluation episode, played as by `ez_jax.evaluate`, with every search recorded.

Letters in addition to those of `structs`: `T` decisions of the episode, `M` nodes of a tree. If
actions are continuous, `A` is the number of candidates of the root.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import mctx
import numpy as np

from ez_jax.agent import continuous
from ez_jax.agent.actor import Playing, init_playing, make_eval_tree_policy
from ez_jax.agent.model import Model
from ez_jax.agent.search.tree import qs_with_mixed_value
from ez_jax.config import BadInput, Config
from ez_jax.envs import VectorEnv, make_env
from ez_jax.envs.observations import learned_reward
from ez_jax.evaluation.trained_agent import Agent
from ez_jax.inspection.frames import Film
from ez_jax.inspection.trees import ROOT, Nodes, compact, root_prior
from ez_jax.structs import Embedding, SearchOutput, TimeStep, Variables
from ez_jax.system import watchdog


class Thought(flax.struct.PyTreeNode, kw_only=True):
    """One search."""

    found: SearchOutput
    tree: mctx.Tree  # without embeddings, which are large
    qs: jax.Array  # f32[B, A], of the root's actions, completed by the mixed value
    root: Embedding
    # Of continuous actions only: the candidates of all nodes f32[B, M, A, D], and the mean and the
    # deviation f32[B, D] of the network's policy at the root.
    candidates: jax.Array | None = None
    moments: tuple[jax.Array, jax.Array] | None = None


class Numbers(NamedTuple):
    """The network's policy over continuous actions, and the actions that were searched."""

    candidates: np.ndarray  # f32[T, A, D], of the root
    chosen: np.ndarray  # i32[T], number of the executed one
    mean: np.ndarray  # f32[T, D], of the network's normal, before the squashing
    deviation: np.ndarray  # f32[T, D], likewise


@dataclasses.dataclass(frozen=True)
class Episode:
    """What happened and what the agent thought, decision by decision."""

    film: Film  # an image before each decision; empty if the game cannot render
    no_pictures: str  # the reason in that case
    observation: np.ndarray  # [T, *obs] for vectors, [T, 0] for images
    action: np.ndarray  # i32[T], or f32[T, D] if continuous
    score: np.ndarray  # f32[T], the game's own reward of the action
    reward: np.ndarray  # f32[T], the reward to learn from: clipped if so configured
    ends: np.ndarray  # bool[T], whether a training episode would terminate after the action
    prior: np.ndarray  # f32[T, A], the network's policy; equal for candidates
    policy: np.ndarray  # f32[T, A], the search's
    visits: np.ndarray  # i32[T, A], of the root's actions
    qs: np.ndarray  # f32[T, A], completed
    gain: np.ndarray  # f32[T], `SearchOutput.gain`
    value: np.ndarray  # f32[T], the network's
    search_value: np.ndarray  # f32[T], the search's
    nodes: list[Nodes]  # T trees
    roots: Embedding  # fields [T, ...], the roots of the searches
    cut: str  # "" if the game ended, otherwise what cut it short
    value_after: float  # the network's value of the last observation; 0 if the game ended
    action_names: tuple[str, ...]  # of the numbers of an action if continuous
    numbers: Numbers | None = None  # if actions are continuous

    @property
    def chosen(self) -> np.ndarray:
        """The number i32[T] of the executed action among those of the root."""
        return self.numbers.chosen if self.numbers else self.action


def make_look(config: Config, model: Model) -> Callable[..., tuple[Thought, Playing]]:
    """The evaluation policy, jitted: `(variables, playing, step) -> (thought, playing)`."""
    policy = make_eval_tree_policy(config, model)

    def look(variables: Variables, playing: Playing, step: TimeStep) -> tuple[Thought, Playing]:
        (found, tree), playing = policy(variables, playing, step)
        node, more = tree.embeddings, {}
        if model.spec.is_continuous:
            node, more["candidates"] = node.embedding, node.candidates
        root = jax.tree.map(lambda x: x[:, ROOT], node)
        if model.spec.is_continuous:
            more["moments"] = continuous.moments(model.predict(variables, root)[0])
        thought = Thought(
            found=found,
            tree=tree.replace(embeddings=None, extra_data=None),
            qs=jax.vmap(lambda one: qs_with_mixed_value(one, ROOT))(tree),
            root=root,
            **more,
        )
        return thought, playing

    return jax.jit(look, donate_argnums=1)


def play(config: Config, agent: Agent, *, max_steps: int, max_nodes: int) -> Episode:
    """Play the first episode of an evaluation, to its end or for a number of steps.

    Args:
      config: the agent's, perhaps changed in search, eval and env.
      agent: with its weights.
      max_steps: number of decisions after which to stop.
      max_nodes: nodes of each tree to keep, the most visited.

    Raises:
      BadInput: the environment's observations do not fit the network.
    """
    env = make_env(config.game, config.env, num_envs=1, seed=config.eval.seed, training=False)
    try:
        _check_same(agent, env)
        with watchdog.at("playing a game to look at"):
            return _play(config, agent, env, max_steps, max_nodes)
    finally:
        env.close()


def _check_same(agent: Agent, env: VectorEnv) -> None:
    there, here = agent.spec, env.spec
    for what in ("observation_shape", "frame_stack", "num_actions", "action_size"):
        one, other = getattr(there, what), getattr(here, what)
        if one != other:
            raise BadInput(
                f"with these env settings {what} is {other}, but the network was made for {one}: "
                "leave them as in training"
            )


def _play(config: Config, agent: Agent, env: VectorEnv, max_steps: int, max_nodes: int) -> Episode:
    look, playing = make_look(config, agent.model), init_playing(env.spec, config.eval.seed, 1)
    step, lives = env.reset(), env.lives()[0]
    film, no_pictures = Film(), ""
    rows: list[dict[str, Any]] = []
    while True:
        thought, playing = look(agent.variables, playing, step)
        if step.game_over[0] or len(rows) == max_steps:
            break
        thought = jax.device_get(thought)
        row = _thought_row(thought, max_nodes)
        row["observation"] = step.observation[0]
        no_pictures = no_pictures or _add_picture(film, env)
        step = env.step(np.asarray(thought.found.action))
        watchdog.beat()
        before, lives = lives, env.lives()[0]
        lost = config.env.episodic_life and lives < before
        rows.append(row | {"score": step.score[0], "ends": bool(lost or step.discount[0] == 0)})
    terminated = bool(step.discount[0] == 0)
    whose = "the game's limit of {} steps" if step.game_over[0] else "max_steps={}"
    cut = "" if terminated else whose.format(len(rows))
    after = 0.0 if terminated else float(thought.tree.raw_values[0, ROOT])
    film = Film() if no_pictures else film
    return _episode(
        config, env, rows, film=film, no_pictures=no_pictures, cut=cut, value_after=after
    )


def _add_picture(film: Film, env: VectorEnv) -> str:
    """Record an image of the current state; returns the reason if it cannot."""
    try:
        film.add(env.render()[0])
    except RuntimeError as error:
        return str(error)
    return ""


def _thought_row(thought: Thought, max_nodes: int) -> dict[str, Any]:
    """One decision, without the batch axis."""
    thought = jax.tree.map(lambda x: x[0], thought)
    tree = thought.tree
    row = {
        "action": thought.found.action,
        "policy": thought.found.policy,
        "search_value": thought.found.value,
        "gain": thought.found.gain,
        "value": tree.raw_values[ROOT],
        "prior": root_prior(tree),
        "visits": tree.children_visits[ROOT],
        "qs": thought.qs,
        "root": thought.root,
        "nodes": compact(tree, max_nodes, thought.candidates),
    }
    if thought.moments is not None:
        candidates = np.asarray(thought.found.candidates)
        chosen = number_of(row["action"], candidates, row["visits"])
        row["numbers"] = Numbers(candidates, np.asarray(chosen), *map(np.asarray, thought.moments))
    return row


def number_of(action: np.ndarray, candidates: np.ndarray, visits: np.ndarray) -> int:
    """The number of an action f32[D] among candidates f32[A, D]: of equals, the most visited."""
    return int(np.argmax(np.where(np.all(candidates == action, axis=-1), visits, -1)))


def _episode(config: Config, env: VectorEnv, rows: list[dict[str, Any]], **ending: Any) -> Episode:
    column = {name: [row[name] for row in rows] for name in rows[0]}
    nodes, numbers = column.pop("nodes"), column.pop("numbers", None)
    roots = jax.tree.map(lambda *leaves: np.stack(leaves), *column.pop("root"))
    arrays: dict[str, Any] = {name: np.stack(values) for name, values in column.items()}
    if env.spec.is_image:
        arrays["observation"] = np.zeros((len(rows), 0))
    score = arrays["score"]
    return Episode(
        **arrays,
        **ending,
        reward=learned_reward(score, config.env.reward_clip),
        nodes=nodes,
        roots=roots,
        numbers=Numbers(*map(np.stack, zip(*numbers, strict=True))) if numbers else None,
        action_names=env.action_names(),
    )
