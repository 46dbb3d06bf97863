"""What codes say about labels and factors, as metrics of a `Context`."""

from flaxvae.checks import InputError
from flaxvae.evaluation.bound import evaluate_each
from flaxvae.evaluation.clustering import cluster
from flaxvae.evaluation.disentanglement.model import disentanglement
from flaxvae.evaluation.estimates import (
    Estimate,
    Measurement,
    collect,
    estimate_mean,
    estimate_share,
)
from flaxvae.evaluation.measures.context import Context
from flaxvae.evaluation.probe import probe
from flaxvae.evaluation.recognition import find_errors
from flaxvae.models import Classifier, SemiSupervisedVAE
from flaxvae.objectives import Classification


def accuracy(context: Context) -> Measurement:
    """The accuracy of a classifier, and its -log p(class)."""
    trained, split = context.trained, context.split
    if not isinstance(trained.model, Classifier | SemiSupervisedVAE):
        raise InputError(
            f"the model must classify, and {type(trained.model).__name__} does not"
        )
    errors = find_errors(trained, split, seed=context.seed)
    numbers = {"accuracy": estimate_mean(~errors, split.weights)}
    if isinstance(trained.model, Classifier):
        each = evaluate_each(trained, split, Classification(), seed=context.seed)
        loss = estimate_mean(each["loss"], split.weights, "nats")
        numbers["cross_entropy"] = loss
    return Measurement(numbers)


def probes(context: Context) -> Measurement:
    """Accuracies of linear and k-NN classifiers on codes, raw values and their PCA."""
    found = probe(context.trained, context.tested)
    numbers = {
        f"{features}: {name}": estimate_share(value, len(context.split))
        for features, row in found.items()
        for name, value in row.items()
    }
    return Measurement(numbers)


def clusters(context: Context) -> Measurement:
    """Whether clusters of codes are classes."""
    found = cluster(context.trained, context.split, seed=context.seed)
    return Measurement(collect(found, ["nmi", "ari"]), {"clusters": found["clusters"]})


def factors(context: Context) -> Measurement:
    """Whether dimensions of codes are factors: MIG, DCI, SAP and others."""
    names = context.dataset.factor_names
    found = disentanglement(
        context.trained, context.split, seed=context.seed, factor_names=names
    )
    numbers = {}
    for name, score in found.items():
        if isinstance(score, dict) and isinstance(value := score["value"], float):
            error = score["standard_error"]
            of_value = error if isinstance(error, float) else None
            numbers[name] = Estimate(value, of_value)
    return Measurement(numbers, found)
