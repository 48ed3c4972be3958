"""MuZero's PUCT, as mctx has it."""

import functools
from typing import Any

import jax
import mctx
from jaxtyping import Array

from ez_jax.agent.search.tree import Found, PolicyFn, found_by_mctx
from ez_jax.config import SearchConfig
from ez_jax.structs import Variables


def make_puct(config: SearchConfig, explore: bool) -> PolicyFn:
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
            return jax.tree.map(lambda x: x[0], found_by_mctx(one(root), output))

        return jax.vmap(search_one)(keys, root, invalid_actions)

    return found
