"""The latent dimensions that a model uses."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaxvae.data import Split
from flaxvae.data.dataset import check_examples
from flaxvae.latent.encode import encode_split
from flaxvae.training import Trained
from flaxvae.training.diagnostics import are_active
from flaxvae.training.trained import Posterior

COLLAPSED_SHARE = 0.1  # of the dimensions that are active
COLLAPSED_KL = 0.1  # nats per example


def active_units(
    trained: Trained,
    split: Split,
    *,
    seed: int | None = None,
    q: Posterior | None = None,
) -> np.ndarray:
    """Marks the latent dimensions whose posterior mean depends on the example.

    A dimension is active if Var_x(E_q[z|x]) > 0.01, a (weighted) variance.

    >>> import flaxvae
    >>> data = flaxvae.data.from_arrays(np.random.default_rng(0).random((80, 3)))
    >>> vae = flaxvae.models.build_vae(data.shape, latent_dim=4, hidden=(8,))
    >>> trained = flaxvae.training.fit(
    ...     vae, data, epochs=1, batch_size=40, progress=False
    ... )
    >>> active_units(trained, data.train).shape
    (4,)

    Args:
      trained: a trained model whose code is a vector.
      split: examples, such as ``dataset.test``.
      seed: of binarization and dequantization, which are those of the ELBO that
        `flaxvae.evaluation.evaluate` reports; default that of the run.
      q: q(z|x) of the split under the same seed, where it is known.

    Returns:
      ``(D,)`` booleans.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, section 5.2.
    """
    check_examples(split)
    q = encode_split(trained, split, seed=seed) if q is None else q
    means = np.asarray(q.mean)
    if split.weights is None:
        return are_active(np.var(means, axis=0))
    center = np.average(means, axis=0, weights=split.weights)
    return are_active(np.average((means - center) ** 2, axis=0, weights=split.weights))


def count_active_units(
    trained: Trained,
    split: Split,
    *,
    seed: int | None = None,
    q: Posterior | None = None,
) -> int:
    """The number of active latent dimensions; see `active_units`."""
    return int(active_units(trained, split, seed=seed, q=q).sum())


def explain_collapse(report: Mapping[str, Any], name: str = "test") -> str | None:
    """One line about a posterior that ignores its examples, or None.

    Args:
      report: of a VAE, as `evaluate` returns it.
      name: of the split in it.

    Returns:
      What has happened, and the usual remedies, where fewer than a tenth of the
      dimensions are active or the KL is below 0.1 nats. Of a model with several levels
      whose dimensions have no KL of their own, the KL alone decides.
    """
    count, D = report.get("active_dimensions"), report["latent_dim"]
    kl = report[name]["kl"]
    if count is None and "kl_per_level" not in report[name]:
        return None
    is_inactive = count is not None and count < COLLAPSED_SHARE * D
    if not is_inactive and kl >= COLLAPSED_KL:
        return None
    found = "codes say almost nothing about examples"
    if is_inactive:
        found = "the posterior has collapsed"
    found = f"{found}: the KL is {kl:.2f} nats"
    if D == 1:
        found += f", its only dimension is {'active' if count else 'not active'}"
    elif count is not None:
        found += f", {count} of {D} dimensions {'is' if count == 1 else 'are'} active"
    return (
        f"{found}; a lower beta, a warm-up of beta (kl_schedule linear or "
        "cyclical), free_bits, more epochs or a weaker decoder may help"
    )
