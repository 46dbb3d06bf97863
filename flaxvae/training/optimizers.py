"""Optimizers whose learning rate is part of the state."""

import optax


def adam(learning_rate: float = 1e-3) -> optax.GradientTransformation:
    """Adam with its learning rate as an array in the optimizer's state.

    Changing the rate, or sweeping over it, then recompiles nothing.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv
    1412.6980.
    """
    constants = ("b1", "b2", "eps", "eps_root")
    return optax.inject_hyperparams(optax.adam, static_args=constants)(
        learning_rate=learning_rate
    )
