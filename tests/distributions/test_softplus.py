"""The softplus function against double precision."""

import jax
import numpy as np

from flaxvae.distributions.softplus import softplus

X = np.concatenate(
    [np.linspace(-80, 80, 200_001), np.linspace(-1, 1, 50_001), [3e38, -3e38]]
).astype(np.float32)


def test_values_are_right_to_the_last_bits_however_small():
    expected = np.logaddexp(0.0, X.astype(np.float64))
    np.testing.assert_allclose(jax.jit(softplus)(X), expected, rtol=4e-7, atol=1e-37)


def test_derivatives_are_sigmoids():
    x = X.astype(np.float64)
    first = jax.jit(jax.vmap(jax.grad(softplus)))(X)
    expected = np.exp(-np.logaddexp(0.0, -x))
    np.testing.assert_allclose(first, expected, rtol=2e-6, atol=1e-37)
    second = jax.jit(jax.vmap(jax.grad(jax.grad(softplus))))(X)
    np.testing.assert_allclose(second, expected * (1 - expected), rtol=1e-5, atol=1e-6)
