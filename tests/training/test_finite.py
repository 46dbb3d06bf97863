"""NaN and infinity among parameters, codes, examples and numbers about them."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxvae
from flaxvae import evaluation, latent, training
from flaxvae.checks import check_density, check_numbers, check_terms
from flaxvae.distributions import Normal
from flaxvae.files import write_json
from flaxvae.models import build_vae
from flaxvae.run import Run
from flaxvae.training import NonFiniteError, RunFolder, Trained, fit
from flaxvae.training.storage.checkpoint import Checkpoints
from flaxvae.training.storage.run_folder import save
from tests.random_variables import random_variables

NAMED = r"params/decoder/.* is (nan|inf) in 1 of"
OPTIONS = {"epochs": 1, "batch_size": 32, "progress": False}


def with_number(variables, number, scale=1.0):
    """Variables with one number replaced in the decoder, or all of it scaled."""
    copy = jax.tree.map(np.array, variables)
    leaf = jax.tree.leaves(copy["params"]["decoder"])[-1]
    if number is not None:
        leaf.flat[0] = number
    leaf *= scale
    return copy


@pytest.fixture(scope="module")
def made():
    """A model with its variables."""
    vae = build_vae((4, 4, 1), 2, hidden=(16,))
    x, objective = jnp.zeros((2, 4, 4, 1)), flaxvae.objectives.ELBO()
    variables = random_variables(vae, x, key=jax.random.key(1), method=objective)
    return vae, variables


@pytest.fixture
def broken(made, stripes):
    vae, variables = made
    bad = with_number(variables, np.nan)
    trained = Trained(vae, bad, (4, 4, 1), stripes.preprocessing)
    return dataclasses.replace(Run.of(trained, stripes))


USES = {
    "encode": lambda run, folder: run.encode(run.dataset.test.x),
    "decode": lambda run, folder: run.decode(np.zeros((2, 2), np.float32)),
    "reconstruct": lambda run, folder: run.reconstruct(run.dataset.test.x),
    "sample": lambda run, folder: run.sample(2),
    "compute": lambda run, folder: run.compute(lambda m, x: x, run.dataset.test.x),
    "generate": lambda run, folder: run.generate(2, output=folder / "new.npz"),
    "evaluate": lambda run, folder: run.evaluate(),
    "nll": lambda run, folder: evaluation.estimate_nll(
        run, run.dataset.test, num_samples=2
    ),
    "elbo": lambda run, folder: evaluation.evaluate_elbo(run, run.dataset.test),
    "score": lambda run, folder: run.score(output=folder / "scores.csv"),
    "probe": lambda run, folder: run.probe(folder / "probe"),
    "draw": lambda run, folder: run.draw(folder / "figures"),
    "recognize": lambda run, folder: evaluation.recognize(run, run.dataset, num=2),
    "encode_dataset": lambda run, folder: latent.encode_dataset(run, run.dataset),
    "save": lambda run, folder: flaxvae.save(run, folder / "run"),
    "start_from": lambda run, folder: fit(
        run.model, run.dataset, start_from=run, workdir=folder / "tuned", **OPTIONS
    ),
}


@pytest.mark.parametrize("use", USES)
def test_nothing_is_computed_or_written_of_nan_parameters(
    use, broken, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluation.likelihood, "check_density", lambda *_: None)
    with pytest.raises(NonFiniteError, match=NAMED):
        USES[use](broken, tmp_path)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_folder_with_nan_is_not_loaded(number, made, stripes, tmp_path, monkeypatch):
    vae, variables = made
    save(Trained(vae, variables, (4, 4, 1)), tmp_path, stripes)
    original = Checkpoints.restore

    def damage(self, like):
        found = original(self, like)
        trees = {"model": with_number(found.trees["model"], number)}
        return dataclasses.replace(found, trees=trees)

    monkeypatch.setattr(Checkpoints, "restore", damage)
    for load in (flaxvae.load, training.load):
        with pytest.raises(NonFiniteError, match=NAMED):
            load(tmp_path)
    with pytest.raises(NonFiniteError, match=NAMED):
        fit(vae, stripes, start_from=tmp_path, **OPTIONS)
    looked_at = training.load(tmp_path, check=False)
    assert not np.isfinite(jax.flatten_util.ravel_pytree(looked_at.variables)[0]).all()


def test_finite_parameters_may_give_infinite_results(made, stripes):
    vae, variables = made
    huge = with_number(variables, None, 3e38)
    run = Trained(vae, huge, (4, 4, 1), stripes.preprocessing)
    z = np.full((3, 2), 1e30, np.float32)
    with pytest.raises(NonFiniteError, match=r"p\(x\|z\) is nan in 3 of 3 examples"):
        run.decode(z)
    with pytest.raises(NonFiniteError, match=r"test split: the mean .* is "):
        evaluation.evaluate(run, stripes.test)


def test_a_logit_may_be_infinite_where_the_mean_is_not():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Impossible:
        logits: jax.Array

        @property
        def mean(self):
            return jax.nn.sigmoid(self.logits)

    check_density("p", Impossible(jnp.array([[-jnp.inf, 1.0]])))
    with pytest.raises(NonFiniteError, match="p is nan"):
        check_density("p", Impossible(jnp.array([jnp.nan, -jnp.inf])))
    with pytest.raises(NonFiniteError, match="the mean of q is inf in 1 of 2 examples"):
        check_density("q", Normal(jnp.array([[0.0], [jnp.inf]]), jnp.zeros((2, 1))))
    check_numbers("a row", np.array([np.nan, 1.0]), or_nan=True)
    jax.jit(lambda x: check_numbers("traced", x) or x)(jnp.array(jnp.nan))


class Bounded(nn.Module):
    """A likelihood of numbers below one half only."""

    @nn.compact
    def __call__(self, features):
        return Uniform(0.5 * nn.sigmoid(features))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Uniform:
    mean: jax.Array

    def log_prob(self, x):
        return jnp.where(x < 0.5, jnp.log(2.0), -jnp.inf).sum((-3, -2, -1))


def test_an_impossible_example_is_called_so(stripes):
    vae = build_vae((4, 4, 1), 2, hidden=(4,), likelihood=Bounded())
    variables = random_variables(
        vae,
        jnp.zeros((1, 4, 4, 1)),
        key=jax.random.key(1),
        method=flaxvae.objectives.ELBO(),
    )
    run = Trained(vae, variables, (4, 4, 1), stripes.preprocessing)
    message = r"log_likelihood is -inf.*gives an example the probability 0"
    with pytest.raises(NonFiniteError, match=f"test split: .*{message}"):
        evaluation.evaluate(run, stripes.test)
    with pytest.raises(NonFiniteError, match=r"index 0, whose elbo is -inf.*probabil"):
        evaluation.score(run, stripes.test)


def test_json_has_no_nan(tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(NonFiniteError, match=r"y\.json was not .* test/elbo is nan"):
        write_json(path, {"test": {"kl": 1.0, "elbo": float("nan")}})
    line = {"epoch": 1, "train": {"loss": float("inf")}}
    with pytest.raises(NonFiniteError, match=r"metrics\.jsonl.*train/loss is inf"):
        RunFolder(tmp_path).append([line], [1.0])
    assert not path.exists() and not (tmp_path / "metrics.jsonl").exists()
    with pytest.raises(NonFiniteError, match="the mean kl is nan, loss is inf"):
        check_terms("the mean", {"elbo": 0.0, "kl": np.nan, "loss": np.inf})


def test_a_failed_member_says_what_failed(vae, stripes, half_failed):
    members, workdir = half_failed
    failed, fine = members
    reason = r"has failed: .* is (nan|inf) at step \d+ \(epoch 1\)"
    folders = {m: workdir / "members" / f"learning_rate={m}" for m in (1e30, 0.01)}
    for use in (
        lambda: flaxvae.load(folders[1e30]),
        lambda: failed.trained.sample(2),
        lambda: evaluation.evaluate(failed.trained, stripes.test),
        lambda: fit(vae, stripes, start_from=failed.trained, **OPTIONS),
    ):
        with pytest.raises(NonFiniteError, match=reason):
            use()
    assert training.load(folders[1e30], check=False).failure == failed.failure
    assert flaxvae.load(folders[0.01]).failure is None
    rows = evaluation.tabulate(members, stripes)
    assert [row["failure"] for row in rows] == [failed.failure, None]
    assert rows[1]["epochs"] == fine.trained.epochs == 3
    assert "NaN" not in json.dumps(rows)
