"""Searching anew with the target network, one way per file; `reanalyse.py` lists them."""

from ez_jax.agent.reanalyse.reanalyse import make_reanalyse
from ez_jax.agent.reanalyse.result import Reanalysed, ReanalyseFn

__all__ = ["ReanalyseFn", "Reanalysed", "make_reanalyse"]
