"""What the model is trained towards, one value target per file; `targets.py` lists them."""

from ez_jax.agent.targets.targets import TargetsFn, make_targets

__all__ = ["TargetsFn", "make_targets"]
