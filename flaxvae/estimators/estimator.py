"""What the estimators share: parameters, checks of the input, tags."""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import validate_data

from flaxvae.estimators.rows import RowsSettings, RowsVAE, fit_rows
from flaxvae.nn.networks import Encoder

FLOATS = (np.float64, np.float32)


class RowsEstimator(BaseEstimator):
    """An estimator on top of a VAE of rows; for its parameters see `VAETransformer`."""

    vae_: RowsVAE

    def __init__(
        self,
        n_components: int = 8,
        *,
        hidden_layer_sizes: Sequence[int] = (64,),
        beta: float = 1.0,
        learning_rate: float = 1e-2,
        max_epochs: int | None = None,
        validation_fraction: float = 0.1,
        image_shape: Sequence[int] | None = None,
        encoder: Encoder = "mlp",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.beta = beta
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.image_shape = image_shape
        self.encoder = encoder
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.image_shape is None
        return tags

    def _check_rows(self, X: object, *, reset: bool = False) -> np.ndarray:
        """Rows ``(N, F)`` as floats; NaN is missing, unless rows are images."""
        rows: np.ndarray = validate_data(
            self,
            X,
            reset=reset,
            dtype=FLOATS,
            ensure_all_finite="allow-nan" if self.image_shape is None else True,
            ensure_min_samples=2 if reset else 1,
        )
        return rows

    def _fit_vae(self, rows: np.ndarray, seed: int, mask: float = 0.0) -> None:
        """Sets ``vae_``, the VAE of rows ``(N, F)``."""
        config = RowsSettings(
            n_components=self.n_components,
            hidden_layer_sizes=self.hidden_layer_sizes,
            beta=self.beta,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            validation_fraction=self.validation_fraction,
            image_shape=self.image_shape,
            encoder=self.encoder,
        )
        self.vae_ = fit_rows(rows, config, seed, mask)
        self.n_iter_ = self.vae_.epochs


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """A seed, by scikit-learn's rules: another one with each call for None."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
