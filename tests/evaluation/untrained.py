"""Models with random parameters, for what any parameters show."""

import jax
import jax.numpy as jnp

from flaxvae.objectives import ELBO
from flaxvae.training import Trained
from tests.random_variables import random_variables


def untrained(model, data, objective=ELBO()):
    """A model of a data set that has not been trained on it."""
    condition = data.train[:1].condition

    def method(model, x, *, key):
        given = model if condition is None else model.given(jnp.asarray(condition))
        return objective(given, x, key=key)

    x, key = jnp.zeros((1, *data.shape)), jax.random.key(0)
    variables = random_variables(model, x, key=key, method=method)
    return Trained(
        model,
        variables,
        data.shape,
        data.preprocessing,
        objective=objective,
        template=data.without_examples(),
    )
