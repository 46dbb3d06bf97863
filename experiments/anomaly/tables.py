"""Tables of the kinds that the detector was chosen on: ``rng -> (rows, labels)``.

They are made of data that scikit-learn holds, and of numbers that are drawn
(`experiments.anomaly.synthetic`). None is a table of the ODDS collection.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from sklearn import datasets

from experiments.anomaly import synthetic
from experiments.anomaly.synthetic import Rng, Table, join


def rare_class(
    name: str, rare: Sequence[int], count: int, rng: Rng, common: Sequence[int] = ()
) -> Table:
    """A data set of scikit-learn in which some classes are made rare.

    Args:
      name: of the data set, see `LOADERS`.
      rare: the classes of the outliers.
      count: outliers, at most.
      rng: chooses them.
      common: the other classes that are kept. Default: all.
    """
    x, y = LOADERS[name](return_X_y=True)
    inliers = np.isin(y, common) if common else ~np.isin(y, rare)
    of_rare = np.flatnonzero(np.isin(y, rare))
    few = rng.choice(of_rare, min(count, len(of_rare)), replace=False)
    return join(x[inliers].astype(np.float64), x[few].astype(np.float64), rng)


def digit_pairs(rng: Rng) -> Table:
    """Pairs of coarse digits; of an outlier one is of another class."""
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(len(x), 16)
    common, rare = x[np.isin(y, [1, 3, 8])], x[~np.isin(y, [1, 3, 8])]
    count = 40
    outliers = [rare[rng.choice(len(rare), count)], common[:count]]
    inliers = np.c_[common, common[rng.permutation(len(common))]]
    return join(inliers, np.concatenate(outliers, axis=1), rng)


def informative(clusters: int, rng: Rng) -> Table:
    """Clusters of scikit-learn's generator in 8 of 24 columns, one class of 5 %."""
    x, y = datasets.make_classification(
        1700,
        24,
        n_informative=8,
        n_redundant=8,
        n_clusters_per_class=clusters,
        weights=[0.95],
        class_sep=1.4,
        flip_y=0,
        random_state=int(rng.integers(10**6)),
    )
    return x, y


LOADERS = {
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}
TABLES: dict[str, Callable[[Rng], Table]] = {
    "digits_0": partial(rare_class, "digits", [0], 50),
    "digits_3": partial(rare_class, "digits", [3], 45),
    "digits_4": partial(rare_class, "digits", [4], 50),
    "digits_8": partial(rare_class, "digits", [8], 50),
    "digits_few": partial(rare_class, "digits", [2, 5, 7, 9], 30, common=[0, 1, 4]),
    "digit_pairs": digit_pairs,
    "wine_0": partial(rare_class, "wine", [0], 10),
    "wine_2": partial(rare_class, "wine", [2], 10),
    "cancer_malignant": partial(rare_class, "breast_cancer", [0], 30),
    "cancer_benign": partial(rare_class, "breast_cancer", [1], 20),
    "iris_1": partial(rare_class, "iris", [1], 8),
    "iris_2": partial(rare_class, "iris", [2], 8),
    "informative_1": partial(informative, 1),
    "informative_3": partial(informative, 3),
    **synthetic.TABLES,
}
