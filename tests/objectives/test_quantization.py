"""How many entries of a codebook a batch uses."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.distributions import Normal
from flaxvae.objectives import Quantization


@jax.jit
def compute(indices, key):
    """The terms of two examples with these entries, of eight."""
    zeros = jnp.zeros(2)
    q = SimpleNamespace(
        mean=jnp.zeros((2, 2, 2, 1)),
        indices=indices,
        commitment=zeros,
        codebook_loss=zeros,
    )
    p = Normal(jnp.zeros((2, 4, 1, 1)), jnp.zeros((2, 4, 1, 1)), 3)
    model = SimpleNamespace(
        encode=lambda x: q,
        decode=lambda z: p,
        quantizer=SimpleNamespace(num_codes=8),
    )
    return Quantization()(model, jnp.zeros((2, 4, 1, 1)), key=key)


@pytest.mark.parametrize(
    ("indices", "counts"),
    [
        ([[0, 0, 0, 0], [0, 0, 0, 0]], [8]),
        ([[0, 0, 2, 0], [0, 0, 0, 4]], [6, 1, 1]),
        ([[4, 3, 2, 1], [0, 0, 3, 4]], [2, 1, 1, 2, 2]),
        ([[5, 1, 2, 3], [4, 7, 6, 0]], [1] * 8),
    ],
)
def test_an_entry_that_is_used_once_is_used(key, indices, counts):
    """``counts``: how often each entry is used that is used."""
    terms = compute(np.array(indices, np.int32).reshape(2, 2, 2), key)
    shares = np.array(counts) / 8
    np.testing.assert_allclose(terms["code_usage"], np.full(2, len(counts) / 8))
    perplexity = np.prod(shares**-shares)
    np.testing.assert_allclose(terms["perplexity"], np.full(2, perplexity), rtol=1e-5)
