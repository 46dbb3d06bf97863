"""Models with small random numbers as parameters, as runs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae import Run
from flaxvae.data import condition_on_labels, from_arrays
from flaxvae.models import HierarchicalConfig, build_autoencoder, build_vae
from flaxvae.training import Trained
from tests.latent.untrained import shapes_of

CLASSES = 3


def make_data(shape=(8, 8, 1), count=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    return from_arrays(x, labels=np.arange(count) % CLASSES, test_size=0.5)


def untrained(model, data, scale=0.4):
    """A run with random parameters; variances are positive."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        numbers = rng.normal(0, scale, leaf.shape)
        is_variance = "var" in jax.tree_util.keystr(path)
        numbers = np.abs(numbers) + 0.5 if is_variance else numbers
        return jax.device_put(numbers.astype(leaf.dtype))

    shapes = shapes_of(model, data.shape)
    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    trained = Trained(
        model, variables, data.shape, preprocessing=data.preprocessing, seed=3
    )
    return Run.of(trained, data)


def vae(shape=(8, 8, 1), **choices):
    data = make_data(shape)
    if choices.get("conditional"):
        data = condition_on_labels(data)
        choices["num_classes"] = CLASSES
    return untrained(build_vae(shape, latent_dim=3, **choices), data)


def autoencoder():
    data = make_data()
    return untrained(build_autoencoder(data.shape, 2, hidden=(8,)), data)


def hierarchical(**choices):
    data = make_data()
    return untrained(HierarchicalConfig(**choices).build(data), data, scale=0.2)


class SortingDecoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        x = nn.Dense(64)(jnp.sort(z))
        return x.reshape(*z.shape[:-1], 8, 8, 1)
