"""Models with random parameters, for what any parameters show."""

from flaxvae.models.variables import variable_shapes
from flaxvae.objectives import ELBO
from flaxvae.training import Trained
from tests.random_variables import random_values


def with_parameters(model, shape, *args, **options):
    """A model of examples of a shape; ``args`` and ``options`` are `Trained`'s."""
    variables = random_values(variable_shapes(model, shape))
    return Trained(model, variables, shape, *args, **options)


def untrained(model, data, objective=ELBO()):
    """A model of a data set that has not been trained on it."""
    return with_parameters(
        model,
        data.shape,
        data.preprocessing,
        objective=objective,
        template=data.without_examples(),
    )
