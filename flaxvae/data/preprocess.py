"""From stored values to what the model sees."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.batch import draw_rows
from flaxvae.checks import check_choice
from flaxvae.data.dataset import Dataset, Split

BINARIZATIONS = ("none", "dynamic", "static", "threshold")
STATIC_SEED = 0  # statically binarized data is the same for every run

Preprocess = Callable[[jax.Array, jax.Array], jax.Array]


def binarize(dataset: Dataset, method: str) -> Dataset:
    """Turns grey levels in [0, 1] into zeros and ones.

    Args:
      dataset: grey-level images.
      method: ``"none"`` keeps them; ``"threshold"`` sets levels >= 0.5 to one;
        ``"static"`` draws each pixel from a Bernoulli with its level as probability,
        once and for all runs; ``"dynamic"`` draws likewise, anew each time the
        train step sees an example (the arrays stay, the step does it).

    Returns:
      The data set as it is to be trained on.

    Raises:
      InputError: an unknown method.
    """
    check_choice("binarize", method, BINARIZATIONS)
    if method in ("none", "dynamic"):
        return dataclasses.replace(dataset, binarize=method)
    rng = np.random.default_rng(STATIC_SEED)

    def binarize_split(split: Split) -> Split:
        threshold: np.ndarray | float = 0.5
        if method == "static":
            threshold = 1.0 - rng.random(split.x.shape, np.float32)  # in (0, 1]
        is_one = split.x >= threshold * np.float32(dataset.max_value)
        one = split.x.dtype.type(dataset.max_value)
        return dataclasses.replace(split, x=is_one * one)

    return dataclasses.replace(
        dataset,
        binarize=method,
        train=binarize_split(dataset.train),
        validation=binarize_split(dataset.validation),
        test=binarize_split(dataset.test),
    )


def scale(x: jax.Array, max_value: float) -> jax.Array:
    """Brings stored integers to [0, 1]; floating-point values pass unchanged."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.float32) * (1.0 / max_value)


def make_preprocess(dataset: Dataset) -> Preprocess:
    """Makes the function ``(x, key) -> x`` that a compiled step applies to a batch.

    Args:
      dataset: says how its stored values are meant.

    Returns:
      A function from a stored batch ``(B, H, W, C)`` and a key to float32 values in
      [0, 1]; it draws only for dynamic binarization.
    """
    max_value, dynamic = dataset.max_value, dataset.binarize == "dynamic"

    def preprocess(x: jax.Array, key: jax.Array) -> jax.Array:
        x = scale(x, max_value)
        if not dynamic:
            return x
        return (draw_rows(jax.random.uniform, key, x.shape) < x).astype(x.dtype)

    return preprocess
