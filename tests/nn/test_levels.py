"""Networks of levels: densities, the ladder's product, gated layers, devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.distributions import Normal
from flaxvae.distributions.levels import Codes
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import BernoulliHead, StandardNormal
from flaxvae.nn.levels import DenseLayers, MLPLevels, level_terms, multiply
from flaxvae.nn.priors import TopVampPrior
from flaxvae.nn.top_down import TopDownLevels
from flaxvae.objectives import ELBO, IWAE
from flaxvae.training import Engine, fit, parallel
from tests.random_variables import random_variables

INFERENCES = ("bottom_up", "top_down", "ladder")
X = np.random.default_rng(0).random((5, 4, 4, 1)).astype(np.float32)


def build(inference="top_down", top=None, **options):
    options = {
        "latent_dims": (2, 3, 4),
        "hidden": (9,),
        "level_hidden": (6,),
        "activation": "tanh",
    } | options
    network = MLPLevels(output_shape=(4, 4, 1), inference=inference, **options)
    return HierarchicalVAE(network, top or StandardNormal(2), BernoulliHead())


def init(vae):
    """Its variables away from their start, where log-variances are zero."""
    return random_variables(vae, X, method=lambda vae, x: vae.encode(x).draw(None))


# Whether the decoder sees all levels does not depend on the inference; with all, their
# order matters.
@pytest.mark.parametrize(
    ("inference", "decoder_skip"),
    [*((inference, True) for inference in INFERENCES), ("top_down", False)],
)
def test_draws_given_codes_and_the_prior_agree(inference, decoder_skip, key):
    vae = build(inference, decoder_skip=decoder_skip)
    variables = init(vae)

    def method(vae):
        q, p = vae.encode(X), vae.prior()
        draws = q.draw(key, (2,))
        codes = Codes(draws.z.levels)
        both = vae.decode(draws), vae.decode(codes)
        given = p.sample(key, (2, 5), given=draws.z.levels[:2])
        # The codes of the first level are others.
        changed = Codes((draws.z.levels[0] + 1, *draws.z.levels[1:]))
        # And those of a draw, whose own output has been computed.
        replaced = dataclasses.replace(draws.z, levels=changed.levels)
        moved = vae.decode(changed), vae.decode(replaced)
        shifted = jax.tree.map(lambda z: z + 1.0, draws.z)
        moved_all = vae.decode(Codes(shifted.levels)), vae.decode(shifted)
        outputs = [[p.logits for p in pair] for pair in (both, moved, moved_all)]
        return draws, q.at(codes), p.log_prob(codes), given, outputs

    draws, again, log_p, given, outputs = jax.jit(
        lambda: vae.apply(variables, method=method)
    )()
    assert [z.shape for z in draws.z.levels] == [(2, 5, 2), (2, 5, 3), (2, 5, 4)]
    for name in ("log_q", "log_p", "kl"):
        first, second = getattr(draws, name), getattr(again, name)
        assert first.shape == (3, 2, 5)
        np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(log_p, draws.log_p.sum(0), rtol=1e-5)
    for first, second in outputs:
        np.testing.assert_allclose(first, second, atol=1e-6)
    for kept, z in zip(given.levels[:2], draws.z.levels, strict=False):
        np.testing.assert_array_equal(kept, z)
    for level, parts in enumerate(draws.kl_per_dimension):
        assert parts.shape == (2, 5, 2 + level)
        np.testing.assert_allclose(draws.kl[level], parts.sum(-1), atol=1e-4)
    # A code of one level moves the decoder's output only if it sees this level.
    (output, _), (moved, _), _ = outputs
    assert (np.abs(moved - output).max() > 1e-3) == decoder_skip


def test_the_ladder_multiplies_densities():
    """Against the product on a fine grid, normalized."""
    a, b = (0.7, 0.4), (-1.1, 1.5)  # means and variances
    grid = np.linspace(-15, 15, 300_001)
    product = stats.norm.pdf(grid, a[0], a[1] ** 0.5)
    product *= stats.norm.pdf(grid, b[0], b[1] ** 0.5)
    product /= product.sum()
    mean = product @ grid
    var = product @ (grid - mean) ** 2
    first, second = (
        Normal(np.float32([mean]), np.log(np.float32([var])), 1) for mean, var in (a, b)
    )
    product_of = jax.jit(multiply)
    for found in (product_of(first, second), product_of(second, first)):
        assert found.mean[0] == pytest.approx(mean, rel=1e-5)
        assert np.exp(found.log_var[0]) == pytest.approx(var, rel=1e-5)
    # One of no weight, as where a log-variance is at its bound.
    flat = Normal(np.float32([3.0]), np.float32([19.0]), 1)
    assert product_of(first, flat).mean[0] == pytest.approx(a[0], rel=1e-5)


def test_gated_layers_by_hand():
    layers = DenseLayers(widths=(3,), activation="glu")
    x = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    variables = random_variables(layers, x)
    dense = variables["params"]["hidden_0"]
    h = x @ dense["kernel"] + dense["bias"]  # (4, 6)
    expected = h[:, :3] / (1 + np.exp(-h[:, 3:]))
    found = jax.jit(layers.apply)(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("inference", ["top_down", "ladder"])
def test_a_vamp_prior_of_the_top_level_by_hand(inference, key):
    """The mixture of the top level's posteriors of the pseudo-inputs."""
    vae = build(inference, TopVampPrior(data_shape=(4, 4, 1), num_components=3))
    variables = init(vae)
    pseudo = np.clip(variables["params"]["top"]["pseudo_inputs"], 0, 1)

    @jax.jit
    def run():
        def moments(q):
            return q.mean, q.std

        def method(vae):
            draws = vae.encode(X).draw(key)
            codes = vae.prior().sample(key, (2000,)).levels[0]
            tops = [moments(vae.encode_top(x)) for x in (pseudo, X)]
            return draws, codes, *tops

        return vae.apply(variables, method=method)

    draws, codes, (mean, std), own = jax.device_get(run())
    z = np.asarray(draws.z.levels[0], "f8")
    each = stats.norm.logpdf(z[:, None], mean, std).sum(-1)  # (5, 3)
    expected = np.log(np.exp(each).mean(1))
    np.testing.assert_allclose(draws.log_p[0], expected, rtol=1e-4)
    log_q = stats.norm.logpdf(z, *own).sum(-1)
    np.testing.assert_allclose(draws.kl[0], log_q - expected, atol=1e-3)
    assert draws.kl_per_dimension[0] is None
    assert draws.kl_per_dimension[1].shape == (5, 3)
    kinds = np.linalg.norm(codes.mean(0) - mean.mean(0))
    spread = np.sqrt((np.var(mean, axis=0) + np.mean(std**2, axis=0)).sum())
    assert kinds < 4.5 * spread / np.sqrt(2000)


