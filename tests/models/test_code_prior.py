"""The prior over a VQ-VAE's codes, and draws from it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.latent.samplers import CodeSampler
from flaxvae.models import CodePrior
from flaxvae.models.bind import bind
from flaxvae.objectives import Autoregressive
from flaxvae.training import Trained


def test_the_prior_sees_only_what_came_before(key):
    prior = CodePrior(8, columns=3, width=16, num_layers=2, num_heads=2)
    indices = jax.random.randint(key, (2, 6), 0, 8)
    variables = prior.init(key, indices)
    before = prior.apply(variables, indices)
    after = prior.apply(variables, indices.at[:, 3].set((indices[:, 3] + 1) % 8))
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_the_priors_input_is_what_stands_left_and_above(key):
    """Without layers an entry reaches the right, and below left, straight and right."""
    prior = CodePrior(8, columns=4, width=16, num_layers=0)
    indices = jax.random.randint(key, (1, 16), 0, 8)
    variables = prior.init(key, indices)
    before = prior.apply(variables, indices)
    after = prior.apply(variables, indices.at[:, 5].set((indices[:, 5] + 1) % 8))
    changed = np.abs(before - after).max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(changed), [6, 8, 9, 10])


def test_the_priors_loss_is_the_log_probability_of_the_code(key):
    prior = CodePrior(8, columns=2, width=16, num_layers=1, num_heads=2)
    indices = jax.random.randint(key, (3, 2, 2), 0, 8)
    x = (indices / 7.0)[..., None]
    variables = prior.init(key, x, key=key, method=Autoregressive())
    terms = prior.apply(variables, x, key=key, method=Autoregressive())
    logits = np.asarray(prior.apply(variables, indices.reshape(3, 4)), np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for b in range(3):
        expected = -sum(np.log(p[b, t, indices[b].ravel()[t]]) for t in range(4))
        assert terms["loss"][b] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", [None, 1])
def test_codes_are_drawn_with_the_priors_probabilities(key, label):
    """Two places of three entries: all nine codes, against the product of softmaxes."""
    Y = None if label is None else 2
    prior = CodePrior(3, columns=2, num_classes=Y, width=8, num_layers=2, num_heads=2)
    every = jnp.array([[a, b] for a in range(3) for b in range(3)])
    labels = None if label is None else jnp.full(9, label)
    variables = prior.init(key, every, labels)
    params = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    logits = prior.apply({"params": params}, every, labels)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), every[..., None], axis=-1)
    expected = np.exp(log_p[..., 0].sum(1))  # (9,)
    assert expected.sum() == pytest.approx(1.0, rel=1e-5)

    def look_up(variables, indices, method):
        return indices[..., None].astype(jnp.float32)

    model = SimpleNamespace(
        code_shape=(1, 2, 1), variables={}, model=SimpleNamespace(apply=look_up)
    )
    trained = Trained(prior, {"params": params}, (1, 2, 1))
    N = 6000
    z = CodeSampler(trained, model, label).sample(key, (N,))
    assert z.shape == (N, 1, 2, 1)
    drawn = np.asarray(3 * z[:, 0, 0, 0] + z[:, 0, 1, 0], int)
    found = np.bincount(drawn, minlength=9) / N
    error = np.sqrt(expected * (1 - expected) / N)
    np.testing.assert_array_less(np.abs(found - expected), 4 * error + 1e-9)


def test_classes_of_codes_are_drawn_evenly_unless_they_are_set(key):
    """A prior whose only entry is that of the class, from large numbers put in it."""
    prior = CodePrior(3, columns=1, num_classes=3, width=8, num_layers=1)
    params = prior.init(key, jnp.zeros((1, 1), int), jnp.zeros(1, int))["params"]
    params = jax.tree.map(jnp.zeros_like, params)
    params["1_back"]["embedding"] = 9.0 * jnp.eye(6, 8)
    params["end"]["scale"] = jnp.ones(8)
    params["logits"]["kernel"] = 9.0 * jnp.eye(8, 3, -3)
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
    indices = jax.random.randint(key, (3, 2, 2), 0, 8)
    labels = jnp.array([0, 3, 1])
    batch = Batch((indices / 7.0)[..., None], condition=labels)

    def bound(prior, batch):
        return Autoregressive()(*bind(prior, batch), key=key)

    variables = prior.init(key, batch, method=bound)
    loss = prior.apply(variables, batch, method=bound)["loss"]
    logits = prior.apply(variables, indices.reshape(3, 4), labels)
    log_p = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.reshape(indices, (3, 4, 1)), axis=-1
    )
    np.testing.assert_allclose(loss, -log_p.sum((1, 2)) + np.log(4), rtol=1e-5)
    others = prior.apply(variables, indices.reshape(3, 4), (labels + 1) % 4)
    assert np.abs(logits - others).max(axis=(1, 2)).min() > 1e-3


def test_classes_are_required_by_a_class_conditional_prior_only(key):
    indices = jnp.zeros((1, 4), int)
    with pytest.raises(InputError, match="codes must have classes for this prior"):
        CodePrior(8, columns=2, num_classes=2).init(key, indices)
    with pytest.raises(InputError, match="codes must have no classes for this prior"):
        CodePrior(8, columns=2).init(key, indices, jnp.zeros(1, int))
