"""A search tree as short columns, from the most visited nodes, and its principal variation."""

from typing import NamedTuple

import mctx
import numpy as np
from jax.typing import ArrayLike
from scipy.special import softmax

ROOT = mctx.Tree.ROOT_INDEX


class Nodes(NamedTuple):
    """The kept nodes of one tree, parents before children; entry 0 is the root."""

    parent: np.ndarray  # i64[n], -1 at the root
    # i64[n], that leads here from the parent, or its number among the candidates; -1 at the root
    action: np.ndarray
    visits: np.ndarray  # i64[n], simulations through the node, including the one that created it
    prior: np.ndarray  # f64[n], of the action at the parent; 1 at the root
    reward: np.ndarray  # f64[n], predicted on the way to the node
    value: np.ndarray  # f64[n], mean of the returns from the node
    raw: np.ndarray  # f64[n], the network's own value
    vector: np.ndarray | None = None  # f32[n, D], the action if it is continuous; 0 at the root


def compact(tree: mctx.Tree, max_nodes: int, candidates: ArrayLike | None = None) -> Nodes:
    """The most visited nodes of one tree (numpy, not batched).

    A node has more visits than any of its children, or as many and is older, so the kept nodes are
    connected.

    Args:
      tree: with its values and visits.
      max_nodes: number of nodes to keep.
      candidates: f32[M, A, D] of all nodes, if actions are continuous.
    """
    visits = np.asarray(tree.node_visits)
    order = np.argsort(-visits, kind="stable")[: min(max_nodes, int(np.sum(visits > 0)))]
    kept = np.sort(order)
    parent, action = np.asarray(tree.parents)[kept], np.asarray(tree.action_from_parent)[kept]
    is_root = kept == ROOT
    edge = (np.where(is_root, ROOT, parent), np.where(is_root, 0, action))
    logits = np.asarray(tree.children_prior_logits, np.float64)
    return Nodes(
        parent=np.where(is_root, -1, np.searchsorted(kept, parent)),
        action=np.where(is_root, -1, action),
        visits=visits[kept],
        prior=np.where(is_root, 1.0, softmax(logits, axis=-1)[edge]),
        reward=np.where(is_root, 0.0, np.asarray(tree.children_rewards)[edge]),
        value=np.asarray(tree.node_values)[kept],
        raw=np.asarray(tree.raw_values)[kept],
        vector=None
        if candidates is None
        else np.where(is_root[:, None], 0, np.asarray(candidates)[edge]),
    )


def principal_variation(nodes: Nodes, action: int, discount: float) -> list[int]:
    """The nodes of the principal variation, the root first.

    It starts with the executed action; then the most visited child follows, and among equals the
    one with the higher Q.
    """
    qs = nodes.reward + discount * nodes.value
    line = [0]
    children = np.flatnonzero((nodes.parent == 0) & (nodes.action == action))
    while children.size:
        best = max(children, key=lambda child: (nodes.visits[child], qs[child]))
        line.append(int(best))
        children = np.flatnonzero(nodes.parent == best)
    return line


def root_prior(tree: mctx.Tree) -> np.ndarray:
    """The prior policy f64[A] at the root of one tree."""
    return softmax(np.asarray(tree.children_prior_logits, np.float64)[ROOT])
