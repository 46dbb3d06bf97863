"""How much memory a model's passes need, by the arrays that it computes."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.extend.core

ARRAYS_AT_ONCE = 4  # of one size, while a chunk of examples is decoded and compared


def bytes_per_row(
    trace: Callable[[int], jax.extend.core.ClosedJaxpr], data_shape: tuple[int, ...]
) -> int:
    """Approximate bytes of a computation for each of its rows.

    As much as `ARRAYS_AT_ONCE` arrays of its largest size, that of an example at least.

    Args:
      trace: the computation for a number of rows, which is not run. What does not grow
        with the rows, such as parameters, is not counted.
      data_shape: of one example.
    """
    two, three = (list(_sizes(trace(count).jaxpr)) for count in (2, 3))
    grown = [b - a for a, b in zip(two, three, strict=False)]
    return ARRAYS_AT_ONCE * max(4 * math.prod(data_shape), *grown, 0)


def _sizes(jaxpr: jax.extend.core.Jaxpr) -> Iterator[int]:
    """Bytes of each array that a traced computation makes, in order."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            if isinstance(variable.aval, jax.core.ShapedArray):
                yield math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _sizes(inner)
