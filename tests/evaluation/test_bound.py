import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.evaluation import bound, evaluate_elbo
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.models import build_vae
from flaxvae.objectives import ELBO
from flaxvae.schedules import warm_up
from flaxvae.training import evaluate
from flaxvae.training.keys import Stream, stream_key
from tests.evaluation.untrained import untrained


@pytest.fixture(scope="module")
def trained(stripes):
    model = build_vae(stripes.shape, 2, hidden=(16,))
    return untrained(model, stripes, ELBO(beta=warm_up(7.0)))


def test_it_is_the_unweighted_bound_with_the_seeds_draws(trained, stripes):
    numbers = evaluate_elbo(trained, stripes.test, seed=3)
    key = jax.random.fold_in(stream_key(jax.random.key(3), Stream.TEST), 0)
    compute = jax.jit(functools.partial(trained.model.apply, method=ELBO()))
    x = jnp.asarray(stripes.test.x / 255.0, jnp.float32)
    terms = compute(trained.variables, x, key=jax.random.split(key)[1])
    for name in ("elbo", "log_likelihood", "kl"):
        assert numbers[name] == pytest.approx(float(terms[name].mean()), rel=1e-5)
    assert numbers["log_likelihood"] < 0 < numbers["kl"]


def test_the_seed_fixes_it(trained, stripes):
    first, again, other = (
        evaluate_elbo(trained, stripes.test, seed=s) for s in (0, 0, 1)
    )
    assert first == again
    assert first["kl"] == pytest.approx(other["kl"])
    assert first["log_likelihood"] != other["log_likelihood"]


def test_mean_over_images_not_batches(trained, stripes):
    """The numbers of two parts average to those of the whole, up to the draws."""
    whole = evaluate_elbo(trained, stripes.test)["kl"]
    n = len(stripes.test)
    parts = [stripes.test[:30], stripes.test[30:]]
    kls = [evaluate_elbo(trained, part)["kl"] for part in parts]
    mean = sum(len(p) * k for p, k in zip(parts, kls, strict=True)) / n
    np.testing.assert_allclose(mean, whole, rtol=1e-5)


def test_the_default_seed_is_the_runs(trained, stripes):
    other = dataclasses.replace(trained, seed=3)
    by_run = evaluate_elbo(other, stripes.test)
    assert by_run == evaluate_elbo(trained, stripes.test, seed=3)
    assert by_run != evaluate_elbo(trained, stripes.test)


def test_the_default_objective_is_the_runs_at_full_weight(trained, stripes):
    terms = evaluate_terms(trained, stripes.test)
    weighted = -(terms["log_likelihood"] - 7.0 * terms["kl"])
    assert terms["loss"] == pytest.approx(weighted, rel=1e-5)
    other = evaluate_terms(trained, stripes.test, ELBO(beta=2.0))
    weighted = -(other["log_likelihood"] - 2.0 * other["kl"])
    assert other["loss"] == pytest.approx(weighted, rel=1e-5)


def test_pieces_of_a_large_split_have_the_draws_of_the_whole(
    trained, stripes, monkeypatch
):
    whole = evaluate_elbo(trained, stripes.train)
    monkeypatch.setattr(bound, "EVALUATION_BATCH", 50)
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 50)
    batched = evaluate_elbo(trained, stripes.train)
    monkeypatch.setattr(bound, "PIECE_BYTES", 1)
    assert evaluate_elbo(trained, stripes.train) == pytest.approx(batched, rel=1e-6)
    assert whole["kl"] == pytest.approx(batched["kl"], rel=1e-5)


def test_a_split_without_examples_is_refused(trained, stripes):
    with pytest.raises(InputError, match="split must hold an example, got none"):
        evaluate_elbo(trained, stripes.test[:0])
