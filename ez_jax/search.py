"""Search in the learned model: mctx with EfficientZero's model behind it.

A search policy is one function in `SEARCHES`: from a root to the action to execute, the improved
policy and the value of the root. Noise belongs to exploring (acting while training and
reanalysis); without it a search is deterministic.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float

from ez_jax import puct_ez
from ez_jax.config import Config, SearchConfig
from ez_jax.gumbel import completed_q, qs_with_mixed_value, selection
from ez_jax.model import Model
from ez_jax.structs import Embedding, Root, SearchOutput, Variables

# (variables, root, keys, temperature, invalid_actions) -> SearchOutput; the keys are consumed.
SearchFn = Callable[..., SearchOutput]
# What was found and the tree it was found in; a program that drops the tree does not keep it.
Found = tuple[SearchOutput, mctx.Tree]
# The same as SearchFn, over mctx's root and recurrent_fn, with the tree: one of `SEARCHES`.
PolicyFn = Callable[..., Found]

NEVER_TAKEN = jnp.finfo(jnp.float32).min  # logit of an action that must not be taken


def make_recurrent_fn(model: Model, discount: float) -> Callable[..., Any]:
    """The model as mctx wants it; `discount` per agent step.

    Values and logits are float32 whatever the network computes in, because mctx takes the
    precision of its tree from them.
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


def _found(
    root: mctx.RootFnOutput, tree: mctx.Tree, *, action: Array, policy: Array, value: Array
) -> Found:
    """What a search found, with what it wins over the network's own policy."""
    qs = jax.vmap(lambda one: qs_with_mixed_value(one, mctx.Tree.ROOT_INDEX))(tree)
    gain = jnp.sum((policy - jax.nn.softmax(root.prior_logits)) * qs, axis=-1)
    return SearchOutput(action=action, policy=policy, value=value, gain=gain), tree


def _found_by_mctx(root: mctx.RootFnOutput, output: mctx.PolicyOutput) -> Found:
    return _found(
        root,
        output.search_tree,
        action=output.action,
        policy=output.action_weights,
        value=output.search_tree.summary().value,
    )


def _gumbel(config: SearchConfig, explore: bool) -> PolicyFn:
    """Gumbel MuZero (Danihelka et al., 2022), as EfficientZero V2 uses it.

    As `mctx.gumbel_muzero_policy`, but that every root has noise of its own key.
    """
    qtransform = functools.partial(
        completed_q,
        value_scale=config.value_scale,
        maxvisit_init=config.maxvisit_init,
        min_q_range=config.min_q_range,
    )

    def policy(
        variables: Variables,
        keys: Array,
        root: mctx.RootFnOutput,
        recurrent_fn: mctx.RecurrentFn,
        num_simulations: int,
        *,
        invalid_actions: Array | None,
        temperature: Array,
    ) -> Found:
        del temperature  # the winner of the halving is executed
        if invalid_actions is None:
            invalid_actions = jnp.zeros(root.prior_logits.shape, bool)
        logits = jnp.where(invalid_actions, NEVER_TAKEN, root.prior_logits)
        root = root.replace(prior_logits=logits)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], logits.dtype))(keys)
        noise = config.gumbel_scale * noise if explore else jnp.zeros_like(noise)
        tree = mctx.search(
            *(variables, keys[0]),  # nothing else is drawn
            root=root,
            recurrent_fn=recurrent_fn,
            **selection(config, num_simulations, qtransform),
            num_simulations=num_simulations,
            invalid_actions=invalid_actions,
            extra_data=mctx.GumbelMuZeroExtraData(root_gumbel=noise),
        )
        summary = tree.summary()
        improved = logits + jax.vmap(qtransform, (0, None))(tree, mctx.Tree.ROOT_INDEX)
        is_finalist = summary.visit_counts == jnp.max(summary.visit_counts, -1, keepdims=True)
        score = jnp.where(is_finalist & ~invalid_actions, noise + improved, -jnp.inf)
        return _found(
            *(root, tree),
            action=jnp.argmax(score, axis=-1).astype(jnp.int32),
            policy=jax.nn.softmax(jnp.where(invalid_actions, NEVER_TAKEN, improved)),
            value=summary.value,
        )

    return policy


def _puct(config: SearchConfig, explore: bool) -> PolicyFn:
    """MuZero's PUCT (Schrittwieser et al., 2020) with root noise, actions drawn from the visits."""
    policy = functools.partial(
        mctx.muzero_policy,
        dirichlet_fraction=config.dirichlet_fraction if explore else 0.0,
        dirichlet_alpha=config.dirichlet_alpha,
        pb_c_init=config.pb_c_init,
        pb_c_base=config.pb_c_base,
    )

    def found(
        variables: Variables,
        keys: Array,
        root: mctx.RootFnOutput,
        *given: Any,
        invalid_actions: Array | None,
        temperature: Array,
        **kwargs: Any,
    ) -> Found:
        if not explore:
            temperature = 0.0

        def search_one(key: Array, root: mctx.RootFnOutput, invalid: Array | None) -> Found:
            """A batch of one: mctx knows one key for all, and draws at every node."""
            one = lambda tree: jax.tree.map(lambda x: x[None], tree)  # noqa: E731
            output = policy(
                *(variables, key, one(root), *given),
                invalid_actions=one(invalid),
                temperature=temperature,
                **kwargs,
            )
            return jax.tree.map(lambda x: x[0], _found_by_mctx(one(root), output))

        return jax.vmap(search_one)(keys, root, invalid_actions)

    return found


