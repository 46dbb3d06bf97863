import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from flaxvae.checks import InputError
from flaxvae.distributions import Categorical

LOGITS = np.random.default_rng(0).normal(size=(3, 2, 5))  # 3 examples of 2 pixels


def test_probabilities_mean_and_mode_are_scipys():
    x = np.float32([*np.ndindex(5, 5)]) / 4

    @jax.jit
    def compute(p):
        return jax.vmap(p.log_prob)(x), p.mean, p.mode

    log_p, mean, mode = compute(Categorical(LOGITS.astype(np.float32)))
    masses = special.softmax(LOGITS, axis=-1)
    for found, levels in zip(log_p, np.ndindex(5, 5), strict=True):
        expected = np.log(masses[:, 0, levels[0]] * masses[:, 1, levels[1]])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(mean, masses @ np.linspace(0, 1, 5), rtol=1e-5)
    np.testing.assert_array_equal(mode, LOGITS.argmax(-1) / 4)


def test_samples_have_the_probabilities(key):
    sample = jax.jit(lambda p: p.sample(key, (20_000,)))
    draws = np.asarray(sample(Categorical(LOGITS.astype(np.float32))))
    assert draws.shape == (20_000, 3, 2)
    expected = special.softmax(LOGITS, axis=-1)
    for i, j in np.ndindex(3, 2):
        counts = np.bincount(np.round(4 * draws[:, i, j]).astype(int), minlength=5)
        error = np.sqrt(expected[i, j] * (1 - expected[i, j]) / 20_000)
        np.testing.assert_array_less(abs(counts / 20_000 - expected[i, j]), 4 * error)


def test_another_event_shape_is_refused():
    with pytest.raises(InputError, match=r"\(3,\), got \(2,\)"):
        Categorical(jnp.asarray(LOGITS)).log_prob(jnp.zeros((3, 3)))
