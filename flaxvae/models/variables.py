"""Shape inference and data-dependent initialization."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import VariableDict
from jax.extend.core import ClosedJaxpr

from flaxvae.capabilities import (
    HasInitAll,
    HasPrior,
    InitializedFromData,
    ModelTraits,
    PriorInitializedFromData,
)
from flaxvae.models.bind import bind_example


def initialize_from_data(
    model: nn.Module, variables: VariableDict, examples: Callable[[int], jax.Array]
) -> VariableDict:
    """The initial variables of a model, after data-dependent initialization.

    Args:
      model: an unbound model. If it, or its prior, has a method
        ``initialize_from_data``, that method replaces variables.
      variables: the variables of the model, ``params`` among them.
      examples: ``(count) -> examples`` as the model sees them, ``(count, ...)``.
    """
    if isinstance(model, InitializedFromData):
        return model.initialize_from_data(variables, examples)
    prior = ModelTraits.of(model).prior
    if not isinstance(prior, PriorInitializedFromData):
        return variables
    params = variables["params"]
    of_prior = prior.initialize_from_data(
        params["prior"], examples(prior.num_components)
    )
    return {**variables, "params": {**params, "prior": of_prior}}


def variable_shapes(model: nn.Module, data_shape: Sequence[int]) -> VariableDict:
    """Shapes and types of a model's variables for examples of ``data_shape``.

    Nothing is computed and no objective is needed: the model's method ``init_all``, or
    each part of a VAE that the model has, is called once.
    """
    return jax.eval_shape(_initialization(model, data_shape))


def trace_model(model: nn.Module, data_shape: Sequence[int]) -> ClosedJaxpr:
    """The operations of a model that is initialized, each of its parts called once."""
    return jax.make_jaxpr(_initialization(model, data_shape))()


def _initialization(
    model: nn.Module, data_shape: Sequence[int]
) -> Callable[[], VariableDict]:

    def init_all(vae: nn.Module, x: jax.Array) -> None:
        if isinstance(vae, HasInitAll):
            vae.init_all(x)
            return
        vae = bind_example(vae, 1)
        z = vae.encode(x).mean
        vae.decode(z)
        if isinstance(vae, HasPrior):
            vae.prior()
        if (critic := ModelTraits.of(vae).critic) is not None:
            critic(z)

    def init() -> VariableDict:
        x = jnp.zeros((1, *data_shape), jnp.float32)
        return model.init(jax.random.key(0), x, method=init_all)

    return init
