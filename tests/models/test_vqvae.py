"""A VQ-VAE and the prior over its codes, on the common loop."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import flaxvae
from flaxvae.batch import Conditioned
from flaxvae.checks import InputError
from flaxvae.distributions import Normal
from flaxvae.latent import CodeSampler
from flaxvae.models import CodePrior, build_vqvae
from flaxvae.objectives import autoregressive, quantization
from flaxvae.objectives.objective import bind_conditions
from flaxvae.training import adam, fit
from flaxvae.training.program import make_program

SMALL = {"filters": (16, 16), "num_residual_blocks": 1, "num_codes": 16}


@pytest.fixture
def wide(stripes):
    """Stripes of 8 x 8 pixels."""

    def enlarge(split):
        x = np.repeat(np.repeat(split.x, 2, axis=1), 2, axis=2)
        return dataclasses.replace(split, x=x)

    splits = {n: enlarge(getattr(stripes, n)) for n in ("train", "validation", "test")}
    return dataclasses.replace(stripes, **splits)


@pytest.mark.parametrize(
    "quantizer", ["vq", pytest.param("fsq", marks=pytest.mark.slow)]
)
def test_training_lowers_the_error_and_a_folder_brings_it_back(
    wide, tmp_path, quantizer
):
    more = {"scale": "fixed", "init_scale": 0.1}
    model = build_vqvae(wide.shape, quantizer=quantizer, **SMALL, **more)
    trained = fit(
        model,
        wide,
        objective=quantization,
        optimizer=adam(3e-3),
        epochs=12,
        batch_size=30,
        workdir=tmp_path,
        progress=False,
    )
    first, *_, last = (line["validation"] for line in trained.history)
    assert last["squared_error"] < 0.7 * first["squared_error"]
    assert 1.0 < last["perplexity"] <= (16 if quantizer == "vq" else 1000)
    assert trained.code_shape[:2] == (2, 2)
    q = trained.encode(wide.test.x)
    by_number = trained.model.apply(trained.variables, q.indices, method="lookup")
    np.testing.assert_allclose(by_number, q.mean, atol=1e-5)
    loaded = flaxvae.load(tmp_path)
    both = [t.reconstruct(wide.test.x) for t in (trained, loaded)]
    np.testing.assert_array_equal(*both)


def test_terms_by_hand(key):
    """Of two examples with the entries 0, 0, 2, 0 and 2, 3, 3, 2 of four."""
    x = jax.random.uniform(key, (2, 4, 1, 1))
    q = SimpleNamespace(
        mean=jnp.zeros((2, 2, 2, 1)),
        indices=jnp.array([[[0, 0], [2, 0]], [[2, 3], [3, 2]]]),
        commitment=jnp.array([1.0, 2.0]),
        codebook_loss=jnp.array([10.0, 30.0]),
    )
    p = Normal(jnp.full((2, 4, 1, 1), 0.25), jnp.zeros((2, 4, 1, 1)), 3)
    model = SimpleNamespace(
        encode=lambda x: q,
        decode=lambda z: p,
        quantizer=SimpleNamespace(num_codes=4),
    )
    terms = quantization(model, x, key=key, commitment=3.0, codebook=0.5)
    log_p = stats.norm.logpdf(x, 0.25).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["log_likelihood"], log_p, rtol=1e-5)
    expected = -log_p + np.array([3.0 + 5.0, 6.0 + 15.0])
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)
    error = ((np.asarray(x) - 0.25) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["squared_error"], error, rtol=1e-5)
    entropy = stats.entropy([3 / 8, 3 / 8, 2 / 8])
    np.testing.assert_allclose(terms["perplexity"], np.exp(entropy), rtol=1e-5)
    np.testing.assert_allclose(terms["code_usage"], 3 / 4)


def test_the_codebook_begins_with_features_of_examples(wide):
    model = build_vqvae(wide.shape, **SMALL)
    program = make_program(model, wide, quantization, adam(1e-3), batch_size=30)
    variables = program.create(0, {}).state.variables
    codes = variables["codebook"]["quantizer"]["codes"]
    x = jnp.asarray(wide.train.x / 255.0)
    q = model.apply(variables, x, method="encode")
    z = q.mean  # of entries
    features = model.apply(
        variables, x, method=lambda m, x: m.quantizer.features(m.encoder(x))
    )
    spread = np.asarray(features).reshape(-1, z.shape[-1]).var(0).sum()
    assert q.commitment.mean() / 4 < 0.5 * spread  # four entries an example
    assert codes.shape == (16, 32)


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
    variables = prior.init(key, x, key=key, method=autoregressive)
    terms = prior.apply(variables, x, key=key, method=autoregressive)
    logits = np.asarray(prior.apply(variables, indices.reshape(3, 4)), np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for b in range(3):
        expected = -sum(np.log(p[b, t, indices[b].ravel()[t]]) for t in range(4))
        assert terms["loss"][b] == pytest.approx(expected, rel=1e-5)


def test_networks_without_a_grid_are_refused():
    with pytest.raises(InputError, match="must be conv or resnet"):
        build_vqvae((8, 8, 1), encoder="mlp")
    with pytest.raises(InputError, match="hidden must be left out"):
        build_vqvae((8, 8, 1), hidden=(4,))
    with pytest.raises(InputError, match="unknown quantizer 'pq'"):
        build_vqvae((8, 8, 1), quantizer="pq")


@pytest.mark.parametrize("label", [None, 1])
def test_codes_are_drawn_with_the_priors_probabilities(key, label):
    """Two places of three entries: all nine codes, against the product of softmaxes."""
    Y = None if label is None else 2
    prior = CodePrior(3, columns=2, num_classes=Y, width=8, num_layers=2, num_heads=2)
    every = jnp.array([[a, b] for a in range(3) for b in range(3)])
    told = None if label is None else jnp.full(9, label)
    variables = prior.init(key, every, told)
    params = jax.tree.map(lambda leaf: 3.0 * leaf, variables["params"])
    logits = prior.apply({"params": params}, every, told)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), every[..., None], axis=-1)
    expected = np.exp(log_p[..., 0].sum(1))  # (9,)
    assert expected.sum() == pytest.approx(1.0, rel=1e-5)

    def look_up(variables, indices, method):
        return indices[..., None].astype(jnp.float32)

    model = SimpleNamespace(
        code_shape=(1, 2, 1), variables={}, model=SimpleNamespace(apply=look_up)
    )
    trained = flaxvae.TrainedVAE(prior, {"params": params}, (1, 2, 1))
    N = 6000
    z = CodeSampler(trained, model, label).sample(key, (N,))
    assert z.shape == (N, 1, 2, 1)
    drawn = np.asarray(3 * z[:, 0, 0, 0] + z[:, 0, 1, 0], int)
    found = np.bincount(drawn, minlength=9) / N
    error = np.sqrt(expected * (1 - expected) / N)
    np.testing.assert_array_less(np.abs(found - expected), 4 * error + 1e-9)


def test_classes_of_codes_are_drawn_evenly_unless_they_are_told(key):
    """A prior whose only entry is that of the class, from large numbers put in it."""
    prior = CodePrior(3, columns=1, num_classes=3, width=8, num_layers=1)
    params = prior.init(key, jnp.zeros((1, 1), int), jnp.zeros(1, int))["params"]
    params = jax.tree.map(jnp.zeros_like, params)
    params["1_back"]["embedding"] = 9.0 * jnp.eye(6, 8)
    params["end"]["scale"] = jnp.ones(8)
    params["logits"]["kernel"] = 9.0 * jnp.eye(8, 3, -3)
    look_up = SimpleNamespace(apply=lambda variables, i, method: i[..., None])
    model = SimpleNamespace(code_shape=(1, 1, 1), variables={}, model=look_up)
    trained = flaxvae.TrainedVAE(prior, {"params": params}, (1, 1, 1))

    def draw(labels):
        sampler = CodeSampler(trained, model, labels)
        return np.asarray(sampler.sample(key, (900,))).ravel()

    np.testing.assert_allclose(np.bincount(draw(None)) / 900, 1 / 3, atol=0.07)
    told = np.arange(900) % 3
    np.testing.assert_array_equal(draw(told), told)
    np.testing.assert_array_equal(draw(2), 2)
    with pytest.raises(InputError, match="labels must be classes from 0 to 2"):
        draw(3)


def test_a_code_and_its_class_share_a_probability(key):
    prior = CodePrior(8, columns=2, num_classes=4, width=16, num_layers=1, num_heads=2)
    indices = jax.random.randint(key, (3, 2, 2), 0, 8)
    labels = jnp.array([0, 3, 1])
    x = Conditioned((indices / 7.0)[..., None], labels)
    bound = functools.partial(bind_conditions(autoregressive), key=key)
    variables = prior.init(key, x, method=bound)
    loss = prior.apply(variables, x, method=bound)["loss"]
    logits = prior.apply(variables, indices.reshape(3, 4), labels)
    log_p = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.reshape(indices, (3, 4, 1)), axis=-1
    )
    np.testing.assert_allclose(loss, -log_p.sum((1, 2)) + np.log(4), rtol=1e-5)
    others = prior.apply(variables, indices.reshape(3, 4), (labels + 1) % 4)
    assert np.abs(logits - others).max(axis=(1, 2)).min() > 1e-3


def test_classes_must_be_told_to_the_prior_that_knows_some(key):
    indices = jnp.zeros((1, 4), int)
    with pytest.raises(InputError, match="codes must have classes for this prior"):
        CodePrior(8, columns=2, num_classes=2).init(key, indices)
    with pytest.raises(InputError, match="codes must have no classes for this prior"):
        CodePrior(8, columns=2).init(key, indices, jnp.zeros(1, int))
