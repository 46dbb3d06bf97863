"""How like real examples generated ones are, as metrics of a `Context`."""

from flaxvae.evaluation.estimates import Estimate, Measurement, estimate_share
from flaxvae.evaluation.measures.context import Context
from flaxvae.evaluation.recognition import check_recognized, recognize
from flaxvae.evaluation.sample_quality.samples import check_quality, sample_quality
from flaxvae.latent.generate import check_sampled
from flaxvae.types import Json


def quality(context: Context) -> Measurement:
    """Precision, recall, density, coverage and a Frechet distance of samples."""
    trained, dataset, config = context.trained, context.tested, context.config
    check_quality(
        trained,
        dataset,
        num=config.num_samples,
        sampler=config.sampler,
        code_prior=context.code_prior,
    )
    is_table = len(trained.data_shape) == 1
    found = sample_quality(
        trained,
        dataset,
        seed=context.seed,
        num=config.num_samples,
        sampler=config.sampler,
        classifier=None if is_table else context.classifier,
        code_prior=context.code_prior,
    )
    shares = {
        "precision": found["precision"],
        "recall": found["recall"],
        "density": found["density"],
        "coverage": found["coverage"],
    }
    numbers = {
        name: Estimate(part["value"], part["standard_error"])
        for name, part in shares.items()
    }
    distance = found["frechet_distance"]
    numbers["frechet_distance"] = Estimate(
        distance["value"], distance["standard_error"]
    )
    details: dict[str, Json] = {
        "features": found["features"],
        "samples": found["samples"],
        "num": found["num"],
        "k": found["k"],
        "classifier_accuracy": found["classifier_accuracy"],
        "references": {n: part["reference"] for n, part in shares.items()},
        "frechet_distance": {
            "bias": distance["bias"],
            "halves": distance["halves"],
            "reference": distance["reference"],
        },
    }
    return Measurement(numbers, details)


def recognition(context: Context) -> Measurement:
    """How a classifier of real examples classifies generated ones."""
    trained, dataset, config = context.trained, context.tested, context.config
    check_sampled(trained, sampler=config.sampler, code_prior=context.code_prior)
    check_recognized(dataset)
    found = recognize(
        trained,
        dataset,
        num=config.num_samples,
        sampler=config.sampler,
        classifier=context.classifier,
        code_prior=context.code_prior,
        seed=context.seed,
    )
    counts = {"generated": config.num_samples, "real": len(dataset.test)}
    numbers = {}
    for kind, row in found.items():
        for name, value in row.items():
            is_share = name != "classes"
            numbers[f"{kind}: {name}"] = (
                estimate_share(value, counts[kind]) if is_share else Estimate(value)
            )
    return Measurement(numbers)
