"""Batch-level terms in an evaluation: of batches of different examples only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.collectives import gather_rows
from flaxvae.data import Preprocessing, Split
from flaxvae.evaluation import bound
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.latent.keys import draw_key
from flaxvae.models import VQVAEConfig, build_vae
from flaxvae.nn.conditions import Condition
from flaxvae.nn.critic import Critic
from flaxvae.objectives import (
    DIPVAE,
    ELBO,
    IWAE,
    TCVAE,
    WAE,
    FactorVAE,
    InfoVAE,
    Quantization,
    Reconstruction,
)
from flaxvae.objectives.objective import as_objective
from flaxvae.training import Trained, evaluate
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.keys import Stream
from flaxvae.training.parallel import Devices
from tests.random_variables import random_variables

OBJECTIVES = {
    "info": InfoVAE(),
    "dip": DIPVAE(),
    "tcvae": TCVAE(num_examples=100),
    "stratified": TCVAE(num_examples=100, sampling="stratified"),
    "factor": FactorVAE(),
    "free bits": ELBO(free_bits=0.3),
    "capacity": ELBO(capacity=0.5),
    "rate": Reconstruction(rate_weight=2.0),
    "draws": IWAE(num_samples=3),  # the examples are no first axis
}
NOISY = ("info", "dip", "tcvae", "free bits", "capacity")
PREPROCESSING = Preprocessing(max_value=255.0, binarize="dynamic")


def terms_of(names, vae, x, key):
    return {
        f"{name}: {term}": value
        for name in names
        for term, value in OBJECTIVES[name](vae, x, key=key).items()
    }


def all_terms(vae, x, *, key):
    """Every term of every objective, and one of a user's own."""
    terms = terms_of(OBJECTIVES, vae, x, key)
    whole = gather_rows(x).reshape(-1, 16)
    spread = jnp.full(len(x), whole.var(0).sum() + whole[0] @ whole[-1])
    return terms | {"loss": terms["info: loss"], "own": spread}


@pytest.fixture(scope="module")
def model():
    """A model, its variables and images ``(120, 4, 4, 1)``."""
    vae = build_vae((4, 4, 1), 2, hidden=(8,)).clone(critic=Critic((4,)))
    x = np.random.default_rng(0).integers(0, 256, (120, 4, 4, 1), np.uint8)
    x[:, ::2] //= np.arange(1, 121, dtype=np.uint8).reshape(-1, 1, 1, 1) % 7 + 1
    seen = jnp.asarray(x[:2] / 255, jnp.float32)
    variables = random_variables(vae, seen, key=jax.random.key(2), method=FactorVAE())
    larger = jax.tree.map(lambda leaf: 2 * leaf, variables)
    return vae, larger, x


@pytest.fixture(scope="module")
def terms_on(model):
    """`all_terms` of so many examples on devices, in batches of 10."""
    vae, variables, x = model

    @functools.cache
    def terms_on(devices, N):
        run = make_evaluate(vae, PREPROCESSING, devices)
        args = devices.put((variables, x[:N], jax.random.key(3)))
        compiled = devices.compile(lambda v, x, key: run(v, all_terms, x, key), *args)
        return jax.device_get(compiled(*args))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "EVALUATION_BATCH", 10)
        yield terms_on


def batches_of(N, size):
    """The examples of each batch, and how many of them count."""
    size = min(size, N)
    for first in range(0, N, size):
        count = min(size, N - first)
        order = [*range(first, first + count), *range(size - count)]
        assert len(set(order)) == size
        yield np.array(order), count


@pytest.mark.parametrize("N", [7, 23])
def test_terms_are_those_of_batches_of_different_examples(model, terms_on, N):
    vae, variables, x = model
    found, key = terms_on(Devices(), N), jax.random.key(3)
    apply = jax.jit(lambda x, key: vae.apply(variables, x, key=key, method=all_terms))
    expected = dict.fromkeys(found, 0.0)
    for number, (order, count) in enumerate(batches_of(N, 10)):
        key_x, key_z = jax.random.split(jax.random.fold_in(key, number))
        terms = apply(PREPROCESSING(jnp.asarray(x[order]), key_x), key_z)
        for name, term in terms.items():
            expected[name] += float(term[:count].sum()) / N
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def moment_terms(vae, x, *, key):
    return terms_of(("dip", "free bits", "capacity"), vae, x, key)


def test_numbers_of_batches_by_hand(model, key, monkeypatch):
    """Covariances, free bits and capacity from the moments of the posteriors."""
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 10)
    vae, variables, x = model
    compute = make_evaluate(vae, Preprocessing(max_value=255.0))
    compute = jax.jit(compute, static_argnums=1)
    found = compute(variables, moment_terms, jnp.asarray(x[:13]), key)
    q = vae.apply(variables, x[:13] / np.float32(255), method=vae.encode)
    mean, var = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_var, float))
    penalty, raised, distance = [], [], []
    for order, count in batches_of(13, 10):
        covariance = np.cov(mean[order].T, bias=True) + np.diag(var[order].mean(0))
        penalty += [10 * ((covariance - np.eye(2)) ** 2).sum()] * count
        kl = 0.5 * (mean**2 + var - 1 - np.log(var))[order]
        raised += [np.maximum(kl.mean(0), 0.3).sum()] * count
        distance += [abs(kl.sum(1).mean() - 0.5)] * count
    assert found["dip: covariance_penalty"] == pytest.approx(np.mean(penalty), 1e-4)
    for name, values in (("free bits", raised), ("capacity", distance)):
        loss = found[f"{name}: loss"] + found[f"{name}: log_likelihood"]
        assert loss == pytest.approx(np.mean(values), rel=1e-3)


