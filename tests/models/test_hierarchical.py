"""Models with levels: what trains them, and what a trained one computes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae import objectives
from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.distributions.levels import Codes
from flaxvae.models import build_vae
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.models.variables import initialize_from_data
from flaxvae.nn import BernoulliHead, StandardNormal
from flaxvae.nn.levels import MLPLevels
from flaxvae.nn.priors import TopVampPrior
from flaxvae.objectives import ELBO
from flaxvae.training import Optimization, Training, fit
from tests.latent import untrained
from tests.random_variables import begin, random_variables

LABELLED = {"x": np.zeros((4, 4, 4, 1), np.float32), "labels": np.arange(4)}
REFUSED = {
    "tcvae": objectives.TCVAE(),
    "dip": objectives.DIPVAE(),
    "factor": objectives.FactorVAE(),
    "info": objectives.InfoVAE(),
    "wae": objectives.WAE(),
    "reconstruction": objectives.Reconstruction(),
    "quantization": objectives.Quantization(),
    "autoregressive": objectives.Autoregressive(),
    "classification": objectives.Classification(),
    "m2": objectives.M2(**LABELLED),
}


def build(inference="ladder", top=None):
    network = MLPLevels(
        output_shape=(4, 4, 1),
        latent_dims=(2, 3),
        hidden=(8,),
        level_hidden=(6,),
        inference=inference,
        activation="tanh",
    )
    return HierarchicalVAE(network, top or StandardNormal(2), BernoulliHead())


@pytest.mark.parametrize("name", REFUSED)
def test_objectives_of_one_level_are_refused_by_name(name, stripes):
    rule = f"one level of latent variables for the objective {name}, got Hierarchical"
    with pytest.raises(InputError, match=rule):
        fit(build(), stripes, objective=REFUSED[name], epochs=1, progress=False)


def test_objectives_see_the_levels_of_a_model_of_the_users_own(key):
    class Wrapped:
        def encode(self, x):
            return inner.encode(x)

        def decode(self, z):
            return inner.decode(z)

        def prior(self):
            return inner.prior()

        def critic(self, z):
            return z

    x = np.zeros((4, 4, 4, 1), np.float32)
    vae = build()
    inner = vae.bind(random_variables(vae, x, key=key, method=ELBO()))
    for name in ("tcvae", "dip", "factor", "info", "wae", "reconstruction"):
        objective = REFUSED[name]
        if name == "tcvae":
            objective = objectives.TCVAE(num_examples=9)
        with pytest.raises(InputError, match=f"objective {name}, got LevelPosterior"):
            objective(Wrapped(), x, key=key)


def test_pseudo_inputs_start_as_examples():
    vae = build("top_down", TopVampPrior(data_shape=(4, 4, 1), num_components=5))
    x = np.random.default_rng(0).random((7, 4, 4, 1), np.float32)
    before = random_variables(vae, x, method=lambda m, x: m.encode(x).draw(None))
    after = initialize_from_data(vae, before, lambda count: x[:count])
    np.testing.assert_array_equal(after["params"]["top"]["pseudo_inputs"], x[:5])
    assert after["params"]["network"] is before["params"]["network"]


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).integers(0, 2, (40, 4, 4, 1)).astype(np.uint8)
    x[::2, 1] = 1
    split = Split(x)
    return Dataset("bits", split[:30], split[30:], split[30:])


@pytest.fixture(scope="module", params=["ladder", "bottom_up"])
def trained(request, data):
    """A run with random parameters."""
    return untrained.as_run(build(request.param), data)


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@jax.jit
def mean_of(q):
    return q.mean.levels


@functools.partial(jax.jit, static_argnums=2)
def draw(q, key, shape=()):
    return q.draw(key, shape)


@jax.jit
def densities(q, key, z):
    """Of given codes and of a draw by level, and of a sample in all."""
    return q.at(z).log_q, q.draw(key).log_q, q.log_prob(q.sample(key))


@functools.partial(jax.jit, static_argnums=(0, 2))
def apply(model, variables, method, x):
    return getattr(model.bind(variables), method)(x)


def test_codes_of_a_trained_model(trained, data, monkeypatch):
    x = data.test.x
    assert trained.has_levels
    assert trained.level_shapes == ((2,), (3,))
    assert trained.latent_dim == 5
    with pytest.raises(InputError, match=r"level_shapes are \(2,\), \(3,\)"):
        trained.code_shape  # noqa: B018
    q = trained.encode(x)
    bound = functools.partial(apply, trained.model, trained.variables)
    expected, mean = bound("encode", np.asarray(x, np.float32)), mean_of(q)
    assert_close(mean, mean_of(expected))
    key = jax.random.key(1)
    assert_close(draw(q, key, (2,)), draw(expected, key, (2,)))
    assert_close(mean_of(trained.encode(x, key=key)), mean)
    monkeypatch.setattr("flaxvae.training.trained.CHUNK", 4)  # 10 = 4 + 4 + 2
    assert_close(mean_of(trained.encode(x)), mean)
    p = trained.decode(mean)
    whole = bound("decode", Codes(mean))
    for codes in (mean, list(mean), Codes(mean)):
        assert_close(trained.decode(codes), whole)
    assert_close(trained.reconstruct(x), p.mean)
    empty = mean_of(trained.encode(x[:0]))
    assert [level.shape for level in empty] == [(0, 2), (0, 3)]
    assert trained.decode(empty).mean.shape == (0, 4, 4, 1)
    assert "LevelPrior" in repr(trained.prior)


def test_a_single_example_has_codes_without_the_axis_of_examples(trained, data, key):
    q, whole = trained.encode(data.test.x[0]), trained.encode(data.test.x[:1])
    assert [level.shape for level in mean_of(q)] == [(2,), (3,)]
    assert_close([np.asarray(a)[None] for a in mean_of(q)], list(mean_of(whole)))
    one, several = jax.device_get((draw(q, key, (6,)), draw(whole, key, (6,))))
    assert [level.shape for level in one.z.levels] == [(6, 2), (6, 3)]
    for name in ("log_q", "log_p", "kl"):
        assert_close(getattr(one, name)[..., None], getattr(several, name))
    for a, b in zip(one.kl_per_dimension, several.kl_per_dimension, strict=True):
        assert_close(a, b[..., 0, :])
    at, drawn, log_prob = densities(q, key, Codes(one.z.levels))
    assert_close(at, one.log_q)
    assert_close(log_prob, np.sum(drawn, axis=0))
    image = trained.reconstruct(data.test.x[0])
    assert_close(image, trained.reconstruct(data.test.x[:1])[0])


BAD_CODES = {
    "z must be Codes or a tuple of 2 arrays, top level first, got": [[0.0] * 3],
    "z must have 2 levels, got 3": (np.zeros((1, 2)),) * 3,
    r"level 1 of z must have the shape \(N, 2\), got \(1, 3\)": (
        np.zeros((1, 3)),
        np.zeros((1, 2)),
    ),
    r"level 2 of z must have the shape \(N, 3\), got \(3,\)": (
        np.zeros((1, 2)),
        np.zeros(3),
    ),
    "level 2 of z must hold finite numbers": (
        np.zeros((1, 2)),
        np.full((1, 3), np.nan),
    ),
    "the levels of z must have one number of codes, got 2, 1": (
        np.zeros((2, 2)),
        np.zeros((1, 3)),
    ),
    "level 1 of z must be an array of numbers": ("ab", np.zeros((1, 3))),
    "level 1 of z must hold real numbers, got complex64": (
        np.zeros((1, 2), np.complex64),
        np.zeros((1, 3)),
    ),
}


@pytest.mark.parametrize("rule", BAD_CODES)
def test_codes_that_a_model_does_not_have(trained, rule):
    codes = BAD_CODES[rule]
    codes = np.array(codes[0]) if isinstance(codes, list) else codes
    with pytest.raises(InputError, match=rule):
        trained.decode(codes)


def test_samples_at_a_temperature_below_given_levels(trained, key, monkeypatch):
    x = trained.sample(9, key=key)
    codes = jax.jit(lambda p: p.sample(key, (9,)))(trained.prior)
    assert_close(x, trained.decode(codes).mean)
    cold = trained.sample(9, key=key, temperature=0)
    assert_close(cold[1:], cold[:8])
    top = np.array([1.0, -1.0], np.float32)
    kept = trained.sample(9, key=key, given=[top], temperature=0.0)
    same = trained.sample(9, key=key, given=[np.tile(top, (9, 1))], temperature=0.0)
    assert_close(kept, same)
    other = trained.sample(9, key=key, given=[-top], temperature=0.0)
    assert np.abs(kept - other).max() > 1e-6
    whole = [[1, -1], np.float64(top), jnp.bfloat16(top), np.int8(top)]
    for level in whole:
        same = trained.draw_levels(9, key=key, given=[level], temperature=0.0)
        assert_close(trained.decode(same).mean, kept)
        assert {level.dtype for level in same.levels} == {np.dtype("float32")}
    whole = [codes.levels[0], codes.levels[1]]
    assert_close(trained.sample(9, key=key, given=whole), x)
    noisy = trained.sample(9, key=key, with_noise=True)
    assert set(np.unique(noisy)) <= {0.0, 1.0}
    assert trained.sample(0).shape == (0, 4, 4, 1)
    monkeypatch.setattr("flaxvae.training.trained.CHUNK", 4)
    parts = trained.sample(9, key=key, given=whole)
    assert_close(parts, x)
    parts = np.asarray(trained.sample(9, key=key)).reshape(9, -1)
    assert len(np.unique(parts, axis=0)) == 9


def test_given_levels_keep_their_digits_where_parameters_have_them(trained, key):
    """Parameters of a user's own in float64."""
    top = np.array([1 / 3, -1 / 7])
    with jax.enable_x64():
        variables = jax.tree.map(lambda leaf: leaf.astype("f8"), trained.variables)
        wide = dataclasses.replace(trained, variables=variables)
        z = wide.draw_levels(3, key=key, given=[top])
        np.testing.assert_array_equal(z.levels[0], np.tile(top, (3, 1)))


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("temperature must be >= 0, got -1", {"temperature": -1}),
        ("temperature must be >= 0, got nan", {"temperature": float("nan")}),
        ("temperature must be a number, got 'hot'", {"temperature": "hot"}),
        ("given must have 2 levels at most, got 3", {"given": [np.zeros(2)] * 3}),
        (
            r"level 1 of given must have the shape \(5, 2\), got \(5, 3\)",
            {"given": [np.zeros((5, 3))]},
        ),
        (
            r"level 2 of given must have the shape \(5, 3\), got \(4, 3\)",
            {"given": [np.zeros(2), np.zeros((4, 3))]},
        ),
        ("level 1 of given must hold finite", {"given": [np.full(2, np.inf)]}),
        (
            "level 2 of given must hold real numbers, got complex128",
            {"given": [np.zeros(2), np.full(3, 1j)]},
        ),
        (
            "level 1 of given must hold real numbers, got object",
            {"given": [np.array([None, 1])]},
        ),
        (
            "temperature must be left out where sampler",
            {"temperature": 2, "sampler": 1},
        ),
    ],
)
def test_samples_that_cannot_be(trained, rule, options):
    with pytest.raises(InputError, match=rule):
        trained.sample(5, **options)


