"""Whole data sets as codes."""

from typing import cast

import jax
import numpy as np

from flaxvae.checks import InputError, as_integer, check_below
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.latent.keys import Seeded, draw_key
from flaxvae.latent.levels import encode_level, flatten_levels
from flaxvae.models import VQVAE
from flaxvae.nn.quantizers import Quantized
from flaxvae.training import Trained
from flaxvae.training.keys import Stream
from flaxvae.training.trained import Posterior


def encode_dataset(
    trained: Trained,
    dataset: Dataset,
    *,
    indices: bool = False,
    seed: int | None = None,
    level: int | None = None,
) -> Dataset:
    """The codes of all splits as a data set, with the labels of their examples.

    Where a model is trained on dynamically binarized or dequantized images, posterior
    means are those of grey levels, or of the mean of the noise, and are the same in
    each call. Numbers of entries are those of the inputs that `evaluate` draws of each
    split under the same seed: the sum of -log p(code) and -log p(x|code) is about one
    x.

    Args:
      trained: a trained model with ``encode``.
      dataset: examples as they are stored; of a conditional model with conditions.
      indices: of a model with a codebook the numbers of the entries as examples, which
        a prior over codes is trained on, in place of the entries.
      seed: with ``indices``, of the draws; default that of the run.
      level: of a model with several levels, which one, from 0, the top; default 0.

    Returns:
      Splits of posterior means, float32 ``(N, D)`` or ``(N, H', W', D)``; with
      ``indices`` of numbers from 0 to M - 1, ``(N, H', W', 1)`` integers. Codes of
      series lack the axis W'. A level of a model with several is always rows, ``(N,
      D)``: grids are flattened.

    Raises:
      InputError: a level that the model does not have.
    """

    def encode(split: Split) -> Split:
        if indices:
            return encode_indices(trained, split, seed=seed)
        means = encode_means(trained, split, level=level)
        return Split(means, split.labels, names=split.names, rows=split.rows)

    largest = codebook_size(trained) - 1 if indices else 1.0
    return Dataset(
        f"codes of {dataset.name}",
        encode(dataset.train),
        encode(dataset.validation),
        encode(dataset.test),
        preprocessing=Preprocessing(max_value=largest),
        class_names=dataset.class_names,
    )


def encode_means(
    trained: Trained,
    split: Split,
    *,
    key: jax.Array | None = None,
    level: int | None = None,
) -> np.ndarray:
    """Posterior means ``(N, D)`` or ``(N, H', W', D)`` of a split's examples.

    ``key`` is as in `Trained.encode`, ``level`` as in `encode_dataset`.

    Raises:
      InputError: a level that the model does not have.
    """
    if trained.has_levels:
        count = len(trained.level_shapes)
        level = 0 if level is None else as_integer("level", level, 0)
        check_below("level", level, count)
        return flatten_levels([encode_level(trained, split.x, level, key=key)])
    if level is not None:
        raise InputError(
            "level must be left out for a model without levels of latent variables, "
            f"got {level}"
        )
    if not len(split):
        return np.zeros((0, *trained.code_shape), np.float32)
    return np.asarray(trained.encode(split.x, split.condition, key=key).mean)


def encode_split(
    trained: Trained, split: Split, *, seed: int | None = None
) -> Posterior:
    """q(z|x) of a split's examples, as `flaxvae.evaluation.evaluate` draws them."""
    key = evaluation_key(trained, seed=seed)
    return trained.encode(split.x, split.condition, key=key)


def encode_indices(trained: Trained, split: Split, *, seed: int | None = None) -> Split:
    """A split as numbers of codebook entries ``(N, H', W', 1)``.

    Its labels and weights are kept; ``seed`` is as in `encode_dataset`.
    """
    dtype = np.uint16 if codebook_size(trained) <= 2**16 else np.int32
    x = np.zeros((0, *trained.code_shape[:-1], 1), dtype)
    if len(split):
        q = cast(Quantized, encode_split(trained, split, seed=seed))
        x = np.asarray(q.indices)[..., None].astype(dtype)
    return Split(x, split.labels, weights=split.weights)


def evaluation_key(trained: Seeded, *, seed: int | None = None) -> jax.Array:
    """The key under which `flaxvae.evaluation.evaluate` draws a split's inputs."""
    return draw_key(trained, Stream.TEST, seed=seed)


def codebook_size(trained: Trained) -> int:
    """M, the number of entries of a trained `flaxvae.models.VQVAE`'s codebook."""
    return int(cast(VQVAE, trained.model).quantizer.num_codes)


def share_codes(
    indices: np.ndarray, count: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """The relative frequency of each codebook entry, ``(M,)``.

    >>> share_codes(np.array([0, 2, 2, 0, 2]), 4).tolist()
    [0.4, 0.0, 0.6, 0.0]

    Args:
      indices: numbers of entries, ``(N, ...)``.
      count: M.
      weights: of the N examples, or None.
    """
    flat = np.asarray(indices, np.int64).reshape(-1)
    if weights is not None:
        weights = np.repeat(weights, len(flat) // len(indices))
    uses = np.bincount(flat, weights, minlength=count)
    return uses / uses.sum()
