"""Search in the learned model, with mctx.

A search policy is one function in `SEARCHES`, from a root to the action to execute, the improved
policy and the value of the root; over continuous actions it searches among candidates
(`candidates.py`). Noise is for exploration (acting in training, and reanalysis); without it, random
numbers only break ties, and draw the candidates.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import chex
import jax
import jax.numpy as jnp
import mctx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ez_jax.agent.model import Model
from ez_jax.agent.search.candidates import among_candidates
from ez_jax.agent.search.gumbel import make_gumbel
from ez_jax.agent.search.puct import make_puct
from ez_jax.agent.search.puct_ez import make_puct_ez
from ez_jax.agent.search.tree import NEVER_TAKEN, Found, PolicyFn, SearchInput
from ez_jax.config import SearchConfig, search_budget
from ez_jax.structs import Embedding, Root, SearchOutput, Variables

Result = TypeVar("Result", covariant=True)


class SearchFn(Protocol[Result]):
    """The type of the results of `make_search` and `make_tree_search`."""

    def __call__(
        self,
        variables: Variables,
        root: Root,
        keys: Array,
        temperature: Float[Array, ""] | float = 1.0,
        invalid_actions: Array | None = None,
    ) -> Result:
        """Search from every root.

        Args:
          variables: of the model.
          root: of each search, batch `B`.
          keys: key[B], one per root, or one key[] that is split; consumed. The random numbers of a
            root depend only on its own key, not on other roots.
          temperature: f32[], of the acting policy; ignored without `explore`.
          invalid_actions: optional bool[B, A], True where an action must not be taken at the root.
        """
        ...


def forbidden(legal: ArrayLike | None) -> dict[str, Array]:
    """The invalid actions from a game's mask, bool[B, A]; None without a mask."""
    return {} if legal is None else {"invalid_actions": ~jnp.asarray(legal)}


def make_recurrent_fn(model: Model, discount: float) -> Callable[..., Any]:
    """The model as mctx's `recurrent_fn`.

    Values and logits are always float32, because they set the precision of mctx's tree. The reward
    of a step is the difference of two value prefixes (EfficientZero §4.2).

    Args:
      model: of the game.
      discount: γ per agent step.

    Returns:
      `(variables, key, action i32[B], embedding) -> (mctx.RecurrentFnOutput, next embedding)`; the
      key is not used.

    Examples:
      >>> recurrent_fn = ez_jax.make_recurrent_fn(model, discount=0.99)
      >>> root, action = model.root(variables, frames), jnp.zeros(2, int)
      >>> output, following = recurrent_fn(variables, None, action, root.embedding)
      >>> output.prior_logits.shape, output.reward.shape
      ((2, 2), (2,))
    """

    def recurrent_fn(variables: Variables, key: Array, action: Array, embedding: Embedding):
        del key  # the model is deterministic
        following, reward = model.dynamics(variables, embedding, action)
        policy_logits, value = model.predict(variables, following)
        output = mctx.RecurrentFnOutput(
            reward=reward,
            discount=jnp.full_like(reward, discount),
            prior_logits=policy_logits,
            value=value,
        )
        return output, following

    return recurrent_fn


SEARCHES: dict[str, Callable[[SearchConfig, bool], PolicyFn]] = {
    "gumbel": make_gumbel,
    "puct": make_puct,
    "puct_ez": make_puct_ez,
}


def make_search(
    config: SearchConfig,
    model: Model,
    *,
    discount: float,
    explore: bool,
    num_simulations: int = 0,
) -> SearchFn[SearchOutput]:
    """Make the configured search.

    Args:
      config: which search, and its constants.
      model: only its `dynamics` and `predict` are called.
      discount: γ per agent step.
      explore: whether to add noise to the root and, with PUCT, to draw actions from the visits.
        Without it, the keys only break ties.
      num_simulations: replaces the configured number; 0 keeps it.

    Returns:
      A `SearchFn`: `(variables, root, keys, temperature, invalid_actions) -> SearchOutput`.

    Examples:
      >>> search = ez_jax.make_search(config.search, model, discount=0.99, explore=True)
      >>> found = jax.jit(search)(variables, model.root(variables, frames), jax.random.key(0))
      >>> found.action.shape, found.policy.shape
      ((2,), (2, 2))
    """
    search = make_tree_search(
        config, model, discount=discount, explore=explore, num_simulations=num_simulations
    )
    return lambda *args, **kwargs: search(*args, **kwargs)[0]


def make_tree_search(
    config: SearchConfig,
    model: Model,
    *,
    discount: float,
    explore: bool,
    num_simulations: int = 0,
) -> SearchFn[Found]:
    """As `make_search`, but also returns mctx's tree.

    Examples:
      >>> search = make_tree_search(config.search, model, discount=0.99, explore=False)
      >>> found, tree = jax.jit(search)(variables, model.root(variables, frames), jax.random.key(0))
      >>> tree.node_visits.shape  # [B, simulations + 1]
      (2, 5)
    """
    policy = SEARCHES[config.policy](config, explore)
    # A model of one's own need not have a specification.
    is_continuous = hasattr(model, "spec") and model.spec.is_continuous
    if is_continuous:
        policy = among_candidates(policy, config, model.spec, explore=explore)
    recurrent_fn = make_recurrent_fn(model, discount)

    def search(
        variables: Variables,
        root: Root,
        keys: Array,
        temperature: Float[Array, ""] | float = 1.0,
        invalid_actions: Array | None = None,
    ) -> Found:
        chex.assert_equal_shape_prefix([root.policy_logits, root.value], 1)
        budget = search_budget(config, 0 if is_continuous else root.policy_logits.shape[1])
        logits = root.policy_logits
        if invalid_actions is not None:
            # The prior is over the valid actions of the root; below the root all actions are valid.
            logits = jnp.where(invalid_actions, NEVER_TAKEN, logits)
        if not keys.ndim:
            keys = jax.random.split(keys, len(root.value))
        return policy(
            SearchInput(
                variables=model.rounded(variables) if isinstance(model, Model) else variables,
                recurrent_fn=recurrent_fn,
                num_simulations=num_simulations or budget.num_simulations,
                root=mctx.RootFnOutput(
                    prior_logits=logits, value=root.value, embedding=root.embedding
                ),
                keys=keys,
                temperature=temperature,
                invalid_actions=invalid_actions,
            )
        )

    return search
