"""Any model in parts: its variables, and what begins as data."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def start_from(model: nn.Module, variables: Any, examples: Any) -> Any:
    """The variables of a model at step 0, with what begins as data.

    Args:
      model: an unbound model; it, or its prior, has a method ``start`` if it begins so.
      variables: its variables, ``params`` among them.
      examples: ``(count) -> examples`` as the model sees them, ``(count, ...)``.
    """
    if hasattr(model, "start"):
        return model.start(variables, examples)
    prior: Any = getattr(model, "prior", None)
    if not hasattr(prior, "start"):
        return variables
    params = variables["params"]
    started = prior.start(params["prior"], examples(prior.num_components))
    return {**variables, "params": {**params, "prior": started}}


def variable_shapes(model: nn.Module, data_shape: Sequence[int]) -> Any:
    """Shapes and types of a VAE's variables for examples of ``data_shape``.

    Nothing is computed and no objective is needed: each part of a VAE that the model
    has is called once, or its method ``reach``.
    """

    def reach(vae: Any, x: jax.Array) -> None:
        if hasattr(vae, "reach"):
            vae.reach(x)
            return
        if (condition := getattr(vae, "condition", None)) is not None:
            vae = vae.given(condition.example(1))
        z = vae.encode(x).mean
        vae.decode(z)
        if hasattr(vae, "prior"):
            vae.prior()
        if getattr(vae, "critic", None) is not None:
            vae.critic(z)

    def init() -> Any:
        x = jnp.zeros((1, *data_shape))
        return model.init(jax.random.key(0), x, method=reach)

    return jax.eval_shape(init)
