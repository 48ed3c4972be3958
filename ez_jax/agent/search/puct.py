"""MuZero's PUCT, from mctx."""

import functools

import jax
import mctx
from jaxtyping import Array

from ez_jax.agent.search import flat
from ez_jax.agent.search.tree import Found, PolicyFn, SearchInput, found_in_tree
from ez_jax.config import SearchConfig


def make_puct(config: SearchConfig, explore: bool) -> PolicyFn:
    """MuZero's PUCT (Schrittwieser et al., 2020) with root noise, actions drawn from the visits."""
    of_mctx = functools.partial(
        mctx.muzero_policy,
        dirichlet_fraction=config.dirichlet_fraction if explore else 0.0,
        dirichlet_alpha=config.dirichlet_alpha,
        pb_c_init=config.pb_c_init,
        pb_c_base=config.pb_c_base,
    )

    select = functools.partial(
        mctx.muzero_action_selection, pb_c_init=config.pb_c_init, pb_c_base=config.pb_c_base
    )
    choose = flat.everywhere(functools.partial(select, depth=0), select)

    def policy(given: SearchInput) -> Found:
        loop = flat.loop(given.variables, given.recurrent_fn, choose)

        def search_one(key: Array, root: mctx.RootFnOutput, invalid: Array | None) -> Found:
            """A batch of one, because mctx has one key for all and draws at every node."""
            one = lambda tree: jax.tree.map(lambda x: x[None], tree)  # noqa: E731
            output = of_mctx(
                *(given.variables, key, one(root), given.recurrent_fn, given.num_simulations),
                invalid_actions=one(invalid),
                temperature=given.temperature if explore else 0.0,
                loop_fn=loop if flat.is_chosen(config) else jax.lax.fori_loop,
            )
            found = found_in_tree(
                *(one(root), output.search_tree),
                action=output.action,
                policy=output.action_weights,
                value=output.search_tree.summary().value,
            )
            return jax.tree.map(lambda x: x[0], found)

        return jax.vmap(search_one)(given.keys, given.root, given.invalid_actions)

    return policy
