"""Training targets; one value target per file, listed in `targets.py`."""

from ez_jax.agent.targets.targets import TargetsFn, make_targets

__all__ = ["TargetsFn", "make_targets"]
