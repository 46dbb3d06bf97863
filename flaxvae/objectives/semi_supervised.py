"""Few labels and many examples: the bound of M2, classes summed out."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.capabilities import ModelTraits
from flaxvae.checks import InputError
from flaxvae.collectives import replicated
from flaxvae.models.data_spec import Data
from flaxvae.nn.conditions import check_conditions
from flaxvae.objectives.elbo import ELBO
from flaxvae.objectives.objective import (
    BoundVAE,
    Completed,
    Objective,
    Terms,
    Weight,
    static,
)
from flaxvae.objectives.requirements import check_one_level
from flaxvae.settings import setting

Draw = Callable[[jax.Array, jax.Array], jax.Array]


class BoundM2(Protocol):
    """What `M2` sees: a classifier, and a VAE under the classes that it is given."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of q(y|x), ``(B, Y)``."""

    def given(self, labels: jax.Array) -> BoundVAE:
        """The VAE under the class ``(B,)`` of each example."""


class M2(Objective):
    """The bounds of unlabelled and labelled examples, and the classifier's error.

    With L(x, y) = -ELBO(x|y) - log p(y) and a uniform p(y), the loss of an unlabelled
    example is U(x) = sum_y q(y|x) L(x, y) - H(q(y|x)), over all classes. Labelled
    examples add the means labelled_weight E[L(x, y)] + alpha E[-log q(y|x)] to the loss
    of the batch. The model is a `flaxvae.models.SemiSupervisedVAE`; every class of an
    example has a draw of its own.

    Terms: ``loss``; ``elbo`` (-U), its ``log_likelihood`` and ``kl`` (which includes
    that of the classes), of the unlabelled examples; ``classification_loss`` and
    ``accuracy`` of the labelled ones, their means; each ``(B,)``. Early stopping
    compares ``elbo``: in the validation loss, too, the labelled examples are those of
    the training.

    Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised Learning with Deep
    Generative Models", 2014, arXiv 1406.5298, equations 6 to 9.

    Raises:
      InputError: another number of labels than of labelled examples.
    """

    monitor: ClassVar[str] = "elbo"

    x: jax.Array = setting(None)
    """Labelled examples, (L, ...): integers as the data set stores them, or floats as
    the model sees them, such as standardized columns and images in [0, 1]."""
    labels: jax.Array = setting(None)
    """Their classes, (L,) integers."""
    alpha: Weight = setting(1.0, at_least=0)
    """Weight of the classifier's cross-entropy, for a labelled example."""
    labelled_weight: Weight = setting(0.1, at_least=0)
    """Weight of the labelled examples' bound: their share of all examples."""
    feedback: Weight = setting(1.0, at_least=0)
    """Share of the gradient of U that reaches the classifier. Raised from 0 by a
    schedule, it lets the labels define the classes first."""
    batch_size: int = static(100, at_least=1)
    """Labelled examples that a step draws, with replacement; all, if there are not
    more."""
    preprocess: Draw | None = static(None, from_data=True)
    """From x and a key to the model's input, anew in each step; None: read from the
    data, where binarization or dequantization is drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.x is None or self.labels is None:
            raise InputError("x and labels must be set: M2 needs labelled examples")
        if len(self.x) != len(self.labels):
            raise InputError(
                f"labels must be one for each of the {len(self.x)} examples of x, got "
                f"{len(self.labels)}"
            )

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def complete(self, model: nn.Module, dataset: Data) -> Completed:
        """Labelled examples are scaled, binarized and dequantized as the others are."""
        of_data, dtype = dataset.preprocessing, np.asarray(self.x).dtype
        if self.preprocess is not None:
            return Completed(self, model)
        if not of_data.has_draws(dtype):
            if dtype.kind not in "iu":
                return Completed(self, model)
            seen = of_data(jnp.asarray(self.x), jax.random.key(0))  # draws nothing
            return Completed(dataclasses.replace(self, x=seen), model)
        draws = dataclasses.replace(of_data, render=None, schema=None)
        return Completed(dataclasses.replace(self, preprocess=draws), model)

    def check(self, model: nn.Module, dataset: Data) -> None:
        """Labelled examples must be like the data's, and of the model's classes."""
        check_one_level(model, "m2")
        num_classes = getattr(model.condition, "num_classes", None)
        if num_classes is None:
            raise InputError(
                "the VAE must be conditional on classes for the objective m2"
            )
        found = ModelTraits.of(model.classifier).num_classes
        if found not in (None, num_classes):
            raise InputError(
                f"the classifier must have {num_classes} classes, those of the VAE's "
                f"condition, for the objective m2, got {found}"
            )
        check_conditions(self.labels, num_classes=num_classes, name="labels")
        if np.asarray(self.labels).dtype.kind not in "iu":
            raise InputError(
                f"labels must be integers, got {np.asarray(self.labels).dtype}"
            )
        if tuple(np.shape(self.x)[1:]) != dataset.shape:
            raise InputError(
                f"x must have the shape (L, {str(dataset.shape)[1:]}, got "
                f"{np.shape(self.x)}"
            )

    def __call__(self, model: BoundM2, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        key_rows, key = jax.random.split(key)
        labelled, labels = jnp.asarray(self.x), jnp.asarray(self.labels)
        if len(labels) > self.batch_size:
            rows = jax.random.randint(
                key_rows, (self.batch_size,), 0, len(labels), jnp.int32
            )
            labelled, labels = labelled[rows], labels[rows]

        key_u, key_l = jax.random.split(key)
        logits = model(x)  # (B, Y)
        passed = self.feedback * logits
        logits = passed + (1 - self.feedback) * jax.lax.stop_gradient(logits)
        log_q_y = jax.nn.log_softmax(logits)
        B, Y = log_q_y.shape
        q_y = jnp.exp(log_q_y)

        # All classes of an example: one batch of B Y rows, example by example, so that
        # a part of the examples is a part of the rows.
        classes = jnp.tile(jnp.arange(Y, dtype=jnp.int32), B)
        repeated = jnp.repeat(x, Y, axis=0, total_repeat_length=B * Y)
        elbo = ELBO()
        every = elbo(model.given(classes), repeated, key=key_u)
        expected = {
            name: (q_y * every[name].reshape(B, Y)).sum(-1)
            for name in ("log_likelihood", "kl")
        }
        # KL of q(y|x) from the uniform p(y).
        kl_y = (q_y * (log_q_y + jnp.log(float(Y)))).sum(-1)
        kl = expected["kl"] + kl_y
        bound = expected["log_likelihood"] - kl

        with replicated():
            if self.preprocess is not None:
                labelled = self.preprocess(labelled, jax.random.fold_in(key_rows, 2))
            log_q_l = jax.nn.log_softmax(model(labelled))
            known = elbo(model.given(labels), labelled, key=key_l)["elbo"].mean()
        cross_entropy = -jnp.take_along_axis(log_q_l, labels[:, None], axis=1).mean()
        right = (log_q_l.argmax(-1) == labels).mean(dtype=jnp.float32)
        known -= jnp.log(float(Y))
        supervised = self.alpha * cross_entropy - self.labelled_weight * known
        return {
            "loss": supervised - bound,
            "elbo": bound,
            "log_likelihood": expected["log_likelihood"],
            "kl": kl,
            "classification_loss": jnp.full(B, cross_entropy),
            "accuracy": jnp.full(B, right),
        }
