"""Floating-point operations of a program, counted from its jaxpr.

XLA counts them too, but not on every device: on GPUs its count is empty.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count(function: Callable[..., Any], *shapes: Any) -> float:
    """FLOPs of the matrix products and convolutions in one call; the rest is not counted.

    A loop of known length counts as often as it runs, any other loop once, and of the branches of
    a condition the largest.

    Args:
      function: anything that JAX can trace.
      shapes: its arguments, or `jax.ShapeDtypeStruct`s in their place.
    """
    return _total(jax.make_jaxpr(function)(*shapes).jaxpr)


def _total(jaxpr: Any) -> float:
    return sum(map(_of, jaxpr.eqns))


def _of(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, outputs = equation.invars[1].aval, params["dimension_numbers"].rhs_spec[0]
        return 2.0 * equation.outvars[0].aval.size * kernel.size / kernel.shape[outputs]
    inner = [_total(jaxpr) for jaxpr in _inside(params)]
    if name == "cond":
        return max(inner, default=0.0)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _inside(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            each = getattr(each, "jaxpr", each)  # of a closed one
            if hasattr(each, "eqns"):
                yield each
