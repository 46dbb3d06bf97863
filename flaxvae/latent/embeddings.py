"""Low-dimensional embeddings of codes."""

import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np

from flaxvae.checks import InputError

LEAST_FOR_TSNE = 4  # codes: perplexity 1
LEAST_FOR_UMAP = 5
MOST_POINTS = 3_000  # that t-SNE and UMAP arrange: their time grows with the number


@dataclass(frozen=True)
class PrincipalAxes:
    """The directions of largest variance of a set of codes.

    Attributes:
      mean: of the codes, ``(D,)``.
      directions: unit vectors in columns, ``(D, P)``, largest variance first. The sign
        of each is such that its largest entry in absolute value is positive.
      share: of the total variance, explained by each direction, ``(P,)``.
    """

    mean: np.ndarray
    directions: np.ndarray
    share: np.ndarray

    def project(self, codes: np.ndarray) -> np.ndarray:
        """The coordinates ``(..., P)`` of codes ``(..., D)``."""
        coordinates: np.ndarray = (codes - self.mean) @ self.directions
        return coordinates


def fit_pca(codes: np.ndarray, num_components: int) -> PrincipalAxes:
    """The principal axes of codes ``(N, D)``, at most min(N, D) of them.

    By an eigendecomposition of the covariance (D x D), or of the scalar products of the
    centred codes (N x N) where that matrix is smaller.
    """
    from scipy import linalg

    N, D = codes.shape
    mean = np.mean(codes, axis=0, dtype=np.float64)
    centred = codes - mean
    size = min(N, D)
    gram = centred.T @ centred if D <= N else centred @ centred.T
    kept = (size - min(num_components, size), size - 1)
    values, vectors = linalg.eigh(gram, subset_by_index=kept)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if D > N:  # from vectors over examples to directions; none without variance
        is_zero = values <= 1e-12 * np.trace(gram)
        lengths = np.sqrt(np.where(is_zero, 1.0, values))
        vectors = centred.T @ vectors * np.where(is_zero, 0.0, 1.0 / lengths)
    largest = np.abs(vectors).argmax(axis=0)
    directions = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    total = float(np.trace(gram)) or 1.0  # equal codes have no variance to explain
    return PrincipalAxes(np.asarray(mean), directions, values / total)


def pca(codes: np.ndarray, num_components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Projects codes onto their directions of largest variance.

    >>> points, share = pca(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), 1)
    >>> points.round(6).tolist(), share.round(6).tolist()
    ([[-5.0], [0.0], [5.0]], [1.0])

    Args:
      codes: ``(N, D)``.
      num_components: number of directions P, at most min(N, D).

    Returns:
      The centred projection ``(N, P)``, and the share of the total variance that
      each direction explains ``(P,)``. A direction's sign is such that its largest
      entry is positive.
    """
    axes = fit_pca(codes, num_components)
    return axes.project(codes), axes.share


def tsne(codes: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Arranges codes in a plane so that neighbours stay neighbours.

    Distances between groups mean little.

    Args:
      codes: ``(N, D)``, N at least 4; equal codes stay in one place.
      seed: chooses which codes are arranged, if there are more than 3,000, and the
        initial arrangement.

    Returns:
      The arrangement ``(P, 2)``, and the numbers of the codes in it, ``(P,)``.

    Raises:
      InputError: fewer than 4 codes.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    from sklearn.manifold import TSNE

    chosen, rows = _choose(codes, seed, LEAST_FOR_TSNE, "t-SNE")
    if not np.ptp(chosen, axis=0).any():
        return np.zeros((len(rows), 2), np.float32), rows
    if chosen.shape[1] == 1:  # its initial arrangement has two principal components
        chosen = np.pad(chosen, ((0, 0), (0, 1)))
    perplexity = min(30.0, (len(rows) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return method.fit_transform(chosen), rows


def umap(codes: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Arranges codes in a plane so that neighbours stay neighbours, by UMAP.

    It keeps more of the distances between groups than t-SNE.

    Args:
      codes: ``(N, D)``, N at least 5; equal codes stay in one place.
      seed: chooses which codes are arranged, if there are more than 3,000, and the
        draws of the method.

    Returns:
      The arrangement ``(P, 2)``, and the numbers of the codes in it, ``(P,)``.

    Raises:
      InputError: fewer than 5 codes, or umap-learn is not installed.

    Source: McInnes, Healy and Melville, "UMAP: Uniform Manifold Approximation and
    Projection for Dimension Reduction", 2018, arXiv 1802.03426.
    """
    if not has_umap():
        raise InputError('UMAP needs umap-learn: pip install -e ".[umap]"')
    chosen, rows = _choose(codes, seed, LEAST_FOR_UMAP, "UMAP")
    if not np.ptp(chosen, axis=0).any():
        return np.zeros((len(rows), 2), np.float32), rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TensorFlow, which it does not need
        from umap import UMAP

        # Spectral initialization needs more codes than dimensions of its solver.
        method = UMAP(
            n_neighbors=min(15, len(rows) - 1),
            init="pca" if chosen.shape[1] > 1 else "random",
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(method.fit_transform(chosen)), rows


def has_umap() -> bool:
    """Whether umap-learn is installed."""
    return importlib.util.find_spec("umap") is not None


def _choose(
    codes: np.ndarray, seed: int, least: int, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """At most 3,000 codes, and their numbers."""
    if len(codes) < least:
        raise InputError(
            f"codes must be {least} or more for {method}, got {len(codes)}"
        )
    rows = np.sort(np.random.default_rng(seed).permutation(len(codes))[:MOST_POINTS])
    return np.asarray(codes)[rows], rows
