"""Vector quantization: the loss of a VQ-VAE, and of the prior over its codes."""

from typing import Any

import jax
import jax.numpy as jnp

from flaxvae.batch import sum_over_devices
from flaxvae.objectives.elbo import Weight
from flaxvae.objectives.objective import Terms


def quantization(
    model: Any,
    x: jax.Array,
    *,
    key: jax.Array,
    commitment: Weight = 0.25,
    codebook: Weight = 1.0,
) -> Terms:
    """-log p(x|z) of the quantized code, with what ties features and codebook.

    loss = -log p(x|z) + commitment |z_e - sg(e)|^2 + codebook |sg(z_e) - e|^2, summed
    over the grid. A codebook of moving averages takes no notice of the last term.

    Args:
      model: a bound `flaxvae.models.VQVAE`.
      x: a batch, ``(B, H, W, C)``.
      key: not needed.
      commitment: weight of the features' distance.
      codebook: weight of the entries' distance.

    Returns:
      ``loss`` and ``log_likelihood``, in nats per example; ``squared_error``, the mean
      over an example's numbers; ``perplexity``, exp of the entropy of the entries that
      the (global) batch uses, and ``code_usage``, the share of entries that it uses;
      each ``(B,)``.

    Source: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation
    Learning", 2017, arXiv 1711.00937, equation 3.
    """
    del key
    q = model.encode(x)
    p = model.decode(q.mean)
    log_likelihood = p.log_prob(x)
    error = ((p.mean - x) ** 2).reshape(len(x), -1).mean(-1)
    loss = -log_likelihood + commitment * q.commitment + codebook * q.codebook_loss
    M = model.quantizer.num_codes
    uses = sum_over_devices(jnp.bincount(q.indices.reshape(-1), length=M))
    shares = uses / uses.sum()
    entropy = -jnp.where(uses > 0, shares * jnp.log(jnp.maximum(shares, 1e-12)), 0.0)
    return {
        "loss": loss,
        "log_likelihood": log_likelihood,
        "squared_error": error,
        "perplexity": jnp.full(len(x), jnp.exp(entropy.sum())),
        "code_usage": jnp.full(len(x), (uses > 0).mean()),
    }


def autoregressive(prior: Any, x: jax.Array, *, key: jax.Array) -> Terms:
    """-log p(z) of codes, entry by entry; -log p(z, class) of codes that have a class.

    Args:
      prior: a bound `flaxvae.models.CodePrior`.
      x: codes as examples, ``(B, H', W', 1)``, entry m of M stored as m / (M - 1).
      key: not needed.

    Returns:
      ``loss``, nats per code, and ``accuracy``, the share of entries that were the most
      probable; each ``(B,)``.
    """
    del key
    indices, logits = prior.logits(x)
    log_p = jax.nn.log_softmax(logits)  # (B, T, M)
    of_entry = jnp.take_along_axis(log_p, indices[..., None], axis=-1)[..., 0]
    right = (log_p.argmax(-1) == indices).mean(-1)
    return {"loss": prior.class_nats - of_entry.sum(-1), "accuracy": right}
