"""The prior over a VQ-VAE's codes, and draws from it."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.latent.samplers import CodeSampler
from flaxvae.models import CodePrior
from flaxvae.models.bind import bind
from flaxvae.objectives import Autoregressive
from flaxvae.training import Trained
from tests.random_variables import random_variables


@functools.partial(jax.jit, static_argnums=0)
def apply(prior, variables, *codes):
    return prior.apply(variables, *codes)


def draw_indices(*shape):
    return np.random.default_rng(0).integers(0, 8, shape, np.int32)


def change(indices, place):
    changed = indices.copy()
    changed[:, place] = (changed[:, place] + 1) % 8
    return changed


def test_the_prior_sees_only_what_came_before():
    prior = CodePrior(8, columns=3, width=16, num_layers=2, num_heads=2)
    indices = draw_indices(2, 6)
    variables = random_variables(prior, indices)
    before = apply(prior, variables, indices)
    after = apply(prior, variables, change(indices, 3))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_the_priors_input_is_what_stands_left_and_above():
    """Without layers an entry reaches the right, and below left, straight and right."""
    prior = CodePrior(8, columns=4, width=16, num_layers=0)
    indices = draw_indices(1, 16)
    variables = random_variables(prior, indices)
    before = np.asarray(apply(prior, variables, indices))
    after = np.asarray(apply(prior, variables, change(indices, 5)))
    changed = np.abs(before - after).max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(changed), [6, 8, 9, 10])


def test_the_priors_loss_is_the_log_probability_of_the_code(key):
    prior = CodePrior(8, columns=2, width=16, num_layers=1, num_heads=2)
    indices = draw_indices(3, 2, 2)
    x = np.float32(indices / 7)[..., None]
    variables = random_variables(prior, x, key=key, method=Autoregressive())

    def both(prior):
        loss = Autoregressive()(prior, x, key=key)["loss"]
        return loss, prior(indices.reshape(3, 4))

    loss, logits = jax.jit(lambda v: prior.apply(v, method=both))(variables)
    p = softmax(np.float64(logits), -1)
    for b in range(3):
        expected = -sum(np.log(p[b, t, indices[b].ravel()[t]]) for t in range(4))
        assert loss[b] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", [None, 1])
def test_codes_are_drawn_with_the_priors_probabilities(key, label):
    """Two places of three entries: all nine codes, against the product of softmaxes."""
    Y = None if label is None else 2
    prior = CodePrior(3, columns=2, num_classes=Y, width=8, num_layers=2, num_heads=2)
    every = np.array([[a, b] for a in range(3) for b in range(3)], np.int32)
    labels = None if label is None else np.full(9, label, np.int32)
    variables = random_variables(prior, every, labels)
    p = softmax(np.float64(apply(prior, variables, every, labels)), -1)
    expected = np.take_along_axis(p, every[..., None], axis=-1).prod((1, 2))  # (9,)
    assert expected.sum() == pytest.approx(1.0, rel=1e-5)

    def look_up(variables, indices, method):
        return indices[..., None].astype(jnp.float32)

    model = SimpleNamespace(
        code_shape=(1, 2, 1), variables={}, model=SimpleNamespace(apply=look_up)
    )
    trained = Trained(prior, variables, (1, 2, 1))
    N = 6000
    z = CodeSampler(trained, model, label).sample(key, (N,))
    assert z.shape == (N, 1, 2, 1)
    drawn = np.asarray(z)[:, 0, :, 0].astype(int) @ [3, 1]
    found = np.bincount(drawn, minlength=9) / N
    error = np.sqrt(expected * (1 - expected) / N)
    np.testing.assert_array_less(np.abs(found - expected), 4 * error + 1e-9)


def test_classes_of_codes_are_drawn_evenly_unless_they_are_set(key):
    """A prior whose only entry is that of the class, from large numbers put in it."""
    prior = CodePrior(3, columns=1, num_classes=3, width=8, num_layers=1)
    code, classes = np.zeros((1, 1), np.int32), np.zeros(1, np.int32)
    params = jax.tree.map(
        np.zeros_like, random_variables(prior, code, classes)["params"]
    )
    params["1_back"]["embedding"] = np.eye(6, 8, dtype=np.float32) * 9
    params["end"]["scale"] = np.ones(8, np.float32)
    params["logits"]["kernel"] = np.eye(8, 3, -3, dtype=np.float32) * 9
    look_up = SimpleNamespace(apply=lambda variables, i, method: i[..., None])
    model = SimpleNamespace(code_shape=(1, 1, 1), variables={}, model=look_up)
    trained = Trained(prior, {"params": params}, (1, 1, 1))

    def draw(labels):
        sampler = CodeSampler(trained, model, labels)
        return np.asarray(sampler.sample(key, (900,))).ravel()

    np.testing.assert_allclose(np.bincount(draw(None)) / 900, 1 / 3, atol=0.07)
    classes = np.arange(900) % 3
    np.testing.assert_array_equal(draw(classes), classes)
    np.testing.assert_array_equal(draw(2), 2)
    with pytest.raises(InputError, match="labels must be classes from 0 to 2"):
        draw(3)


def test_a_code_and_its_class_share_a_probability(key):
    prior = CodePrior(8, columns=2, num_classes=4, width=16, num_layers=1, num_heads=2)
    indices = draw_indices(3, 2, 2)
    labels = np.array([0, 3, 1], np.int32)
    batch = Batch(np.float32(indices / 7)[..., None], condition=labels)

    def bound(prior, batch):
        return Autoregressive()(*bind(prior, batch), key=key)["loss"]

    variables = random_variables(prior, batch, method=bound)
    loss = jax.jit(lambda v: prior.apply(v, batch, method=bound))(variables)
    logits = apply(prior, variables, indices.reshape(3, 4), labels)
    p = np.take_along_axis(
        softmax(np.float64(logits), -1), indices.reshape(3, 4, 1), axis=-1
    )
    np.testing.assert_allclose(loss, np.log(4) - np.log(p).sum((1, 2)), rtol=1e-5)
    others = apply(prior, variables, indices.reshape(3, 4), (labels + 1) % 4)
    assert np.abs(logits - others).max(axis=(1, 2)).min() > 1e-3


def test_classes_are_required_by_a_class_conditional_prior_only(key):
    indices = jnp.zeros((1, 4), int)
    with pytest.raises(InputError, match="codes must have classes for this prior"):
        CodePrior(8, columns=2, num_classes=2).init(key, indices)
    with pytest.raises(InputError, match="codes must have no classes for this prior"):
        CodePrior(8, columns=2).init(key, indices, jnp.zeros(1, int))
