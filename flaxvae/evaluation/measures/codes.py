"""How codes are used and distributed, as metrics of a `Context`."""

import numpy as np

from flaxvae.checks import InputError
from flaxvae.evaluation.active_units import active_units
from flaxvae.evaluation.aggregate import aggregate_mmd, aggregate_moments
from flaxvae.evaluation.bound import check_vae, evaluate_terms
from flaxvae.evaluation.calibration import rank_calibration
from flaxvae.evaluation.codebook import code_usage, evaluate_code_prior
from flaxvae.evaluation.estimates import (
    Estimate,
    Measurement,
    collect,
    estimate_mean,
)
from flaxvae.evaluation.grid_posterior import check_gridded, grid_posterior
from flaxvae.evaluation.measures.bounds import BITS, kl
from flaxvae.evaluation.measures.context import Context
from flaxvae.evaluation.surgery import elbo_surgery
from flaxvae.evaluation.units import add_own_units
from flaxvae.models import VQVAE
from flaxvae.training.diagnostics import ACTIVE_KL
from flaxvae.types import Json

MOST_LISTED = 64  # dimensions, for a covariance matrix as JSON
GRIDDED = 6  # examples whose posteriors are computed on a grid


def active(context: Context) -> Measurement:
    """The latent dimensions that depend on the example."""
    trained, split = context.trained, context.split
    check_vae(trained)
    if not trained.has_levels:
        marks = active_units(trained, split, seed=context.seed)
    else:
        of_levels = kl(context).numbers.get("kl_per_dimension")
        if of_levels is None:
            raise InputError(
                "active units of several levels need the KL of each dimension, and a "
                "level of this model has dependent ones"
            )
        marks = np.asarray(of_levels.value) > ACTIVE_KL
    count = Estimate(float(marks.sum()), None, f"of {len(marks)}")
    return Measurement({"active_units": count}, {"is_active": marks.tolist()})


def surgery(context: Context) -> Measurement:
    """The parts of the KL: mutual information, total correlation, dimension-wise KL."""
    check_vae(context.trained)
    found = elbo_surgery(context.trained, context.split, seed=context.seed)
    if not found:
        raise InputError(
            "the parts of the KL need a prior without conditions and a q(z|x) whose "
            "density at all other codes is computed quickly: not that of a flow or of "
            "large grids of levels"
        )
    return Measurement(collect(found, list(found), "nats"))


def moments(context: Context) -> Measurement:
    """Mean and covariance of the aggregate posterior against those of the prior."""
    found = aggregate_moments(context.trained, context.split, seed=context.seed)
    q, p = found.posterior, found.prior
    variance_error = np.diagonal(q.covariance_error)
    numbers = {
        "mean": Estimate(q.mean.tolist(), q.mean_error.tolist()),
        "variance": Estimate(q.variance.tolist(), variance_error.tolist()),
        "largest_mean_gap": found.largest("mean"),
        "largest_variance_gap": found.largest("variance"),
    }
    if len(q.mean) > 1:
        numbers["largest_covariance_gap"] = found.largest("covariance")
    if len(q.mean) > MOST_LISTED:
        return Measurement(numbers)
    details: dict[str, Json] = {
        "covariance": q.covariance.tolist(),
        "covariance_standard_error": q.covariance_error.tolist(),
        "prior_mean": p.mean.tolist(),
        "prior_covariance": p.covariance.tolist(),
    }
    return Measurement(numbers, details)


def mmd(context: Context) -> Measurement:
    """The discrepancy between the aggregate posterior and the prior, by each kernel."""
    found = aggregate_mmd(context.trained, context.split, seed=context.seed)
    return Measurement({f"mmd_{kernel}": each for kernel, each in found.items()})


def codebook(context: Context) -> Measurement:
    """How the entries of a VQ-VAE's codebook are used, and -log p(code)."""
    trained, split, seed = context.trained, context.split, context.seed
    if not isinstance(trained.model, VQVAE):
        raise InputError(
            f"the model must have a codebook, and {type(trained.model).__name__} has "
            "none"
        )
    codes, train = context.codes.split(context.name), context.codes.train
    usage = code_usage(
        trained,
        split,
        seed=seed,
        codes=codes,
        train_codes=train if len(train) else None,
    )
    numbers = collect(usage, ["perplexity"], "entries")
    numbers |= collect(usage, ["dead_entries"])
    prior = context.code_prior
    if prior is None:
        return Measurement(numbers)
    of_codes = evaluate_code_prior(
        trained, split, seed=seed, code_prior=prior, codes=codes
    )
    numbers |= collect(of_codes, ["code_nll"], "nats")
    terms = evaluate_terms(trained, split, seed=seed)
    bits, _ = add_own_units(trained, split, terms | of_codes)
    return Measurement(numbers | collect(bits, ["bits_per_dim"], BITS))


def calibration(context: Context) -> Measurement:
    """Ranks of the codes of simulated examples among draws of q(z|x)."""
    check_vae(context.trained)
    few = {"num": 200, "num_draws": 19, "num_bins": 10}
    options = few if context.trained.has_levels else {}
    found = rank_calibration(
        context.trained, context.split, seed=context.seed, **options
    )
    numbers = {"joint_p_value": Estimate(found.joint_p_value)}
    errors = {
        "mean_rank": (found.mean, found.mean_standard_error),
        "variance_ratio": (found.variance_ratio, found.variance_standard_error),
    }
    for name, (value, error) in errors.items():
        numbers[name] = Estimate(value.tolist(), error.tolist())
    arrays = {
        "counts": found.counts,
        "p_value": found.p_value,
        "num_draws": np.asarray(found.num_draws),
    }
    if found.level_sizes is not None:
        arrays["level_sizes"] = np.asarray(found.level_sizes)
    return Measurement(numbers, found.describe(), arrays)


def posterior(context: Context) -> Measurement:
    """KL(q(z|x) || p(z|x)) on a grid of one or two latent dimensions."""
    trained = context.trained
    check_vae(trained)
    check_gridded(trained)
    rows = context.few[:GRIDDED]
    found = grid_posterior(trained, rows, seed=context.seed)
    details: dict[str, Json] = {
        "kl": found.kl.tolist(),
        "kl_error": found.kl_error.tolist(),
        "mass": found.mass.tolist(),
    }
    arrays = {name: getattr(found, name) for name in ("axes", "log_p", "log_q", "kl")}
    if len(trained.data_shape) == 3:
        stored = trained.preprocessing.stored(np.asarray(rows.x))
        arrays["images"] = np.asarray(trained.preprocessing.prepare(stored))
    of_examples = estimate_mean(found.kl, None, "nats")
    return Measurement({"kl_to_posterior": of_examples}, details, arrays)
