"""The cross-entropy of classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.models.bind import Labelled
from flaxvae.models.data_spec import Data
from flaxvae.objectives.objective import Objective, Terms
from flaxvae.objectives.requirements import check_one_level


class Classification(Objective):
    """Minus the log-probability of each example's class.

    The model is a `flaxvae.models.Classifier` with the ``labels`` of the batch; see
    `flaxvae.models.bind`.

    Terms: ``loss``, nats per example, and ``accuracy``, 0 or 1; each ``(B,)``. Early
    stopping compares ``loss``.
    """

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must be a classifier."""
        check_one_level(model, "classification")

    def __call__(self, classifier: Labelled, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`; ``key`` is not used."""
        del key
        labels = classifier.labels
        log_p = jax.nn.log_softmax(classifier(x))
        loss = -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
        right = (log_p.argmax(axis=-1) == labels).astype(loss.dtype)
        return {"loss": loss, "accuracy": right}
