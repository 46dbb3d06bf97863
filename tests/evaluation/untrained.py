"""Models with parameters by hand: random ones, and those of a known generator."""

from dataclasses import replace

import numpy as np

from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.training import Trained
from tests.latent.untrained import shapes_of
from tests.random_variables import random_values


def with_parameters(model, shape, *args, **options):
    """A model of examples of a shape; ``args`` and ``options`` are `Trained`'s."""
    variables = random_values(shapes_of(model, tuple(shape)))
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


def with_decoder(model, data, *, hidden, output, likelihood=None):
    """A VAE with one hidden layer in the decoder, of these two kernels."""
    trained = untrained(model, data)
    params = dict(trained.variables["params"])
    layers = {"hidden_0": hidden, "output": output}
    params["decoder"] = {
        name: {
            "kernel": np.asarray(kernel, np.float32),
            "bias": np.zeros(np.shape(kernel)[1], np.float32),
        }
        for name, kernel in layers.items()
    }
    if likelihood is not None:
        params["likelihood"] = likelihood
    return replace(trained, variables={"params": params})


def drawing_classes(data, logits):
    """A conditional VAE of images: each class has its logits, and the code adds some.

    Args:
      data: conditioned on its labels.
      logits: of an image per class, (K, H * W * C).
    """
    K = len(logits)
    model = build_vae(data.shape, 2, hidden=(K,), conditional="concat", num_classes=K)
    of_codes = 0.1 * np.random.default_rng(0).normal(size=(2, K))
    hidden = np.concatenate([of_codes, np.eye(K)])
    return with_decoder(model, data, hidden=hidden, output=logits)
