"""Which latent dimensions a model uses."""

import numpy as np

from flaxvae.training.diagnostics import ACTIVE_VARIANCE

COLLAPSED_SHARE = 0.1  # of the dimensions that are active
COLLAPSED_KL = 0.1  # nats per example


def active_units(mean: np.ndarray) -> np.ndarray:
    """Marks the latent dimensions whose posterior mean depends on the example.

    A dimension is active if Var_x(E_q[z|x]) > 0.01.

    Args:
      mean: posterior means of many examples, ``(N, D)``.

    Returns:
      ``(D,)`` booleans.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2015,
    arXiv 1509.00519, section 5.2.
    """
    return np.var(np.asarray(mean), axis=0) > ACTIVE_VARIANCE


def explain_collapse(active: np.ndarray, kl: float) -> str | None:
    """One line about a posterior that ignores its examples, or None.

    Args:
      active: see `active_units`.
      kl: of posterior from prior, in nats per example.

    Returns:
      What has collapsed, and the usual remedies, where fewer than a tenth of the
      dimensions are active or the KL is below 0.1 nats.
    """
    count, D = int(np.sum(active)), len(active)
    if count >= COLLAPSED_SHARE * D and kl >= COLLAPSED_KL:
        return None
    return (
        f"the posterior has collapsed: {count} of {D} dimensions are active, the KL is "
        f"{kl:.2f} nats; a lower beta, a warm-up of it (kl_schedule linear or "
        "cyclical), free_bits, more epochs or a weaker decoder may help"
    )
