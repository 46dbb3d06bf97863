"""The parts of the KL, on codes whose parts are known."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.data import Split, binarize
from flaxvae.distributions import MultivariateNormal, Normal, kl_divergence
from flaxvae.distributions.flows import Inverse
from flaxvae.evaluation import elbo_surgery, evaluate, evaluate_elbo
from flaxvae.evaluation.surgery import describe_parts
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.training import Trained
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.shared import only_compiling
from tests.random_variables import random_variables


def with_codes(mean, log_var, *, full=False):
    """What has posteriors of given moments and a standard normal prior."""
    mean, log_var = np.broadcast_arrays(np.float32(mean), np.float32(log_var))
    q = Normal(jnp.asarray(mean), jnp.asarray(log_var), event_ndim=1)
    if full:
        scale = np.exp(0.5 * log_var)[..., None] * np.eye(mean.shape[-1])
        q = MultivariateNormal(q.mean, jnp.asarray(scale, jnp.float32))
    zeros = jnp.asarray(np.zeros(mean.shape[-1], np.float32))
    prior = Normal(zeros, zeros, event_ndim=1)
    return SimpleNamespace(
        encode=lambda x, condition=None, key=None: q, prior=prior, seed=0
    )


measure_kl = jax.jit(kl_divergence)


def parts_of(model, weights=None, **choices):
    """`elbo_surgery` with the exact KL, and that KL."""
    q = model.encode(None)
    each = np.asarray(measure_kl(q, model.prior), np.float64)
    kl = float(np.average(each, weights=weights))
    split = Split(np.zeros(len(each)), weights=weights)
    return elbo_surgery(model, split, kl=kl, **choices), kl


def test_codes_far_apart_tell_their_example():
    N = 64
    far = with_codes(100.0 * np.arange(N)[:, None], 0.0)
    for seed in range(3):  # saturated: no variance
        found, _ = parts_of(far, seed=seed)
        assert found["mutual_information_ceiling"] == pytest.approx(np.log(N))
        assert found["mutual_information"] <= found["mutual_information_ceiling"]
        assert found["mutual_information"] == pytest.approx(np.log(N), rel=1e-5)
        assert found["total_correlation"] == pytest.approx(0.0, abs=1e-3)
    with only_compiling():
        assert parts_of(far)[0]["mutual_information"] == 0  # nothing was computed


def test_posteriors_that_are_the_prior_have_no_part():
    found, _ = parts_of(with_codes(np.zeros((50, 3)), 0.0))
    assert found.pop("mutual_information_ceiling") == pytest.approx(np.log(50))
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-5)
    assert len(found) == 4


def test_no_part_is_negative_where_the_aggregate_is_the_prior():
    """Normal quantiles of variance 1/2, blurred by as much: the true parts are 0."""
    axis = stats.norm.ppf((np.arange(20) + 0.5) / 20) / 2**0.5
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(400, 2)
    found = [
        parts_of(with_codes(grid, np.log(0.5)), num_draws=40, seed=seed)[0]
        for seed in range(6)
    ]
    for name in ("marginal_kl", "total_correlation", "dimension_kl"):
        values = [parts[name] for parts in found]
        assert min(values) == 0.0  # clipped
        assert max(values) < 0.1


def test_one_example_has_no_mutual_information():
    found, kl = parts_of(with_codes(np.array([[1.0, -2.0]]), -1.0))
    assert found["mutual_information"] == found["mutual_information_ceiling"] == 0.0
    assert str(found["mutual_information_ceiling"]) == "0.0"  # not -0.0
    assert found["marginal_kl"] == kl
    assert found["total_correlation"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parts_of_normal_codes(full):
    """Means from N(0, S) and variances s^2: q(z) is about N(0, S + s^2 I)."""
    N, var = 4000, 0.25
    S = np.array([[1.0, 0.9], [0.9, 1.5]])
    mean = np.random.default_rng(0).multivariate_normal(np.zeros(2), S, N)
    S = np.cov(mean.T)
    found, _ = parts_of(with_codes(mean, np.log(var), full=full), num_draws=N)
    aggregate = S + var * np.eye(2)
    log_det = np.linalg.slogdet(aggregate)[1]
    expected = {
        "mutual_information": 0.5 * (log_det - 2 * np.log(var)),
        "mutual_information_ceiling": np.log(N),
        "marginal_kl": 0.5 * (np.trace(aggregate) - 2 - log_det),
    }
    if not full:
        variances = np.diag(aggregate)
        expected["total_correlation"] = 0.5 * (np.log(variances).sum() - log_det)
        expected["dimension_kl"] = 0.5 * (variances - 1 - np.log(variances)).sum()
        parts = found["total_correlation"] + found["dimension_kl"]
        assert parts == pytest.approx(found["marginal_kl"], abs=1e-4)
    assert found == pytest.approx(expected, abs=0.06)


MEAN = np.array([[-1.5, -1.0], [0.3, 0.2], [1.2, 1.8], [0.0, -0.5], [2.0, 1.0]])
LOG_VAR = np.array([[-1, -2], [-0.5, -1], [-2, -1.5], [0, -1], [-1, -1]], np.float64)


def integrate(weights):
    """The parts by sums over a grid, in float64."""
    w = np.asarray(weights, np.float64) / np.sum(weights)
    axis = np.linspace(-9, 9, 1201)
    step = axis[1] - axis[0]
    var = np.exp(LOG_VAR)
    # q(z_d|x_n) on the axis, (N, D, G)
    error = (axis - MEAN[..., None]) ** 2 / var[..., None]
    each = np.exp(-0.5 * error) / np.sqrt(2 * np.pi * var[..., None])
    p = np.exp(-0.5 * axis**2) / np.sqrt(2 * np.pi)
    joint = np.einsum("n,ni,nj->ij", w, each[:, 0], each[:, 1])
    marginals = np.einsum("n,ndi->di", w, each)
    entropies = 0.5 * (np.log(2 * np.pi) + 1 + LOG_VAR).sum(1)
    entropy = -np.sum(joint * np.log(joint)) * step**2
    own = [-np.sum(m * np.log(m)) * step for m in marginals]
    return {
        "mutual_information": entropy - w @ entropies,
        "mutual_information_ceiling": -np.sum(w * np.log(w)),
        "marginal_kl": np.sum(joint * np.log(joint / np.outer(p, p))) * step**2,
        "total_correlation": sum(own) - entropy,
        "dimension_kl": sum(np.sum(m * np.log(m / p)) * step for m in marginals),
    }


@pytest.mark.parametrize("weights", [None, (5.0, 0.5, 0.5, 2.0, 4.0)])
def test_parts_of_a_known_mixture(weights):
    exact = integrate(np.ones(5) if weights is None else weights)
    weights = None if weights is None else np.array(weights)
    seeds = [
        parts_of(with_codes(MEAN, LOG_VAR), weights, num_draws=1000, seed=seed)
        for seed in range(4)
    ]
    for name, value in exact.items():
        found = np.array([parts[name] for parts, _ in seeds])
        assert found.mean() == pytest.approx(value, abs=0.02), name
    for parts, kl in seeds:
        assert parts["mutual_information"] + parts["marginal_kl"] == pytest.approx(kl)
        rest = parts["total_correlation"] + parts["dimension_kl"]
        assert rest == pytest.approx(parts["marginal_kl"])


def test_the_known_kl_makes_the_estimates_sharper():
    """A spread of 0.03 without it, at these 1,000 draws."""
    rng = np.random.default_rng(0)
    model = with_codes(rng.normal(size=(1000, 2)), -3.0)
    found = [parts_of(model, num_draws=1000, seed=s)[0] for s in range(8)]
    for name in ("mutual_information", "dimension_kl"):
        assert np.std([parts[name] for parts in found]) < 0.012


def test_an_example_of_weight_two_counts_as_two():
    twice = with_codes(50.0 * np.array([[0.0], [0.0], [1.0]]), 0.0)
    weighted = with_codes(50.0 * np.array([[0.0], [1.0], [7.0]]), 0.0)
    two, kl = parts_of(twice)
    found, same = parts_of(weighted, np.array([2.0, 1.0, 0.0]))
    exact = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    for parts in (two, found):
        assert parts["mutual_information"] == pytest.approx(exact, abs=2e-3)
    assert same == pytest.approx(kl)
    assert found["mutual_information_ceiling"] == pytest.approx(exact)
    assert two["mutual_information_ceiling"] == pytest.approx(np.log(3))


@pytest.mark.parametrize(("seed", "root"), [(None, 0), (4, 4)])
def test_the_inputs_are_drawn_by_the_key_of_the_elbo(seed, root):
    model, keys = with_codes(MEAN, LOG_VAR), []
    q = model.encode(None)
    model.encode = lambda x, condition=None, key=None: keys.append(key) or q
    elbo_surgery(model, Split(np.zeros(5)), kl=1.0, seed=seed)
    expected = stream_key(jax.random.key(root), Stream.TEST, 0)
    assert [jax.random.key_data(key).tolist() for key in keys] == [
        jax.random.key_data(expected).tolist()
    ]


def test_what_has_no_density_elsewhere_has_no_parts():
    flow = SimpleNamespace(
        encode=lambda x, condition=None, key=None: Inverse, prior=Normal, seed=0
    )
    assert elbo_surgery(flow, Split(np.zeros(3))) == {}


@pytest.mark.parametrize(
    ("settings", "method", "is_weighted"),
    [
        ({}, "none", False),
        ({}, "dynamic", True),
        ({"prior": "mixture"}, "dynamic", False),
        ({"posterior": "full"}, "none", True),
    ],
    ids=["grey", "dynamic and weights", "mixture prior", "full"],
)
def test_the_parts_sum_to_the_kl_of_the_report(
    stripes, key, settings, method, is_weighted
):
    data = binarize(stripes, method) if method != "none" else stripes
    test = data.test
    if is_weighted:
        weights = np.random.default_rng(0).integers(0, 4, len(test))
        test = dataclasses.replace(test, weights=weights.astype(float))
    vae = build_vae(data.shape, 3, hidden=(8,), **settings)
    x = jnp.zeros((2, *data.shape))
    variables = random_variables(vae, x, key=key, method=ELBO())
    variables = jax.tree.map(lambda leaf: 3 * leaf, variables)  # a KL of some nats
    trained = Trained(vae, variables, data.shape, data.preprocessing)
    report = evaluate(trained, test, name="held out", seed=4)
    parts, kl = report["surgery"], report["held out"]["kl"]
    assert kl == evaluate_elbo(trained, test, seed=4)["kl"] > 0.1
    assert parts == elbo_surgery(trained, test, seed=4)
    total = parts["mutual_information"] + parts["marginal_kl"]
    assert total == pytest.approx(kl, abs=1e-12)
    assert 0 <= parts["mutual_information"] <= parts["mutual_information_ceiling"]
    assert ("total_correlation" in parts) == ("posterior" not in settings)
    assert ("dimension_kl" in parts) == (not settings)
    if not settings:
        rest = parts["total_correlation"] + parts["dimension_kl"]
        assert rest == pytest.approx(parts["marginal_kl"], abs=1e-12)


def test_parts_as_rows_of_a_table():
    parts = {"mutual_information": 5.7, "marginal_kl": 0.4}
    parts["mutual_information_ceiling"] = np.log(360)
    title, text = describe_parts(parts, "validation")[0]
    assert title.strip() == "mutual information I(x; z)"
    assert text == (
        "5.70 nats (estimate from the validation split, at most log N = 5.89)"
    )
    near = describe_parts(parts | {"mutual_information": 5.8})[0][1]
    assert near == (
        "5.80 nats (estimate from the test split, saturated: at most log N = 5.89)"
    )
    uneven = describe_parts(parts | {"mutual_information_ceiling": 6.0})[0][1]
    assert "at most the entropy of the weights = 6.00" in uneven
    assert describe_parts({}) == []


def test_printed_parts_sum_to_the_printed_kl():
    rng = np.random.default_rng(0)
    for mutual, correlation, rest in rng.uniform(0, 3, size=(200, 3)):
        parts = {
            "mutual_information": mutual,
            "mutual_information_ceiling": 9.0,
            "marginal_kl": correlation + rest,
            "total_correlation": correlation,
            "dimension_kl": rest,
        }
        shown = [float(row.split()[0]) for _, row in describe_parts(parts)]
        kl = float(f"{mutual + correlation + rest:.2f}")
        assert shown[0] + shown[1] == pytest.approx(kl, abs=1e-9)
        assert shown[2] + shown[3] == pytest.approx(shown[1], abs=1e-9)
        assert shown == pytest.approx(
            [mutual, correlation + rest, correlation, rest], abs=0.021
        )
