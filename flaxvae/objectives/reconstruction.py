"""Autoencoders: the reconstruction error, and penalties for a sparse code."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError
from flaxvae.collectives import gather_rows
from flaxvae.models import AutoencoderConfig
from flaxvae.models.data_spec import Data
from flaxvae.objectives.corruption import Corruption, corrupt
from flaxvae.objectives.objective import BoundVAE, Objective, Terms, Weight, static
from flaxvae.objectives.requirements import check_one_level, one_level
from flaxvae.schedules import warm_up
from flaxvae.settings import setting

ACTIVE = 1e-3  # an entry of a code above this, in absolute value, counts as active


class Reconstruction(Objective):
    """-log p(x | code of x), of a clean or a corrupted x, with penalties on the code.

    loss = -log p(x|z) + l1 sum_d |z_d| + rate_weight sum_d KL(rate || mean of z_d), the
    last between Bernoulli distributions, the mean over the global batch. The code is
    the mean of ``encode(x)``: of a VAE the posterior's. A denoising autoencoder encodes
    a corrupted x; its reconstruction is compared with the clean one.

    >>> Reconstruction(corruption="masking", noise=0.3).noise
    0.3

    Terms: ``loss`` and ``log_likelihood``, in nats per example; ``squared_error``, the
    mean over an example's entries that are not missing; ``activity``, the share of the
    code above 0.001 in absolute value, and ``magnitude``, its mean absolute value; each
    ``(B,)``. Early stopping compares ``loss``: the clean x given the corrupted one, and
    the penalties.

    Source: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010; the rate: Ng,
    "Sparse autoencoder", CS294A lecture notes, 2011.

    Raises:
      InputError: a share of noise above 1.
    """

    l1: Weight | None = setting(None, at_least=0)
    """Weight of the sum of the code's absolute values."""
    rate_weight: Weight | None = setting(None, at_least=0)
    """Weight of the divergence from the target rate, for codes in (0, 1)."""
    rate: Weight = setting(0.05, above=0, below=1)
    """Target mean of each entry of the code, in (0, 1)."""
    corruption: Corruption = static("none")
    """Noise that the encoder sees its input with; see `corrupt`."""
    noise: Weight = setting(0.5, at_least=0)
    """Strength of the noise: standard deviation (gaussian), or share of the entries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_share = self.corruption in ("masking", "salt_and_pepper")
        if is_share and isinstance(self.noise, int | float) and self.noise > 1:
            raise InputError(
                f"noise must be <= 1, a share, for the corruption {self.corruption}, "
                f"got {self.noise}"
            )

    @property
    def has_batch_terms(self) -> bool:
        """See `Objective.has_batch_terms`."""
        return self.rate_weight is not None

    def check(self, model: nn.Module, dataset: Data) -> None:
        """The model must have one level."""
        check_one_level(model, "reconstruction")

    def __call__(self, model: BoundVAE, x: jax.Array, *, key: jax.Array) -> Terms:
        """See `Objective.__call__`."""
        seen = corrupt(x, key=key, kind=self.corruption, strength=self.noise)
        z = one_level(model.encode(seen), "reconstruction").mean  # (B, D)
        p = model.decode(z)
        log_likelihood = p.log_prob(x)
        loss = -log_likelihood
        if self.l1 is not None:
            loss += self.l1 * jnp.abs(z).sum(-1)
        if self.rate_weight is not None:
            rate, mean = self.rate, gather_rows(z).mean(0)  # (D,)
            mean = jnp.clip(mean, 1e-6, 1 - 1e-6)
            penalty = rate * jnp.log(rate / mean)
            penalty += (1 - rate) * jnp.log((1 - rate) / (1 - mean))
            loss += self.rate_weight * penalty.sum()
        known = ~jnp.isnan(x).reshape(len(x), -1)  # a missing number is NaN
        error = ((p.mean - x) ** 2).reshape(len(x), -1).sum(-1, where=known)
        return {
            "loss": loss,
            "log_likelihood": log_likelihood,
            "squared_error": error / jnp.maximum(known.sum(-1), 1),
            "activity": (jnp.abs(z) > ACTIVE).mean(-1, dtype=jnp.float32),
            "magnitude": jnp.abs(z).mean(-1),
        }


def autoencoder_objective(config: AutoencoderConfig) -> Reconstruction:
    """The objective of an autoencoder's kind.

    >>> autoencoder_objective(AutoencoderConfig(kind="sparse")).l1
    Schedule(value=1.0, kind='linear', epochs=None, share=0.5, cycles=4)

    Args:
      config: ``kind`` and what belongs to it. The penalty of a sparse code reaches its
        full weight (1 for ``"l1"``, 10 for ``"rate"`` with the target 0.05) linearly in
        half of the run: from the first step on it would silence most of the code for
        good. The noise of a denoising autoencoder is Gaussian, of strength 0.5.
    """
    weight = config.penalty_weight
    if config.kind == "sparse" and config.penalty == "rate":
        return Reconstruction(
            rate_weight=warm_up(10.0 if weight is None else weight, share=0.5),
            rate=0.05 if config.rate is None else config.rate,
        )
    if config.kind == "sparse":
        return Reconstruction(l1=warm_up(1.0 if weight is None else weight, share=0.5))
    if config.kind == "denoising":
        noise = 0.5 if config.noise is None else config.noise
        return Reconstruction(corruption=config.corruption or "gaussian", noise=noise)
    return Reconstruction()
