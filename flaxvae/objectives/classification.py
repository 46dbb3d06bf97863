"""The cross-entropy of classes."""

from typing import Any

import jax
import jax.numpy as jnp

from flaxvae.objectives.objective import Terms


def classification(classifier: Any, x: jax.Array, *, key: jax.Array) -> Terms:
    """Minus the log-probability of each example's class.

    Args:
      classifier: a bound `flaxvae.models.Classifier`, given the labels.
      x: a batch, ``(B, ...)``.
      key: not needed.

    Returns:
      ``loss``, nats per example, and ``accuracy``, 0 or 1; each ``(B,)``.
    """
    del key
    labels = classifier.labels
    log_p = jax.nn.log_softmax(classifier(x))
    loss = -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    right = (log_p.argmax(axis=-1) == labels).astype(loss.dtype)
    return {"loss": loss, "accuracy": right}
