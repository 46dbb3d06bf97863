"""Which latent dimensions a model uses."""

import numpy as np

ACTIVE_VARIANCE = 0.01  # the paper's threshold


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