def test_a_vamp_prior_needs_inference_from_the_top(key):
    vae = build("bottom_up", TopVampPrior(data_shape=(4, 4, 1), num_components=3))
    with pytest.raises(InputError, match="inference must be top_down or ladder"):
        jax.eval_shape(lambda: vae.init(key, X, key=key, method=ELBO()))


# What is shared by devices is not the levels' own: test_parallel trains a ladder,
# test_batch_terms has free bits, test_top_down several draws.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("inference", "objective"),
    [("bottom_up", ELBO(free_bits=0.1)), ("ladder", IWAE(num_samples=2))],
)
def test_eight_devices_train_what_one_trains(
    inference, objective, stripes, monkeypatch
):
    monkeypatch.setattr(parallel, "visible_devices", jax.devices)
    vae = build(inference, latent_dims=(2, 3))

    def train(**options):
        run = fit(
            vae,
            stripes,
            objective=objective,
            epochs=2,
            batch_size=32,
            progress=False,
            engine=Engine(**options),
        )
        return run.history[-1]

    one = train(devices=1)
    for options in ({"devices": 8}, {"devices": 8, "parallel": "pmap"}):
        several = train(**options)
        # Where an example has one draw, the padding of 23 rows does not change it.
        held_out = ["validation"] if isinstance(objective, ELBO) else []
        for part in ("train", "codes", *held_out):
            for name, value in one[part].items():
                found = several[part][name]
                np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("inference", INFERENCES)
def test_levels_of_one_size_have_noise_of_their_own(inference, key):
    """Means of zero, variances of one: a draw is its noise."""
    vae = build(inference, latent_dims=(2, 2))
    variables = jax.tree.map(np.zeros_like, init(vae))

    def method(vae):
        return vae.encode(X[:1]).draw(key, (500,)).z, vae.prior().sample(key, (500,))

    drawn, of_prior = jax.jit(lambda: vae.apply(variables, method=method))()
    for codes in (drawn, of_prior):
        noise = np.concatenate([z.reshape(500, 2) for z in codes.levels], axis=1)
        correlation = np.corrcoef(noise.T)
        assert np.abs(correlation - np.eye(4)).max() < 0.25


def test_a_posterior_may_be_independent_of_the_levels_above():
    zeros = np.zeros((4, 2, 3), np.float32)
    q = Normal(np.ones((2, 3), np.float32), zeros[0], 1)  # of two examples
    p = Normal(zeros, zeros, 1)  # after four draws
    _, _, kl, parts = jax.jit(level_terms)(q, p, zeros)
    np.testing.assert_allclose(kl, np.full((4, 2), 1.5))
    np.testing.assert_allclose(parts, np.full((4, 2, 3), 0.5))


CONV = TopDownLevels(output_shape=(4, 4, 1), blocks=(1, 1), widths=4, latent_channels=2)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_codes_are_of_all_levels(network, key):
    """None is silently taken as its mean, or left out."""
    vae = build()
    if network == "conv":
        vae = HierarchicalVAE(CONV, StandardNormal(CONV.top_dim), BernoulliHead())
    variables = init(vae)
    L = vae.network.num_levels

    shapes = [(2,), (3,), (4,)] if network == "mlp" else [(2,), (4, 4, 2)]
    z = [np.zeros((2, 5, *shape), np.float32) for shape in shapes]

    def levels_of(vae, count, part):
        codes = Codes((*z, z[-1])[:count])
        if part == "posterior":
            return vae.encode(X).log_prob(codes)
        return vae.prior().log_prob(codes) if part == "prior" else vae.decode(codes)

    for part in ("posterior", "prior", "decoder"):
        for count in (L - 1, L, L + 1):

            def method(vae, count=count, part=part):
                return levels_of(vae, count, part)

            apply = functools.partial(vae.apply, method=method)
            if count == L:
                jax.eval_shape(apply, variables)
                continue
            with pytest.raises(InputError, match=rf"must (be|have) {L} .*got {count}"):
                jax.eval_shape(apply, variables)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_terms_of_one_level_have_the_axes_of_draws(network, key):
    vae = build(latent_dims=(2,))
    if network == "conv":
        one = CONV.clone(blocks=(1,))
        vae = HierarchicalVAE(one, StandardNormal(one.top_dim), BernoulliHead())
    variables = init(vae)

    def method(vae):
        return vae.encode(X).draw(key, (3,))

    draws = jax.eval_shape(functools.partial(vae.apply, method=method), variables)
    assert draws.kl.shape == draws.log_q.shape == draws.log_p.shape == (1, 3, 5)
    assert draws.kl_per_dimension[0].shape == (3, 5, 2)