def _puct_ez(config: SearchConfig, explore: bool) -> PolicyFn:
    """EfficientZero's published PUCT, with MuZero's root noise and acting temperature."""

    def draw(key: Array, prior: Float[Array, " A"], num_nodes: int) -> tuple[Array, Array, Array]:
        """Noisy prior, what breaks ties at each node, and a key for the action."""
        # Deviates (ties of the search, V1): drawn from the key, not from the clock.
        noise_key, tie_key, act_key = jax.random.split(key, 3)
        if explore:
            noise = jax.random.dirichlet(noise_key, jnp.full(len(prior), config.dirichlet_alpha))
            prior = prior + config.dirichlet_fraction * (noise - prior)
        return prior, jax.random.uniform(tie_key, (num_nodes, len(prior))), act_key

    def policy(
        variables: Variables,
        keys: Array,
        root: mctx.RootFnOutput,
        recurrent_fn: mctx.RecurrentFn,
        num_simulations: int,
        *,
        invalid_actions: Array | None,
        temperature: Array,
    ) -> Found:
        prior, tie_break, act_keys = jax.vmap(draw, (0, 0, None))(
            keys, jax.nn.softmax(root.prior_logits), num_simulations + 1
        )
        tree = puct_ez.search(
            variables,
            keys[0],  # nothing else is drawn
            root.replace(prior_logits=jnp.log(prior)),
            recurrent_fn,
            num_simulations,
            config=config,
            tie_break=tie_break,
            invalid_actions=invalid_actions,
        )
        visits = tree.children_visits[:, mctx.Tree.ROOT_INDEX]
        drawn = jax.vmap(jax.random.categorical)(act_keys, jnp.log(visits) / temperature)
        return _found(
            root,
            tree,
            action=drawn if explore else jnp.argmax(visits, axis=-1),
            policy=visits / num_simulations,
            value=puct_ez.root_value(tree),
        )

    return policy


SEARCHES: dict[str, Callable[[SearchConfig, bool], PolicyFn]] = {
    "gumbel": _gumbel,
    "puct": _puct,
    "puct_ez": _puct_ez,
}


# EfficientZero V2's code: up to how many actions, simulations, actions considered at the root.
BUDGETS = ((3, 4, 2), (15, 16, 4), (math.inf, 16, 8))


def resolve(config: Config, num_actions: int) -> Config:
    """Fill in what the configuration leaves to the number of actions."""
    budget = next((n, m) for most, n, m in BUDGETS if num_actions <= most)
    search = dataclasses.replace(
        config.search,
        num_simulations=config.search.num_simulations or budget[0],
        max_considered_actions=config.search.max_considered_actions or budget[1],
    )
    return dataclasses.replace(config, search=search)


def make_search(
    config: SearchConfig,
    model: Model,
    *,
    discount: float,
    explore: bool,
    num_simulations: int = 0,
) -> SearchFn:
    """The configured search (`resolve`d); `num_simulations` 0 means as configured.

    The function returned takes what that of `make_tree_search` takes.
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
) -> Callable[..., Found]:
    """As `make_search`, and the tree beside what was found in it.

    Args of the function returned:
      variables: of the model.
      root: where to start, batch `B`.
      keys: one for each root, or one from which they are made; consumed. What a root draws depends
        on its own alone, not on its company.
      temperature: f32[], of the acting policy; ignored without `explore`.
      invalid_actions: optional bool[B, A], True where an action must not be taken at the root.
    """
    num_simulations = num_simulations or config.num_simulations
    chex.assert_scalar_positive(num_simulations)
    policy = SEARCHES[config.policy](config, explore)
    recurrent_fn = make_recurrent_fn(model, discount)

    def search(
        variables: Variables,
        root: Root,
        keys: Array,
        temperature: Float[Array, ""] | float = 1.0,
        invalid_actions: Array | None = None,
    ) -> Found:
        chex.assert_equal_shape_prefix([root.policy_logits, root.value], 1)
        if not keys.ndim:
            keys = jax.random.split(keys, len(root.value))
        if not explore:  # ties are broken at random, but in the same way everywhere and always
            keys = jnp.broadcast_to(jax.random.key(0), keys.shape)
        return policy(
            variables,
            keys,
            mctx.RootFnOutput(
                prior_logits=root.policy_logits, value=root.value, embedding=root.embedding
            ),
            recurrent_fn,
            num_simulations=num_simulations,
            invalid_actions=invalid_actions,
            temperature=temperature,
        )

    return search


def acting_temperature(config: SearchConfig, progress: float) -> float:
    """Temperature by the share of the training done, 0..1 (MuZero appendix D)."""
    phase = sum(progress >= begin for begin in config.temperature_fractions)
    return config.temperatures[phase]
