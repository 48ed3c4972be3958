"""Reanalysis: old data is searched again; one mode per file, listed in `reanalyse.py`."""

from ez_jax.agent.reanalyse.reanalyse import make_reanalyse
from ez_jax.agent.reanalyse.result import Reanalysed, ReanalyseFn

__all__ = ["ReanalyseFn", "Reanalysed", "make_reanalyse"]
