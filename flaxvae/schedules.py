"""Schedules: functions from a step to a weight's factor, by Optax's convention.

Constant and linear ones, and one after the other, are Optax's own:
`optax.constant_schedule`, `optax.linear_schedule`, `optax.join_schedules`.
"""

import jax
import jax.numpy as jnp
import optax

from flaxvae.checks import check_above, check_at_least, check_choice

SCHEDULES = ("constant", "linear", "sigmoid", "cyclical")


def sigmoid_schedule(steps: int, steepness: float = 12.0) -> optax.Schedule:
    """From near 0 to near 1 within ``steps``: sigmoid(steepness (step / steps - 1/2)).

    Source: Bowman et al., "Generating Sentences from a Continuous Space", 2015, arXiv
    1511.06349, section 3.1.
    """
    check_at_least("steps", steps, 1)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        return jax.nn.sigmoid(steepness * (jnp.asarray(step) / steps - 0.5))

    return schedule


def cyclical_schedule(
    steps: int, cycles: int = 4, rising: float = 0.5
) -> optax.Schedule:
    """From 0 to 1, ``cycles`` times within ``steps``, then 1.

    A cycle rises linearly in its first ``rising`` share and then stays at 1.

    Source: Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL
    Vanishing", 2019, arXiv 1903.10145.
    """
    check_at_least("steps", steps, 1)
    check_at_least("cycles", cycles, 1)
    check_above("rising", rising, 0)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        position = jnp.asarray(step) * (cycles / steps)
        within = position - jnp.floor(position)
        return jnp.where(position >= cycles, 1.0, jnp.minimum(within / rising, 1.0))

    return schedule


def build_schedule(kind: str, steps: int, cycles: int = 4) -> optax.Schedule:
    """A factor's course over the first ``steps`` of a run.

    Args:
      kind: ``"constant"`` (1 from the first step), ``"linear"`` (0 to 1), ``"sigmoid"``
        or ``"cyclical"``.
      steps: until the factor is 1 for good, >= 1.
      cycles: of ``"cyclical"``.

    Raises:
      InputError: an unknown kind or a number out of range.
    """
    check_choice("schedule", kind, SCHEDULES)
    check_at_least("steps", steps, 1)
    if kind == "sigmoid":
        return sigmoid_schedule(steps)
    if kind == "cyclical":
        return cyclical_schedule(steps, cycles)
    if kind == "linear":
        return optax.linear_schedule(0.0, 1.0, steps)
    return optax.constant_schedule(1.0)
