"""A VAE as a transformer of scikit-learn."""

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted

from flaxvae.checks import InputError, as_integer
from flaxvae.estimators.estimator import FLOATS, RowsEstimator, draw_seed


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RowsEstimator):
    """Rows to the means of a variational autoencoder's posterior, and back.

    Columns are standardized inside. p(x|z) is normal with a learned variance for each
    column; missing numbers (NaN) are left out of it, and count as the mean of their
    column in the encoder. Tables of about the same size and width share one compiled
    program, so that a search over seeds, ``beta`` or folds compiles once.

    >>> from sklearn.datasets import load_iris
    >>> rows = load_iris().data
    >>> vae = VAETransformer(max_epochs=5, random_state=0).fit(rows)
    >>> vae.transform(rows).shape, vae.sample(3).shape
    ((150, 8), (3, 4))

    Args:
      n_components: D, latent dimensions, those left at their prior among them.
      hidden_layer_sizes: widths of the hidden layers of the encoder; the decoder has
        them in reverse order.
      beta: weight of the KL divergence; `score` is the ELBO, whatever it is.
      learning_rate: of Adam, at its highest; it falls to 0 along a cosine.
      max_epochs: passes over the rows; None: 300, within 200 to 16,000 steps of 128
        rows.
      validation_fraction: share of the rows that ends the training early, at most 1,000
        rows; below 50 rows none are held out. 0: no early stopping.
      image_shape: ``(H, W)`` or ``(H, W, C)`` of images that rows hold, pixel by pixel:
        all pixels are then standardized together, share one variance, and none may be
        missing.
      encoder: ``"mlp"``, or of images ``"conv"`` or ``"resnet"``: the kind of both
        networks.
      random_state: of initialization, batches and draws.

    Attributes:
      vae_: the trained `flaxvae.estimators.rows.RowsVAE`.
      n_iter_: passes over the rows.
      n_features_in_: F.
      feature_names_in_: of a data frame.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114.
    """

    def fit(self, X: object, y: object = None) -> "VAETransformer":
        """Trains the VAE on rows ``(N, F)``.

        Raises:
          InputError: a parameter out of range.
          NonFiniteError: the training has met a number that is not finite.
        """
        rows = self._check_rows(X, reset=True)
        self._fit_vae(rows, draw_seed(self.random_state))
        return self

    def transform(self, X: object) -> np.ndarray:
        """Means of q(z|x), ``(N, D)``."""
        check_is_fitted(self)
        rows = self._check_rows(X)
        return self.vae_.encode(rows).astype(rows.dtype)

    def inverse_transform(self, X: object) -> np.ndarray:
        """Means of p(x|z) of codes ``(N, D)``, ``(N, F)`` in the rows' own units."""
        check_is_fitted(self)
        codes = check_array(X, dtype=FLOATS)
        if codes.shape[1] != self._n_features_out:
            raise InputError(
                f"X must have {self._n_features_out} columns, one for each component, "
                f"got {codes.shape[1]}"
            )
        return self.vae_.decode(codes).astype(codes.dtype)

    def sample(self, n_samples: int = 1) -> np.ndarray:
        """Rows ``(n_samples, F)`` drawn from the model, the same for the same fit.

        With ``random_state=None``, or a generator, each call draws others.
        """
        check_is_fitted(self)
        count = as_integer("n_samples", n_samples, 1)
        return self.vae_.sample(count, draw_seed(self.random_state))

    def score(self, X: object, y: object = None) -> float:
        """The mean ELBO of rows, in nats per row of the rows' own units.

        A lower bound on their mean log-density, so that models of any size and
        preprocessing can be compared, by `GridSearchCV` for example. It is estimated by
        16 draws of the code for each row, the same in every call.
        """
        check_is_fitted(self)
        return float(self.vae_.elbos(self._check_rows(X)).mean())

    @property
    def _n_features_out(self) -> int:
        D: int = self.vae_.network.config.latent_dim
        return D

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
