"""Few labels and many examples: the bound of M2, classes summed out."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from flaxvae.objectives.elbo import Weight, elbo
from flaxvae.objectives.objective import Terms


@dataclass(frozen=True, eq=False)
class SemiSupervised:
    """`m2` with the labelled examples that each step draws some of.

    Attributes:
      x: labelled examples as the model sees them, ``(L, ...)``.
      labels: their classes, ``(L,)``.
      batch_size: how many a step draws, with replacement; all where L is not larger.
    """

    x: Any
    labels: Any
    batch_size: int = 100

    def __call__(
        self,
        model: Any,
        x: jax.Array,
        *,
        key: jax.Array,
        alpha: Weight = 1.0,
        labelled_weight: Weight = 0.1,
        feedback: Weight = 1.0,
    ) -> Terms:
        """See `m2`."""
        key_rows, key = jax.random.split(key)
        labelled, labels = jnp.asarray(self.x), jnp.asarray(self.labels)
        if len(labels) > self.batch_size:
            rows = jax.random.randint(key_rows, (self.batch_size,), 0, len(labels))
            labelled, labels = labelled[rows], labels[rows]
        return m2(
            model,
            x,
            labelled,
            labels,
            key=key,
            alpha=alpha,
            labelled_weight=labelled_weight,
            feedback=feedback,
        )


def m2(
    model: Any,
    x: jax.Array,
    labelled: jax.Array,
    labels: jax.Array,
    *,
    key: jax.Array,
    alpha: Weight = 1.0,
    labelled_weight: Weight = 0.1,
    feedback: Weight = 1.0,
) -> Terms:
    """The bounds of unlabelled and labelled examples, and the error of the classifier.

    With L(x, y) = -ELBO(x|y) - log p(y) and a uniform p(y), the loss of an unlabelled
    example is U(x) = sum_y q(y|x) L(x, y) - H(q(y|x)), over all classes; that of the
    batch adds, from labelled examples, the means labelled_weight E[L(x, y)] + alpha
    E[-log q(y|x)].

    Args:
      model: a bound `flaxvae.models.SemiSupervisedVAE`.
      x: unlabelled examples, ``(B, ...)``.
      labelled: labelled ones, ``(L, ...)``.
      labels: their classes, ``(L,)``.
      key: the PRNG key of the draws; every class of an example has a draw of its own.
      alpha: weight of the classifier's cross-entropy, in nats for a labelled example.
      labelled_weight: weight of the labelled examples' bound: their share of all.
      feedback: share of the gradient of U that reaches the classifier. Raised from 0
        by a schedule, it lets the labels say what the classes are before what is easy
        to generate does.

    Returns:
      ``loss``; ``elbo`` (-U), its ``log_likelihood`` and ``kl`` (which holds the
      classes' part too), of the unlabelled examples; ``classification_loss`` and
      ``accuracy`` of the labelled ones, their means; each ``(B,)``.

    Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised Learning with Deep
    Generative Models", 2014, arXiv 1406.5298, equations 6 to 9.
    """
    key_u, key_l = jax.random.split(key)
    logits = model(x)  # (B, Y)
    logits = feedback * logits + (1 - feedback) * jax.lax.stop_gradient(logits)
    log_q_y = jax.nn.log_softmax(logits)
    B, Y = log_q_y.shape
    q_y = jnp.exp(log_q_y)

    # All classes of an example: one batch of Y B rows, class by class.
    told = jnp.repeat(jnp.arange(Y), B, total_repeat_length=Y * B)
    every = elbo(model.given(told), jnp.concatenate([x] * Y), key=key_u)
    expected = {
        name: (q_y * every[name].reshape(Y, B).T).sum(-1)
        for name in ("log_likelihood", "kl")
    }
    # KL of q(y|x) from the uniform p(y).
    kl_y = (q_y * (log_q_y + jnp.log(float(Y)))).sum(-1)
    kl = expected["kl"] + kl_y
    bound = expected["log_likelihood"] - kl

    log_q_l = jax.nn.log_softmax(model(labelled))
    cross_entropy = -jnp.take_along_axis(log_q_l, labels[:, None], axis=1).mean()
    right = (log_q_l.argmax(-1) == labels).mean()
    known = elbo(model.given(labels), labelled, key=key_l)["elbo"].mean()
    known -= jnp.log(float(Y))
    supervised = alpha * cross_entropy - labelled_weight * known
    return {
        "loss": supervised - bound,
        "elbo": bound,
        "log_likelihood": expected["log_likelihood"],
        "kl": kl,
        "classification_loss": jnp.full(B, cross_entropy),
        "accuracy": jnp.full(B, right),
    }