def noisy_terms(vae, x, *, key):
    terms = terms_of(NOISY, vae, x, key)
    return {
        "mmd": terms["info: mmd"],
        "covariances": terms["dip: covariance_penalty"],
        "total correlation": terms["tcvae: total_correlation"],
        "free bits": terms["free bits: loss"] + terms["free bits: log_likelihood"],
        "capacity": terms["capacity: loss"] + terms["capacity: log_likelihood"],
    }


def test_the_size_of_a_split_does_not_matter(model, key, monkeypatch):
    """Repeated under other examples: of one distribution, within sampling noise."""
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 20)
    vae, variables, x = model
    # Grey levels: binarization would draw other inputs from copies of an example.
    compute = make_evaluate(vae, Preprocessing(max_value=255.0))
    compute = jax.jit(jax.vmap(functools.partial(compute, variables, noisy_terms)))
    values = {}
    for N in (30, 40):
        rows = np.random.default_rng(N).permuted(
            np.tile(np.arange(120), (400, 1)), axis=1
        )[:, :N]
        values[N] = compute(x[rows], jax.random.split(key, 400))
    for name, whole in values[40].items():
        filled = np.asarray(values[30][name])  # whose second batch repeats examples
        error = np.sqrt(sum(v.var() / len(v) for v in (filled, np.asarray(whole))))
        assert abs(filled.mean() - np.mean(whole)) < 4 * error, name


@pytest.mark.parametrize(("parallel", "N"), [("jit", 23), ("pmap", 23), ("pmap", 7)])
def test_devices_that_do_not_divide_a_batch_change_nothing(terms_on, parallel, N):
    eight = Devices(tuple(jax.devices()), parallel)
    assert eight.count == 8
    one, found = terms_on(Devices(), N), terms_on(eight, N)
    for name in one:
        assert found[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("parallel", ["none", "jit", "pmap"])
def test_codes_are_counted_over_different_examples(stripes, key, monkeypatch, parallel):
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 10)
    config = VQVAEConfig(encoder="conv", filters=(4,), num_codes=16, code_width=2)
    model = config.build(stripes)
    seen = jnp.asarray(stripes.test.x[:13] / 255, jnp.float32)
    variables = random_variables(model, seen, key=key, method=Quantization())
    indices = np.asarray(model.apply(variables, seen, method=model.encode).indices)
    perplexity = usage = 0.0
    for order, count in batches_of(13, 10):
        shares = np.bincount(indices[order].ravel(), minlength=16) / indices[order].size
        entropy = -sum(s * np.log(s) for s in shares if s)
        perplexity += np.exp(entropy) * count / 13
        usage += (shares > 0).mean() * count / 13
    devices = Devices(() if parallel == "none" else tuple(jax.devices()), parallel)
    run = make_evaluate(model, stripes.preprocessing, devices)
    args = devices.put((variables, stripes.test.x[:13], key))
    compiled = devices.compile(lambda v, x, key: run(v, Quantization(), x, key), *args)
    found = compiled(*args)
    assert 1 < perplexity < 16
    assert found["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    assert found["code_usage"] == pytest.approx(usage, rel=1e-5)


@pytest.mark.parametrize("is_plain", [True, False])
def test_pieces_of_a_split_have_the_batches_of_the_whole(model, monkeypatch, is_plain):
    """The last piece alone would be a batch of 3 of its own."""
    for module in (bound, evaluate):
        monkeypatch.setattr(module, "EVALUATION_BATCH", 10)
    vae, variables, x = model
    split = Split(x[:33])
    if not is_plain:
        vae = vae.clone(condition=Condition(3))
        split = Split(
            x[:33],
            condition=np.arange(33, dtype=np.int32) % 3,
            weights=np.resize([1.0, 3.0, 0.5, 2.0], 33),
        )
        example = jnp.zeros((2, 4, 4, 1))
        condition = jnp.zeros(2, jnp.int32)
        variables = random_variables(
            vae,
            example,
            key=jax.random.key(0),
            method=lambda vae, x, key: ELBO()(vae.given(condition), x, key=key),
        )
    trained = Trained(vae, variables, (4, 4, 1), PREPROCESSING)

    def some_terms(vae, x, *, key):
        return WAE()(vae, x, key=key)

    objective = as_objective(some_terms)
    whole = evaluate_terms(trained, split, objective)
    for size in (25 * 16,) if is_plain else (1, 25 * 16):  # of two batches, of one
        monkeypatch.setattr(bound, "PIECE_BYTES", size)
        pieces = evaluate_terms(trained, split, objective)
        assert pieces == pytest.approx(whole, rel=1e-5, abs=1e-5)
    key = draw_key(trained, Stream.TEST, seed=None)
    examples = jax.tree.map(jnp.asarray, split.batch())
    direct = jax.jit(make_evaluate(vae, PREPROCESSING), static_argnums=1)(
        variables, some_terms, examples, key
    )
    for name, value in whole.items():
        assert value == pytest.approx(float(direct[name]), rel=1e-5, abs=1e-5)
