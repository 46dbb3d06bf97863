"""Runs with random parameters: for what does not depend on a training."""

import functools

import jax
import numpy as np

from flaxvae import Run
from flaxvae.models.variables import variable_shapes
from flaxvae.objectives import ELBO

TERMS = {"elbo": -3.0, "kl": 1.0, "log_likelihood": -2.0, "loss": 3.0}


shapes_of = functools.cache(variable_shapes)  # many tests have the same small model


def as_run(model, data, *, objective=None, scale=0.3, codes=None):
    """A run of two epochs; ``codes`` are the diagnostics of an epoch's number."""
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jax.device_put(
            rng.normal(0, scale, leaf.shape).astype(leaf.dtype)
        ),
        shapes_of(model, data.shape),
    )
    history = [
        {
            "epoch": epoch,
            "train": TERMS,
            "validation": TERMS,
            **({} if codes is None else {"codes": codes(epoch)}),
        }
        for epoch in (1, 2)
    ]
    return Run(
        model,
        variables,
        data.shape,
        data.preprocessing,
        history=history,
        epochs=2,
        objective=objective or ELBO(),
        template=data.without_examples(),
        dataset=data,
    )
