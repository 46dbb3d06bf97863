"""Vector quantization: the loss of a VQ-VAE, and of the prior over its codes."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.collectives import gather_rows
from flaxvae.models.code_prior import CodePrior, GivenCodePrior
from flaxvae.models.data_spec import Data
from flaxvae.models.vqvae import VQVAE
from flaxvae.objectives.objective import Objective, Terms, Weight
from flaxvae.objectives.requirements import check_one_level
from flaxvae.settings import setting


class Quantization(Objective):
    """-log p(x|z) of the quantized code, with what ties features and codebook.

    loss = -log p(x|z) + commitment |z_e - sg(e)|^2 + codebook |sg(z_e) - e|^2, summed
    over the grid; the model is a `flaxvae.models.VQVAE`. The last term does nothing for
    a codebook of moving averages.

    Terms: ``loss`` and ``log_likelihood``, in nats per example; ``squared_error``, the
    mean over an example's entries; ``perplexity``, exp of the entropy of the codebook
    entries that the global batch uses, and ``code_usage``, the share of entries that it
    uses; each ``(B,)``. Early stopping compares ``log_likelihood``: the two distances
    grow with the features, and moving averages do not minimise the last one.

    Source: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation
    Learning", 2017, arXiv 1711.00937, equation 3.
    """

    monitor: ClassVar[str] = "log_likelihood"

    commitment: Weight = setting(0.25, at_least=0)
    """Weight of the features' distance from their entries."""
    codebook: Weight = setting(1.0, at_least=0)
    """Weight of the entries' distance from their features."""

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return True

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must have a codebook in place of levels."""
        check_one_level(model, "quantization")

    def __call__(self, model: VQVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`; ``key`` is not used."""
        del key
        q = model.encode(x)
        p = model.decode(q.mean)
        log_likelihood = p.log_prob(x)
        error = ((p.mean - x) ** 2).reshape(len(x), -1).mean(-1)
        loss = -log_likelihood + self.commitment * q.commitment
        loss = loss + self.codebook * q.codebook_loss
        M = model.quantizer.num_codes
        uses = jnp.bincount(gather_rows(q.indices).reshape(-1), length=M)
        shares = uses.astype(jnp.float32) / uses.sum().astype(jnp.float32)
        logs = jnp.log(jnp.maximum(shares, 1e-12))
        entropy = -jnp.where(uses > 0, shares * logs, 0.0)
        return {
            "loss": loss,
            "log_likelihood": log_likelihood,
            "squared_error": error,
            "perplexity": jnp.full(len(x), jnp.exp(entropy.sum())),
            "code_usage": jnp.full(len(x), (uses > 0).mean(dtype=jnp.float32)),
        }


class Autoregressive(Objective):
    """-log p(z) of codes, entry by entry; -log p(z, class) of codes with a class.

    The model is a `flaxvae.models.CodePrior`, an example a code ``(B, H', W', 1)`` with
    entry m of M stored as m / (M - 1).

    Terms: ``loss``, nats per code, and ``accuracy``, the share of entries that were the
    most probable ones; each ``(B,)``. Early stopping compares ``loss``.

    Source: van den Oord et al., "Neural Discrete Representation Learning", 2017, arXiv
    1711.00937, section 3.3.
    """

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must be a prior over codes."""
        check_one_level(model, "autoregressive")

    def __call__(
        self, prior: CodePrior | GivenCodePrior, x: jax.Array, *, key: jax.Array
    ) -> Terms:
        """See `Objective.__call__`; ``key`` is not used."""
        del key
        indices, logits = prior.logits(x)
        log_p = jax.nn.log_softmax(logits)  # (B, T, M)
        of_entry = jnp.take_along_axis(log_p, indices[..., None], axis=-1)[..., 0]
        right = (log_p.argmax(-1) == indices).mean(-1, dtype=jnp.float32)
        return {"loss": prior.class_nats - of_entry.sum(-1), "accuracy": right}
