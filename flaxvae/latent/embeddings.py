"""Codes of many dimensions in a plane."""

import numpy as np

MOST_POINTS = 3_000  # that t-SNE arranges: its time grows faster than their number


def pca(codes: np.ndarray, num_components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Projects codes onto their directions of largest variance.

    Args:
      codes: ``(N, D)``.
      num_components: number of directions P, at most D.

    Returns:
      The centred projection ``(N, P)``, and the share of the total variance that
      each direction explains ``(P,)``. A direction's sign is such that its largest
      entry is positive.
    """
    centred = codes - np.mean(codes, axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(variances)[::-1][:num_components]
    directions = directions[:, order]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(order))])
    total = variances.sum() or 1.0  # equal codes have no variance to explain
    return centred @ directions, variances[order] / total


def tsne(codes: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Arranges codes in a plane so that neighbours stay neighbours.

    Distances between groups mean little.

    Args:
      codes: ``(N, D)``, N at least 4.
      seed: chooses which codes are arranged, where they are many, and the start.

    Returns:
      The arrangement ``(P, 2)``, and the numbers of the codes in it, ``(P,)``.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    from sklearn.manifold import TSNE

    rows = np.sort(np.random.default_rng(seed).permutation(len(codes))[:MOST_POINTS])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return method.fit_transform(np.asarray(codes)[rows]), rows
