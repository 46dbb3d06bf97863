"""Whether clusters of codes are the classes of their examples."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, as_integer, check_seed
from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.latent.encode import encode_means
from flaxvae.training import Trained

RESTARTS = 10  # of k-means; the best result is kept
RESAMPLES = 200  # of the bootstrap


def cluster(
    trained: Trained,
    split: Split,
    *,
    seed: int | None = None,
    num_clusters: int | None = None,
    max_examples: int = 10_000,
) -> dict[str, float | int | None]:
    """How clusters of a model's codes agree with the classes of a split's examples.

    Codes are posterior means, without draws, of several levels those of the top level,
    and are clustered as they are: a dimension that hardly varies counts little. Grids
    of codes are flattened.

    Args:
      trained: a trained model with codes.
      split: labelled examples of two classes or more; those with a label below 0 are
        left out as unlabelled.
      seed: of the choice of examples and of k-means; default that of the run.
      num_clusters: default the number of classes among the examples.
      max_examples: of a larger split, so many are drawn without replacement.

    Returns:
      The numbers of `cluster_codes`.

    Raises:
      InputError: no examples, no labels, or as `cluster_codes`.
      NonFiniteError: a model or a code that is infinite or NaN.
    """
    check_examples(split)
    max_examples = as_integer("max_examples", max_examples, 2)
    seed = check_seed(trained.seed if seed is None else seed)
    if split.labels is None:
        raise InputError("split must have labels to compare clusters with, got none")
    rows = np.flatnonzero(np.asarray(split.labels) >= 0)
    if len(rows) > max_examples:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:max_examples])
    chosen = split[rows]
    codes = encode_means(trained, chosen)
    labels = np.asarray(chosen.labels)
    flat = codes.reshape(len(codes), -1)
    return cluster_codes(flat, labels, num_clusters=num_clusters, seed=seed)


def cluster_codes(
    codes: ArrayLike,
    classes: ArrayLike,
    *,
    num_clusters: int | None = None,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """How clusters of codes agree with classes: k-means, NMI and ARI.

    Clusters are the best of ten restarts of scikit-learn's ``KMeans``, by its own
    criterion: classes are not used.

    Args:
      codes: ``(N, D)``.
      classes: ``(N,)`` integers, two different ones or more.
      num_clusters: at most N; default the number of classes.
      seed: of k-means and the bootstrap.

    Returns:
      ``nmi``: the mutual information of clusters and classes, over the mean of their
      entropies, in [0, 1]. It is biased upwards in small samples, more so with more
      clusters; ``ari``: the adjusted Rand index, 1 for the same partition and 0 in
      expectation for a random one, possibly negative; ``nmi_standard_error`` and
      ``ari_standard_error``, by the bootstrap over examples with the clusters as they
      are; ``clusters``: their number.

    Raises:
      InputError: other shapes, codes that are not finite, one class only, or more
        clusters than examples.

    Source: Strehl and Ghosh, "Cluster Ensembles", 2002 (NMI, here over the arithmetic
    mean); Hubert and Arabie, "Comparing partitions", 1985 (ARI).
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    codes, classes = np.asarray(codes), np.asarray(classes)
    if codes.ndim != 2 or classes.shape != codes.shape[:1]:
        raise InputError(
            "codes and classes must have the shapes (N, D) and (N,), got "
            f"{codes.shape} and {classes.shape}"
        )
    if not np.isfinite(codes).all():
        raise InputError("codes must be finite, got NaN or infinity")
    kinds, labels = np.unique(classes, return_inverse=True)
    if len(kinds) < 2:
        raise InputError(f"classes must be two or more, got {len(kinds)}")
    count = len(kinds)
    if num_clusters is not None:
        count = as_integer("num_clusters", num_clusters, 1)
    if count > len(codes):
        raise InputError(
            f"num_clusters must be <= {len(codes)}, the number of codes, got {count}"
        )
    means = KMeans(count, n_init=RESTARTS, random_state=check_seed(seed))
    with warnings.catch_warnings():  # of fewer different codes than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = means.fit_predict(codes)
    table = np.zeros((count, len(kinds)), np.int64)
    np.add.at(table, (clusters, labels), 1)
    rng = np.random.default_rng(seed)
    # Examples drawn with replacement: a multinomial draw of the table's cells.
    drawn = rng.multinomial(len(codes), table.ravel() / len(codes), RESAMPLES)
    tables = drawn.reshape(-1, *table.shape)
    return {
        "nmi": float(normalized_mutual_information(table)),
        "nmi_standard_error": float(normalized_mutual_information(tables).std(ddof=1)),
        "ari": float(adjusted_rand(table)),
        "ari_standard_error": float(adjusted_rand(tables).std(ddof=1)),
        "clusters": count,
    }


def normalized_mutual_information(tables: np.ndarray) -> np.ndarray:
    """2 I(A; B) / (H(A) + H(B)) of two partitions; of two constant ones 0.

    Args:
      tables: how many examples are in part a of A and part b of B, ``(..., A, B)``.

    Returns:
      ``(...)``, in [0, 1].
    """
    joint = tables / tables.sum(axis=(-2, -1), keepdims=True)
    of_a = _entropy(joint.sum(axis=-1)[..., None])
    of_b = _entropy(joint.sum(axis=-2)[..., None])
    total = of_a + of_b
    shared = np.maximum(total - _entropy(joint), 0)
    return 2 * shared / np.where(total > 0, total, 1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """-sum p log p over the last two axes."""
    entropy: np.ndarray = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(
        axis=(-2, -1)
    )
    return entropy


def adjusted_rand(tables: np.ndarray) -> np.ndarray:
    """The adjusted Rand index of two partitions, 1 where both are constant.

    There are m = n (n - 1) / 2 pairs of examples. If a pairs share a part of A, b pairs
    share a part of B, and c pairs share both, the index is (c - a b / m) /
    ((a + b) / 2 - a b / m).

    >>> float(adjusted_rand(np.array([[5, 0], [0, 5]])))
    1.0

    Args:
      tables: as in `normalized_mutual_information`; of two examples or more.

    Returns:
      ``(...)``.
    """
    counts = tables.astype(np.float64)

    def pairs(parts: np.ndarray) -> np.ndarray:
        return parts * (parts - 1) / 2

    both = pairs(counts).sum(axis=(-2, -1))
    a = pairs(counts.sum(axis=-1)).sum(axis=-1)
    b = pairs(counts.sum(axis=-2)).sum(axis=-1)
    expected = a * b / pairs(counts.sum(axis=(-2, -1)))
    most = (a + b) / 2 - expected
    return np.where(most != 0, (both - expected) / np.where(most != 0, most, 1), 1)
