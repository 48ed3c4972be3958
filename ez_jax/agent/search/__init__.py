"""Tree search in the learned model, one variant per file; `search.py` lists them."""

from ez_jax.agent.search.search import (
    SearchFn,
    forbidden,
    make_recurrent_fn,
    make_search,
    make_tree_search,
)

__all__ = ["SearchFn", "forbidden", "make_recurrent_fn", "make_search", "make_tree_search"]
