"""A VAE that fills in missing numbers."""

from collections.abc import Sequence

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from flaxvae.estimators.estimator import RowsEstimator, draw_seed

MASK = 0.2  # share of the numbers that are hidden in training


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, RowsEstimator):
    """Fills missing numbers (NaN) by their expectation under a VAE.

    The expectation of p(x|observed numbers) is estimated by importance sampling from
    the posterior of the observed numbers. The parameters are those of `VAETransformer`
    but for images.

    >>> rows = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, 6.0], [4.0, 8.0]] * 10)
    >>> filled = VAEImputer(max_epochs=5, random_state=0).fit_transform(rows)
    >>> bool(np.isnan(filled).any()), filled[0].tolist()
    (False, [1.0, 2.0])

    Attributes:
      vae_: the VAE, a `flaxvae.estimators.rows.RowsVAE`.
      n_iter_: passes over the rows.
      n_features_in_: F.
      is_empty_: which columns have no number, ``(F,)``; they are filled with 0.

    Source: Mattei and Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
    Incomplete Data Sets", 2019, arXiv 1812.02633.
    """

    def __init__(
        self,
        n_components: int = 8,
        *,
        hidden_layer_sizes: Sequence[int] = (64,),
        beta: float = 1.0,
        learning_rate: float = 1e-2,
        max_epochs: int | None = None,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            n_components,
            hidden_layer_sizes=hidden_layer_sizes,
            beta=beta,
            learning_rate=learning_rate,
            max_epochs=max_epochs,
            validation_fraction=validation_fraction,
            random_state=random_state,
        )

    def fit(self, X: object, y: object = None) -> "VAEImputer":
        """Trains the VAE on rows ``(N, F)``, with or without missing numbers.

        Raises:
          InputError: a parameter out of range.
          NonFiniteError: the training has met a number that is not finite.
        """
        rows = self._check_rows(X, reset=True)
        self._fit_vae(rows, draw_seed(self.random_state), MASK)
        self.is_empty_ = np.isnan(rows).all(axis=0)
        return self

    def transform(self, X: object) -> np.ndarray:
        """Rows ``(N, F)`` whose missing numbers are filled in; others are as they were.

        A column without a number in training is filled with 0.
        """
        check_is_fitted(self)
        rows = self._check_rows(X)
        missing = np.isnan(rows)
        chosen = missing.any(axis=1)
        filled = rows.copy()
        if chosen.any():
            found = self.vae_.impute(rows[chosen])
            filled[missing] = found[missing[chosen]]
            filled[missing & self.is_empty_[None]] = 0.0
        return filled

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