def test_a_model_without_levels_has_no_temperature(data):
    run = untrained.as_run(build_vae(data.shape, 2, hidden=(4,)), data)
    assert run.level_shapes == (run.code_shape,) == ((2,),)
    assert not run.has_levels
    for name, options in (
        ("temperature", {"temperature": 0.5}),
        ("given", {"given": [1]}),
    ):
        rule = f"{name} must be left out for a model without levels"
        with pytest.raises(InputError, match=rule):
            run.sample(2, **options)


def test_each_epoch_describes_the_levels(trained, data):
    """KLs of the draws whose bound the epoch reports, and dimensions above 0.01."""
    training = Training(trained.model, data, ELBO(), Optimization(), optax.sgd(0.1))
    state = begin(training, trained.variables)
    validation, codes = jax.device_get(
        training.validate(state, data.validation.batch())
    )
    assert len(codes["kl_per_level"]) == 2
    assert sum(codes["kl_per_level"]) == pytest.approx(validation["kl"], rel=1e-4)
    of_dimensions = codes["kl_per_dimension"]
    per_level = [of_dimensions[:2].sum(), of_dimensions[2:].sum()]
    np.testing.assert_allclose(per_level, codes["kl_per_level"], rtol=1e-3, atol=1e-5)
    assert codes["active_units"] == (of_dimensions > 0.01).sum()
