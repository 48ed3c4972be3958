"""Search over continuous actions: among candidates drawn at every node (EfficientZero V2, §3.1).

The searches of this folder choose among a finite set of actions. Here a node's set is drawn from
the policy at that node, and an action is its number in the set. The root has more candidates than
the other nodes, most of them from a wider policy while training; V2 gives all the same prior.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float, Int, Key, UInt32

from ez_jax.agent import continuous
from ez_jax.agent.search.tree import NEVER_TAKEN, Found, PolicyFn, SearchInput
from ez_jax.config import BadInput, SearchConfig
from ez_jax.structs import Embedding, EnvSpec, Variables


class Node(flax.struct.PyTreeNode, kw_only=True):
    """A node of the tree: what mctx keeps as its embedding."""

    embedding: Embedding  # of the model
    candidates: Float[Array, "B A D"]  # the actions of this node; those not drawn are 0
    key: UInt32[Array, "B 2"]  # from which the candidates of its children are drawn


def among_candidates(
    policy: PolicyFn, config: SearchConfig, spec: EnvSpec, *, explore: bool
) -> PolicyFn:
    """A search over finite sets of actions as one over continuous actions.

    The random numbers of a node depend on the key of its root and on the path to it.

    Args:
      policy: the search over numbers of candidates.
      config: how many candidates, and how wide.
      spec: of the environment.
      explore: whether a share of the root's candidates comes from a wider policy.

    Raises:
      BadInput: a search that would take actions with a prior of 0.
    """
    if config.policy != "gumbel":
        raise BadInput(
            f"search.policy={config.policy} needs a finite set of actions, but those of "
            f"{spec.game} are continuous: set search.policy=gumbel"
        )

    def search(given: SearchInput) -> Found:
        of_root, below, of_policy = jax.vmap(lambda key: jax.random.split(key, 3))(given.keys).T
        root = given.root
        candidates = jax.vmap(continuous.draw, (0, 0, None))(
            of_root, root.prior_logits, root_widening(config, explore=explore)
        )
        node = Node(
            embedding=root.embedding,
            candidates=candidates,
            key=jax.random.key_data(below),
        )
        same = jnp.zeros(candidates.shape[:2])
        output, tree = policy(
            given._replace(
                recurrent_fn=_with_candidates(given.recurrent_fn, config),
                root=root.replace(prior_logits=same, embedding=node),
                keys=of_policy,
            )
        )
        winner = output.action
        is_winner = jax.nn.one_hot(winner, candidates.shape[1])
        target = is_winner if _learns_winner(config, spec) else output.policy
        action = jnp.take_along_axis(candidates, winner[:, None, None], axis=1)[:, 0]
        return output.replace(action=action, policy=target, candidates=candidates), tree

    return search


def root_widening(config: SearchConfig, *, explore: bool) -> Float[Array, " A"]:
    """The factor of the policy's deviation for every candidate of a root."""
    number = jnp.arange(config.root_candidates)
    own = config.root_candidates - round(config.widened * config.root_candidates)
    return jnp.where((number >= own) & explore, config.widening, 1.0)


def _learns_winner(config: SearchConfig, spec: EnvSpec) -> bool:
    """Whether the policy learns the winner of the search alone, not the whole improved policy.

    `auto` is V2's choice: the winner if an action has several numbers.
    """
    if config.candidate_target == "auto":
        return spec.action_size > 1
    return config.candidate_target == "winner"


def _with_candidates(recurrent_fn: mctx.RecurrentFn, config: SearchConfig) -> mctx.RecurrentFn:
    """The model as mctx's `recurrent_fn` whose actions are numbers of candidates."""
    total, drawn = config.root_candidates, config.node_candidates
    widening, missing = jnp.ones(drawn), total - drawn

    def step(variables: Variables, key: Any, number: Int[Array, " B"], node: Node):
        chosen = jnp.take_along_axis(node.candidates, number[:, None, None], axis=1)[:, 0]
        output, embedding = recurrent_fn(variables, key, chosen, node.embedding)
        of_child, of_draw = _child_keys(node.key, number)
        candidates = jax.vmap(continuous.draw, (0, 0, None))(of_draw, output.prior_logits, widening)
        logits = jnp.pad(
            jnp.zeros(candidates.shape[:2]), ((0, 0), (0, missing)), constant_values=NEVER_TAKEN
        )
        child = Node(
            embedding=embedding,
            candidates=jnp.pad(candidates, ((0, 0), (0, missing), (0, 0))),
            key=jax.random.key_data(of_child),
        )
        return output.replace(prior_logits=logits), child

    return step


def _child_keys(
    key: UInt32[Array, "B 2"], number: Int[Array, " B"]
) -> tuple[Key[Array, " B"], Key[Array, " B"]]:
    """For the child that a candidate leads to: its own key, and the one of its candidates."""
    folded = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(key), number)
    keys = jax.vmap(jax.random.split)(folded)
    return keys[:, 0], keys[:, 1]
