"""Objective, prior, posterior, likelihood and network are independent choices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.nn.likelihoods import LIKELIHOODS
from flaxvae.nn.posteriors import POSTERIORS
from flaxvae.nn.priors import PRIORS
from flaxvae.objectives import OBJECTIVES
from flaxvae.training.optimizers import adam
from flaxvae.training.state import create_state
from flaxvae.training.step import train_step

CHOICES = {
    "objective": list(OBJECTIVES),
    "prior": [name for name in PRIORS if name != "conditional"],
    "posterior": list(POSTERIORS),
    "likelihood": [name for name in LIKELIHOODS if name != "mixed"],  # of images
    "encoder": ["mlp", "conv", "resnet"],
}
# These need independent dimensions of q(z|x).
REFUSED = [
    frozenset([("objective", objective), ("posterior", posterior)])
    for objective in ("tcvae", "factor", "dip")
    for posterior in CHOICES["posterior"]
    if posterior != "diagonal"
]
LEVELS = 4  # grey levels, for the likelihoods over levels
# For objectives that would be heavy; the others are used as they are.
OPTIONS = {name: {"num_samples": 4} for name in ("iwae", "miwae", "piwae", "ciwae")}
OPTIONS["piwae"]["num_means"] = OPTIONS["miwae"]["num_means"] = 2
STEPS = 100


def pairs_of(row):
    """Every two of the choices that a row makes."""
    return {frozenset(pair) for pair in itertools.combinations(row, 2)}


def cover_pairs():
    """Few rows, one choice of each kind in each, with all pairs that make sense."""
    everything = [(kind, name) for kind in CHOICES for name in CHOICES[kind]]
    missing = [
        frozenset(pair)
        for pair in itertools.combinations(everything, 2)
        if pair[0][0] != pair[1][0] and frozenset(pair) not in REFUSED
    ]
    rows = []
    while missing:
        row = sorted(missing[0])
        for kind in [kind for kind in CHOICES if kind not in dict(row)]:
            longer = [[*row, (kind, name)] for name in CHOICES[kind]]
            sensible = [r for r in longer if not pairs_of(r).intersection(REFUSED)]
            row = max(sensible, key=lambda r: len(pairs_of(r).intersection(missing)))
        missing = [pair for pair in missing if pair not in pairs_of(row)]
        rows.append({kind: dict(row)[kind] for kind in CHOICES})
    return rows


def build(*, objective, prior, posterior, likelihood, encoder):
    """The model of a row, and its objective."""
    settings = {"hidden": (16,)}
    if encoder != "mlp":
        settings = {"filters": (4,)}
    if encoder == "resnet":
        settings["num_residual_blocks"] = 1
    if likelihood in ("categorical", *(n for n in LIKELIHOODS if "discretized" in n)):
        settings["levels"] = LEVELS
    vae = build_vae(
        (4, 4, 1),
        2,
        encoder=encoder,
        likelihood=likelihood,
        prior=prior,
        posterior=posterior,
        prior_components=5 if prior in ("mixture", "vamp") else None,
        **settings,
    )
    return vae, OBJECTIVES[objective](**OPTIONS.get(objective, {}))


@pytest.fixture
def images(stripes):
    """``(32, 4, 4, 1)``, of four grey levels from 0 to 1."""
    return jnp.round(jnp.asarray(stripes.train.x[:32]) / 255 * (LEVELS - 1)) / (
        LEVELS - 1
    )


ROWS = [
    pytest.param(
        row,
        id=" ".join(row.values()),
        marks=[pytest.mark.slow] if number % 24 else [],
    )
    for number, row in enumerate(cover_pairs())
]


@pytest.mark.parametrize("row", ROWS)
def test_every_pair_of_choices_trains(images, stripes, row):
    vae, objective = build(**row)
    objective.check(vae, stripes)
    completed = objective.complete(vae, stripes)
    vae, objective = completed.model, completed.objective
    optimizer = completed.wrap_optimizer(adam(3e-3))
    state = create_state(vae, objective, optimizer, images)
    traces = []

    def preprocess(x, key):
        traces.append(None)
        return x

    step = jax.jit(functools.partial(train_step, vae, optimizer, preprocess))
    history = []
    for _ in range(STEPS):
        state, metrics = step(state, images)
        history.append(metrics)
    assert len(traces) == 1
    for leaf in jax.tree.leaves((history, state.params)):
        assert np.isfinite(leaf).all()
    losses = [float(metrics["loss"]) for metrics in history]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert {"elbo", "log_likelihood", "kl"} <= metrics.keys()


def test_pairs_without_sense_are_refused(images, stripes):
    for pair in REFUSED:
        row = {name: CHOICES[name][0] for name in CHOICES} | dict(pair)
        vae, objective = build(**row)
        with pytest.raises(InputError, match="posterior must be diagonal for"):
            objective.check(vae, stripes)
        completed = objective.complete(vae, stripes)
        with pytest.raises(InputError, match="diagonal"):
            create_state(completed.model, completed.objective, adam(3e-3), images)
