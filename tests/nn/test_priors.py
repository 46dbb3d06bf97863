"""Learned priors and posteriors as parts of a model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.distributions import MultivariateNormal
from flaxvae.models import build_vae
from flaxvae.models.description import describe_module, module_from_description
from flaxvae.models.variables import variable_shapes
from flaxvae.nn import FlowPrior
from flaxvae.objectives import ELBO
from flaxvae.training import Optimization, Trained, Training, fit
from flaxvae.training.optimizers import adam
from tests.random_variables import random_values, random_variables

SHAPE = (4, 4, 1)


def make(**parts):
    return build_vae(SHAPE, 3, hidden=(8,), **parts)


def init(model, key):
    @jax.jit
    def variables_and_examples(key):
        x = jax.random.uniform(key, (5, *SHAPE))
        return model.init(key, x, key=key, method=ELBO()), x

    return variables_and_examples(key)


def test_a_vamp_prior_is_the_mean_of_its_inputs_posteriors():
    model = make(prior="vamp", prior_components=6)
    variables = random_values(variable_shapes(model, SHAPE))
    z = np.random.default_rng(0).normal(size=(9, 3))

    @jax.jit
    def prior_and_posteriors(variables, z):
        u = 3 * variables["params"]["prior"]["pseudo_inputs"] - 1  # some outside [0, 1]
        variables["params"]["prior"]["pseudo_inputs"] = u
        p = model.apply(variables, method=lambda vae: vae.prior())
        q = model.apply(variables, jnp.clip(u, 0, 1), method="encode")
        return p.log_prob(z), q.mean, q.std

    log_prob, mean, std = prior_and_posteriors(variables, np.float32(z))
    each = stats.norm.pdf(z[:, None], mean, std).prod(-1)  # (9, 6)
    np.testing.assert_allclose(log_prob, np.log(each.mean(1)), rtol=1e-3)


def test_pseudo_inputs_of_a_table_have_no_bounds():
    model = build_vae((3,), 2, hidden=(8,), prior="vamp", prior_components=4)
    variables = random_variables(model, method=lambda vae: vae.prior())
    u = 5 * np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    variables["params"]["prior"]["pseudo_inputs"] = u

    @jax.jit
    def means():
        p = model.apply(variables, method=lambda vae: vae.prior())
        return p.mean_of_each, model.apply(variables, u, method="encode").mean

    of_prior, of_posteriors = means()
    np.testing.assert_allclose(of_prior, of_posteriors, rtol=1e-5)


@pytest.mark.parametrize(
    "posterior", [pytest.param("full", marks=pytest.mark.slow), "iaf"]
)
def test_a_vamp_prior_of_any_posterior_is_their_mean(key, posterior):
    model = make(prior="vamp", prior_components=6, posterior=posterior)
    variables = random_values(variable_shapes(model, SHAPE))
    u = variables["params"]["prior"]["pseudo_inputs"].clip(0, 1)

    @jax.jit
    def run(keys):
        prior = model.apply(variables, method=lambda vae: vae.prior())
        q = model.apply(variables, u, method="encode")
        draws = prior.sample(keys[0], (12_000,))
        z = draws[:70]  # more than one block of rows
        return draws, q.sample(keys[1], (2_000,)), z, prior.log_prob(z)

    @jax.jit
    def posterior_log_prob(u, z):
        return model.apply(variables, u, method="encode").log_prob(z)

    draws, others, z, found = jax.device_get(run(jax.random.split(key)))
    each = []  # one posterior after the other
    for m in range(6):
        each.append(np.float64(posterior_log_prob(u[m : m + 1], z)))
    expected = np.log(np.mean(np.exp(each), axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # Its draws and as many of each member have the same moments.
    draws, others = np.float64(draws), np.float64(others).reshape(draws.shape)
    for one, other in ((draws, others), (np.abs(draws), np.abs(others))):
        error = np.hypot(one.std(0), other.std(0)) / np.sqrt(len(draws))
        assert (np.abs(one.mean(0) - other.mean(0)) < 4.5 * error).all()


@pytest.mark.slow
def test_a_vamp_prior_moves_with_the_encoder_and_its_inputs(key):
    model = make(prior="vamp", prior_components=6)
    variables, x = init(model, key)

    def kl(variables):
        return model.apply(variables, x, key=key, method=ELBO())["kl"].mean()

    slopes = jax.grad(kl)(variables)["params"]
    assert np.abs(slopes["prior"]["pseudo_inputs"]).max() > 0
    zs = jax.random.normal(key, (5, 3))

    def log_p(variables):
        return model.apply(variables, method=lambda vae: vae.prior().log_prob(zs)).sum()

    by_prior = jax.grad(log_p)(variables)["params"]
    assert np.abs(by_prior["encoder"]["hidden_0"]["kernel"]).max() > 0


def test_pseudo_inputs_begin_as_training_examples(stripes):
    model = make(prior="vamp", prior_components=20)
    program = Training(model, stripes, ELBO(), Optimization(batch_size=32), adam())
    runs = [program.init(seed) for seed in (0, 1)]
    known = {image.tobytes() for image in np.asarray(stripes.train.x)}
    for run in runs:
        u = np.asarray(run.state.params["prior"]["pseudo_inputs"])
        stored = np.round(u * 255).astype(np.uint8)
        assert len({image.tobytes() for image in stored} & known) == 20
    kernels = [run.state.params["encoder"]["hidden_0"]["kernel"] for run in runs]
    assert (kernels[0] != kernels[1]).any()


@pytest.mark.slow
def test_a_mixture_begins_with_equal_weights_and_learns(stripes):
    model = make(prior="mixture", prior_components=4)
    trained = fit(model, stripes, epochs=3, batch_size=32, progress=False)
    program = Training(model, stripes, ELBO(), Optimization(batch_size=32), adam())
    start = program.init(0).state.params["prior"]
    assert start["mean"].shape == (4, 3)
    assert not start["logits"].any()
    for name, value in trained.variables["params"]["prior"].items():
        assert (value != start[name]).any(), name
    assert trained.sample(5, key=jax.random.key(0)).shape == (5, *SHAPE)
    assert trained.latent_dim == 3


@pytest.mark.slow
def test_a_full_covariance_begins_without_correlation_and_learns_it(stripes):
    model = make(posterior="full")
    variables, x = init(model, jax.random.key(0))
    q = model.apply(variables, x, method="encode")
    assert isinstance(q, MultivariateNormal)
    eye = np.broadcast_to(np.eye(3), q.scale_tril.shape)
    np.testing.assert_allclose(q.scale_tril, eye, atol=1e-5)
    trained = fit(model, stripes, epochs=30, batch_size=32, progress=False)
    q = trained.encode(stripes.test.x)
    scale = np.asarray(q.scale_tril)
    assert (np.triu(scale, 1) == 0).all()
    assert (np.diagonal(scale, axis1=1, axis2=2) > 0).all()
    assert np.abs(np.tril(scale, -1)).max() > 1e-3
    assert np.isfinite(trained.history[-1]["validation"]["elbo"])


@pytest.mark.parametrize(
    "parts",
    [
        {"prior": "mixture"},
        {"prior": "vamp", "prior_components": 7},
        {"posterior": "full"},
    ],
    ids=["mixture", "vamp", "full"],
)
def test_a_description_rebuilds_them(parts):
    model = make(**parts)
    rebuilt = module_from_description(describe_module(model))
    assert rebuilt == model
    shapes = [variable_shapes(m, SHAPE) for m in (model, rebuilt)]
    assert jax.tree.map(lambda a: a.shape, shapes[0]) == jax.tree.map(
        lambda a: a.shape, shapes[1]
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"prior": "vmap"},
            "unknown prior 'vmap': choose from conditional",
        ),
        ({"posterior": "ful"}, "unknown posterior 'ful'"),
        ({"prior_components": 3}, "prior_components must be left out for the prior"),
        ({"prior": "vamp", "prior_components": 0}, "prior_components must be >= 1"),
        ({"prior": "vamp", "normalization": "batch"}, "must not be vamp with batch"),
        (
            {"posterior_flows": 2},
            "posterior_flows must be left out for the po",
        ),
        ({"prior": "flow", "prior_flow": "x"}, "unknown prior_flow 'x'"),
        ({"posterior": "iaf", "posterior_flows": 0}, "posterior_flows must be >= 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(InputError, match=message):
        make(**parts)


FLOWS = {
    "iaf": {"posterior": "iaf", "posterior_flows": 2},
    "planar": {"posterior": "planar", "posterior_flows": 2},
    "radial": {"posterior": "radial", "posterior_flows": 2},
    "coupling": {"prior": "flow", "prior_flows": 3},
    "autoregressive": {
        "prior": "flow",
        "prior_flow": "autoregressive",
        "prior_flows": 2,
    },
}


@pytest.mark.parametrize("D", [1, 2, 3, 5])
def test_a_flow_of_couplings_changes_every_dimension(D):
    prior = FlowPrior(D, "coupling", num_flows=2, width=4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        jax.eval_shape(prior.init, jax.random.key(0)),
    )
    eps = rng.normal(size=(7, D)).astype(np.float32)
    flow = prior.apply(params)
    z, log_det = flow._forward(eps)
    assert (np.asarray(z) != eps).all() and (np.asarray(log_det) != 0).all()
    np.testing.assert_allclose(
        flow.log_prob(z), flow.base.log_prob(eps) - log_det, rtol=1e-3, atol=1e-3
    )


TURNING = ("iaf", "coupling", "autoregressive")  # exact, in another order


SLOW = ("autoregressive", "coupling", "planar", "radial")  # what their siblings cover


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FLOWS],
)
def test_flows_begin_at_the_normal_and_every_parameter_learns(
    name, stripes, monkeypatch
):
    model = make(**FLOWS[name])
    part = "prior" if "prior" in FLOWS[name] else "posterior"
    program = Training(model, stripes, ELBO(), Optimization(batch_size=32), adam())
    variables = {"params": program.init(0).state.params}
    x = stripes.preprocessing.prepare(stripes.test.x)

    def distribution(vae):
        return vae.prior() if part == "prior" else vae.encode(x)

    @jax.jit
    def difference_from_the_base(variables):
        flow = model.apply(variables, method=distribution)
        z = flow.base.sample(jax.random.key(1), (50,) if part == "prior" else ())
        turned = z[..., ::-1] if name in TURNING and len(flow.layers) % 2 else z
        return flow.log_prob(z) - flow.base.log_prob(turned)

    difference = np.asarray(difference_from_the_base(variables))
    assert np.abs(difference).max() < (1e-3 if name in TURNING else 0.3)

    @jax.jit
    def step(params):
        def loss(params):
            method = functools.partial(ELBO(kl="sampled"), key=jax.random.key(2))
            return model.apply({"params": params}, x, method=method)["loss"].mean()

        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, jax.grad(loss)(params))

    # Kernels that follow zeros get a gradient once those have moved.
    params = variables["params"]
    for _ in range(2):
        params = step(params)
    moved = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), params[part], variables["params"][part]
    )
    assert all(jax.tree.leaves(moved)), moved
    trained = Trained(model, {"params": params}, SHAPE, stripes.preprocessing)

    # Codes come in chunks as in one; what all rows share is there once.
    whole = trained.encode(stripes.test.x)
    monkeypatch.setattr("flaxvae.training.trained.CHUNK", 10)
    chunks = trained.encode(stripes.test.x)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(chunks), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert trained.sample(4, key=jax.random.key(0)).shape == (4, *SHAPE)
