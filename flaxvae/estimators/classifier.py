"""A classifier that learns from few labels and many rows without one."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from flax.typing import VariableDict
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from flaxvae.checks import InputError
from flaxvae.estimators import programs
from flaxvae.estimators.estimator import FLOATS, RowsEstimator, draw_seed
from flaxvae.estimators.programs import Network, Recipe
from flaxvae.estimators.rows import Length
from flaxvae.models import VAEConfig
from flaxvae.nn.networks import Encoder
from flaxvae.objectives import M2

UNLABELLED = -1
LABELLED_EXAMPLES = 512  # that M2 is compiled for at least; fewer are repeated
LEAST_DEVIATION = 0.1  # of a code's dimension: one that M1 does not use stays small
LATENT_DIM = 10  # of M2, beside the class
LEAST_CLASSES = 4  # that M2 is compiled for
NEVER = -1e4  # the logit of a class that does not exist
LENGTH = Length(epochs=100, least=250, most=4_000)  # of M2's training


class VAEClassifier(ClassifierMixin, RowsEstimator):
    """Classifies rows by few labels and the distribution of all rows: M1+M2.

    M1 is a VAE of all rows, those without a label among them. M2 is a VAE of its codes
    whose class is a latent variable where the label is unknown, and a classifier
    q(y|code), which predicts. As in `sklearn.semi_supervised`, the label -1 stands for
    none; with labels that are texts, of the type object, too.

        known = np.where(np.arange(len(labels)) % 5 == 0, labels, -1)
        VAEClassifier(random_state=0).fit(rows, known).predict(others)

    Args:
      n_components: D, latent dimensions of M1.
      hidden_layer_sizes: widths of the hidden layers of all networks.
      alpha: weight of the classification loss in M2.
      beta: weight of the KL divergence of M1.
      learning_rate: of Adam, at its highest; it falls to 0 along a cosine.
      max_epochs: passes over the rows, of M1 and of M2; see `VAETransformer`.
      validation_fraction: share of the rows that ends M1 early; see `VAETransformer`.
      image_shape: of images that rows hold; see `VAETransformer`.
      encoder: kind of M1's networks; see `VAETransformer`.
      random_state: of initialization, batches and draws.

    Attributes:
      classes_: labels in ascending order, without -1.
      vae_: M1, a `flaxvae.estimators.rows.RowsVAE`.
      m2_: the model of its codes and the labels.
      n_iter_: passes over the rows of M1.
      n_features_in_: F.

    Source: Kingma et al., "Semi-supervised Learning with Deep Generative Models", 2014,
    arXiv 1406.5298.
    """

    def __init__(
        self,
        n_components: int = 16,
        *,
        hidden_layer_sizes: Sequence[int] = (128,),
        alpha: float = 1.0,
        beta: float = 1.0,
        learning_rate: float = 3e-3,
        max_epochs: int | None = None,
        validation_fraction: float = 0.1,
        image_shape: Sequence[int] | None = None,
        encoder: Encoder = "mlp",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            n_components,
            hidden_layer_sizes=hidden_layer_sizes,
            beta=beta,
            learning_rate=learning_rate,
            max_epochs=max_epochs,
            validation_fraction=validation_fraction,
            image_shape=image_shape,
            encoder=encoder,
            random_state=random_state,
        )
        self.alpha = alpha

    def fit(self, X: object, y: object) -> "VAEClassifier":
        """Trains M1 on rows ``(N, F)``, then M2 with their labels ``(N,)``.

        Raises:
          InputError: a parameter out of range, or labels of fewer than two classes.
          NonFiniteError: a training has met a number that is not finite.
        """
        rows, labels = validate_data(
            self,
            X,
            y,
            dtype=FLOATS,
            ensure_all_finite="allow-nan" if self.image_shape is None else True,
            ensure_min_samples=2,
        )
        is_text = labels.dtype.kind in "US"
        known = np.full(len(rows), True) if is_text else labels != UNLABELLED
        if not known.any():
            raise InputError("y must have labels other than -1, got none")
        check_classification_targets(labels[known])
        self.classes_, numbers = np.unique(labels[known], return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                "y must have labels of two classes or more, got one class, "
                f"{self.classes_[0]}"
            )
        seed = draw_seed(self.random_state)
        self._fit_vae(rows, seed)
        config = M2Settings(
            hidden=self.vae_.network.config.hidden or (),
            alpha=self.alpha,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
        )
        codes = self.vae_.encode(rows)
        self.m2_ = fit_m2(codes, np.flatnonzero(known), numbers, config, seed)
        return self

    def predict_proba(self, X: object) -> np.ndarray:
        """q(y|code), ``(N, Y)``, in the order of ``classes_``."""
        check_is_fitted(self)
        return self.m2_.probabilities(self.vae_.encode(self._check_rows(X)))

    def predict(self, X: object) -> np.ndarray:
        """The most probable class of each row, ``(N,)``."""
        check_is_fitted(self)
        best: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return best


@dataclass(frozen=True, kw_only=True)
class M2Settings:
    """Model and training of M2; see `VAEClassifier`."""

    hidden: tuple[int, ...]
    alpha: float
    learning_rate: float
    max_epochs: int | None


@dataclass(frozen=True, eq=False)
class CodeClassifier:
    """M2 of the codes of a VAE.

    Attributes:
      network: of the model.
      variables: of the model, NumPy arrays.
      num_classes: Y; the network has more.
      mean: of the codes that it was trained on, ``(D,)``.
      std: likewise, `LEAST_DEVIATION` at least.
    """

    network: Network
    variables: VariableDict
    num_classes: int
    mean: np.ndarray
    std: np.ndarray

    def probabilities(self, codes: np.ndarray) -> np.ndarray:
        """q(y|code) of codes ``(N, D)``, ``(N, Y)`` float64."""
        seen = (codes - self.mean) / self.std
        logits = programs.apply(self.network, self.variables, _classify, seen)
        logits = logits[:, : self.num_classes]
        unscaled = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        shares: np.ndarray = unscaled / unscaled.sum(axis=1, keepdims=True)
        return shares


def fit_m2(
    codes: np.ndarray,
    labelled: np.ndarray,
    labels: np.ndarray,
    config: M2Settings,
    seed: int,
) -> CodeClassifier:
    """Trains M2.

    Args:
      codes: of all rows, ``(N, D)`` float32.
      labelled: numbers of the rows that have labels, ``(L,)``.
      labels: their classes, ``(L,)``, from 0.
      config: model and training.
      seed: of all randomness.
    """
    N, D = codes.shape
    vae = VAEConfig(
        latent_dim=LATENT_DIM,
        hidden=config.hidden,
        likelihood="normal",
        conditional=True,
    )
    num_classes = int(labels.max()) + 1
    network = Network((D,), vae, num_classes=_round_up(num_classes, LEAST_CLASSES))
    mean, std = codes.mean(axis=0), np.maximum(codes.std(axis=0), LEAST_DEVIATION)
    fitted = CodeClassifier(network, {}, num_classes, mean, std)
    seen = (codes - mean) / std
    size = _round_up(len(labelled), LABELLED_EXAMPLES)
    rng = np.random.default_rng(seed)
    repeats = -(-size // len(labelled))
    every = np.tile(np.arange(len(labelled)), (repeats, 1))
    chosen = rng.permuted(every, axis=1).ravel()[:size]
    steps = LENGTH.steps(N, config.max_epochs)
    objective = M2(
        x=jnp.asarray(seen[labelled[chosen]]),
        labels=jnp.asarray(labels[chosen], jnp.int32),
        alpha=config.alpha,
    )
    trained = programs.train(
        Recipe(network, num_labelled=size),
        objective,
        lambda numbers: seen[numbers],
        N,
        steps=steps,
        learning_rate=config.learning_rate,
        seed=seed,
        begin=functools.partial(_without_classes, num_classes),
    )
    return dataclasses.replace(fitted, variables=trained.variables)


def _round_up(count: int, least: int) -> int:
    """One of few sizes, so that programs are shared: ``least`` times a power of 2."""
    return int(least * 2 ** max(0, math.ceil(math.log2(count / least))))


def _without_classes(num_classes: int, params: VariableDict) -> VariableDict:
    """Parameters of M2 with q(y|code) = 0 for classes that do not exist.

    Their bias has no gradient, and so stays as it is.
    """
    flat = flatten_dict(dict(params), sep="/")
    bias = flat["classifier/logits/bias"]
    flat["classifier/logits/bias"] = bias.at[num_classes:].set(NEVER)
    return unflatten_dict(flat, sep="/")


def _classify(model: programs.Classifies, x: jax.Array, *, key: jax.Array) -> jax.Array:
    return model(x)
