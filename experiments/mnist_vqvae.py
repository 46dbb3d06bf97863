"""Train a VQ-VAE on images, then a prior over its codes, and sample from both.

    python -m experiments.mnist_vqvae
    python -m experiments.mnist_vqvae --quantizer=fsq
    python -m experiments.mnist_vqvae --likelihood=discretized_logistic

Numbers to expect stand in ``experiments/README.md``.
"""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import name_workdir, run_command
from experiments.examples import choose_classes, choose_examples
from experiments.flags import (
    NOT_SETTINGS,
    DataFlags,
    NetworkFlags,
    StartFlags,
    TrainingFlags,
    flag_values,
)
from flaxvae import InputError, TrainedVAE, evaluation, latent, training
from flaxvae.checks import check_above, check_at_least, check_below, check_seed
from flaxvae.data import Dataset, Split, condition_on_labels
from flaxvae.models import VQVAE, CodePrior, build_vqvae
from flaxvae.objectives import autoregressive, quantization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTES = NOT_SETTINGS | {"workdir", "data_dir", "figures"}
PRIOR_FLAGS = {"prior_epochs", "prior_classes", "prior_batch_size", "prior_width"}
PRIOR_FLAGS |= {"prior_layers", "prior_learning_rate"}
PRIOR_EXAMPLES = 342_000  # that a prior is trained on, counted as often as seen
MOST_PRIOR_EPOCHS = 12  # of few examples; more fits the prior to these
PIXEL_SCALE = 0.15  # of the default likelihood: half the spread of MNIST's pixels


@dataclass(frozen=True)
class Flags:
    """Trains a VQ-VAE and a prior over its codes. The same command continues both."""

    quantizer: Literal["vq", "fsq"] = "vq"
    """A learned codebook (arXiv 1711.00937), or finite scalars (arXiv 2309.15505)."""
    num_codes: int = 512
    """vq: entries of the codebook."""
    code_width: int = 32
    """vq: numbers of an entry."""
    fsq_levels: tuple[int, ...] = (8, 8, 8)
    """fsq: levels of each number; their product is the number of entries."""
    codebook: Literal["ema", "gradient"] = "ema"
    """vq: entries follow by moving averages, or learn by gradients."""
    decay: float = 0.99
    """vq, ema: of the moving averages, a step."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """vq: what is nearest."""
    commitment: float = 20.0
    """vq: weight of the features' distance from their entries."""
    learning_rate: float = 1e-3
    """Highest step size of the optimizer."""
    prior_epochs: int | None = None
    """Epochs of the prior; 0: none, and no samples; None: 6 for MNIST, 12 at most."""
    prior_classes: bool = True
    """Tell it the class of a code, where examples have one; samples can be of one."""
    prior_batch_size: int = 32
    """Codes in one of its training steps; fewer learn more of each epoch."""
    prior_width: int = 128
    """Features of each entry in the prior's transformer."""
    prior_layers: int = 3
    """Its layers."""
    prior_learning_rate: float = 1e-3
    """Its highest step size; it falls to 0 by a cosine."""
    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run; None: under runs/mnist_vqvae, named by data and flags."""
    figures: bool = True
    """Draw the figures."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    network: OmitArgPrefixes[NetworkFlags] = field(
        default_factory=lambda: NetworkFlags(encoder="resnet")
    )
    train: OmitArgPrefixes[TrainingFlags] = field(default_factory=TrainingFlags)
    engine: OmitArgPrefixes[training.Engine] = field(default_factory=training.Engine)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)

    def build(self, dataset: Dataset | None = None) -> VQVAE:
        """The model for a data set; None: for any, to see whether there is one."""
        defaults: dict[str, Any] = {"likelihood": "normal"}
        if self.network.likelihood in (None, "normal"):
            defaults |= {"scale": "fixed", "init_scale": PIXEL_SCALE}
        levels = dataset.levels if dataset else None
        return build_vqvae(
            dataset.shape if dataset else (8, 8, 1),
            quantizer=self.quantizer,
            num_codes=self.num_codes,
            code_width=self.code_width,
            decay=self.decay if self.codebook == "ema" else None,
            distance=self.distance,
            fsq_levels=self.fsq_levels,
            **self.network.settings(levels, **defaults),
        )


def main(flags: Flags) -> None:
    """Data, model, training, prior, numbers, pictures."""
    check_flags(flags)
    flags.train.set_precision()
    dataset = flags.data.load()
    if dataset.is_table:
        raise InputError(f"dataset must hold images, got rows in {dataset.name!r}")
    if len(dataset.test) < 2:
        raise InputError(
            f"test_size must leave two test examples, got {flags.data.test_size}, "
            f"which leaves {len(dataset.test)}"
        )
    epochs = flags.train.choose_epochs(dataset)
    workdir = flags.workdir or name_workdir(
        "mnist_vqvae", dataset.name, flags, NOTES | {"dataset"}
    )
    workdir = workdir.expanduser()
    training.check_writable(workdir)
    values = {
        name: list(v) if isinstance(v, tuple) else v
        for name, v in flag_values(flags).items()
        if name not in NOTES | PRIOR_FLAGS and v is not None
    } | {"dataset": dataset.name, "epochs": epochs}
    weights = {"commitment": flags.commitment}
    trained = training.fit(
        flags.build(dataset),
        dataset,
        objective=quantization,
        weights=weights,
        **flags.train.for_fit(dataset, epochs, flags.learning_rate),
        seed=flags.seed,
        workdir=workdir,
        settings=values,
        engine=flags.engine,
    )
    codes = encode_dataset(trained, dataset)
    splits = (codes.train, codes.validation, codes.test)
    if flags.prior_classes and all(split.labels is not None for split in splits):
        codes = condition_on_labels(codes)
    prior = None
    if flags.prior_epochs != 0:
        print("training the prior over the codes", file=sys.stderr)
        prior = fit_prior(codes, workdir / "prior", flags)
    training.hosts.leave()
    if not training.hosts.is_main():
        return
    test = measure(trained, prior, dataset, codes, flags)
    figures = []
    if flags.figures:
        figures = draw_figures(trained, prior, dataset, codes, workdir, flags)
    summary = {
        "dataset": dataset.name,
        "network": f"{flags.network.encoder}, {flags.quantizer}",
        "code": [*trained.code_shape[:2], num_codes(trained)],
        "parameters": trained.parameters,
        "prior_parameters": prior.parameters if prior else 0,
        "prior_classes": prior.model.num_classes if prior else None,
        "epochs": len(trained.history),
        "prior_epochs": len(prior.history) if prior else 0,
        "device": training.device_name(),
        **trained.timing,
        "test": test,
        "figures": [str(path.relative_to(workdir)) for path in figures],
    }
    training.RunFolder(workdir).write_summary(summary)
    print_summary(summary, workdir)


def check_flags(flags: Flags) -> None:
    """Refuses values that no run could use, before anything is loaded."""
    check_above("learning_rate", flags.learning_rate, 0)
    check_above("prior_learning_rate", flags.prior_learning_rate, 0)
    check_at_least("commitment", flags.commitment, 0)
    if flags.prior_epochs is not None:
        check_at_least("prior_epochs", flags.prior_epochs, 0)
    check_at_least("prior_batch_size", flags.prior_batch_size, 1)
    check_at_least("prior_layers", flags.prior_layers, 1)
    check_at_least("prior_width", flags.prior_width, 4)
    if flags.prior_width % 4:
        raise InputError(
            f"prior_width must be a multiple of 4, the number of heads, got "
            f"{flags.prior_width}"
        )
    check_above("decay", flags.decay, 0)
    check_below("decay", flags.decay, 1)
    check_seed(flags.seed)
    flags.train.check()
    flags.engine.check()
    flags.data.check()
    flags.build()


def num_codes(trained: TrainedVAE) -> int:
    """M."""
    return int(trained.model.quantizer.num_codes)


def encode_dataset(trained: TrainedVAE, dataset: Dataset) -> Dataset:
    """The numbers of the entries as examples, ``(N, H', W', 1)``."""

    def encode(split: Split) -> Split:
        if not len(split):
            empty = np.zeros((0, *trained.code_shape[:2], 1), np.uint16)
            return Split(empty, split.labels)
        indices = np.asarray(trained.encode(split.x).indices)
        dtype = np.uint16 if num_codes(trained) <= 2**16 else np.int32
        return Split(indices[..., None].astype(dtype), split.labels)

    return Dataset(
        f"codes of {dataset.name}",
        encode(dataset.train),
        encode(dataset.validation),
        encode(dataset.test),
        max_value=num_codes(trained) - 1,
        class_names=dataset.class_names,
    )


def fit_prior(codes: Dataset, workdir: Path, flags: Flags) -> TrainedVAE:
    """The second stage: a transformer over the codes of the training examples."""
    model = CodePrior(
        int(codes.max_value) + 1,
        columns=codes.shape[1],
        num_classes=None if codes.train.condition is None else codes.num_classes,
        width=flags.prior_width,
        num_layers=flags.prior_layers,
    )
    batch_size = min(flags.prior_batch_size, len(codes.train))
    fitting = max(1, round(PRIOR_EXAMPLES / len(codes.train)))
    epochs = flags.prior_epochs or min(fitting, MOST_PRIOR_EPOCHS)
    steps = epochs * (len(codes.train) // batch_size)
    optimizer = training.build_optimizer(
        "adam",
        flags.prior_learning_rate,
        schedule="cosine",
        total_steps=steps,
        clip_norm=1.0,
    )
    return training.fit(
        model,
        codes,
        objective=autoregressive,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=flags.seed,
        workdir=workdir,
        engine=flags.engine,
    )


def measure(
    trained: TrainedVAE,
    prior: TrainedVAE | None,
    dataset: Dataset,
    codes: Dataset,
    flags: Flags,
) -> dict[str, float]:
    """The numbers of the test split; dead entries are those of the training split."""
    test = evaluation.evaluate_terms(
        trained,
        dataset,
        dataset.test,
        quantization,
        seed=flags.seed,
        commitment=flags.commitment,
    )
    shares = share_codes(codes.test.x, num_codes(trained))
    used = shares[shares > 0]
    test["perplexity"] = float(np.exp(-np.sum(used * np.log(used))))
    in_training = share_codes(codes.train.x, num_codes(trained))
    test["dead_entries"] = float((in_training == 0).mean())
    del test["code_usage"]  # of evaluation batches
    if prior is not None:
        found = evaluation.evaluate_terms(prior, codes, codes.test, autoregressive)
        test["code_nll"] = found["loss"]
        likelihood: Any = getattr(trained.model, "likelihood", None)
        if getattr(likelihood, "support", None) == "levels":
            nats = found["loss"] - test["log_likelihood"]
            test["bits_per_dim"] = nats / math.log(2) / math.prod(dataset.shape)
    return test


def share_codes(x: np.ndarray, count: int) -> np.ndarray:
    """How often each entry is used, as shares ``(M,)``."""
    uses = np.bincount(np.asarray(x, np.int64).ravel(), minlength=count)
    return uses / uses.sum()


def draw_figures(
    trained: TrainedVAE,
    prior: TrainedVAE | None,
    dataset: Dataset,
    codes: Dataset,
    workdir: Path,
    flags: Flags,
) -> list[Path]:
    """Draws every figure and returns their paths."""
    from flaxvae.latent import figures

    height, width = trained.code_shape[:2]
    M = num_codes(trained)
    name = f"{dataset.name}, {flags.quantizer.upper()} {height}x{width} of {M}"
    shown = choose_examples(dataset.test)
    stored = dataset.test.x[shown]
    images = np.asarray(dataset.preprocessing.prepare(jax.numpy.asarray(stored)))
    decoded = np.asarray(trained.reconstruct(stored))
    maps = paint_codes(trained, np.asarray(trained.encode(stored).mean), images.shape)

    def in_color(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x.mean(-1, keepdims=True), (*x.shape[:-1], 3))

    drawn = {
        "training_curves": figures.plot_training_curves(
            trained.history, title=f"Training: {name}"
        ),
        "reconstructions": figures.plot_reconstructions(
            images, decoded, title=f"Test images and their reconstructions: {name}"
        ),
        "code_maps": figures.plot_rows(
            np.stack([in_color(images), maps, in_color(decoded)]),
            ["original", "code", "reconstruction"],
            title=f"Codes of test images, like entries in like colours: {name}",
        ),
        "code_usage": figures.plot_code_usage(
            share_codes(codes.train.x, M), title=f"Codes of training images: {name}"
        ),
    }
    if prior is not None:
        drawn["samples"] = draw_samples(trained, prior, codes, name, flags)
        drawn["prior_training_curves"] = figures.plot_training_curves(
            prior.history, title=f"Training of the prior over codes: {name}"
        )
    folder = workdir / "figures"
    for stem, figure in drawn.items():
        figures.save_figure(figure, folder / f"{stem}.png")
    return [folder / f"{stem}.png" for stem in drawn]


def draw_samples(
    trained: TrainedVAE, prior: TrainedVAE, codes: Dataset, name: str, flags: Flags
) -> "Figure":
    """Samples from the prior over codes, of each class it knows a row."""
    from flaxvae.latent import figures

    key = training.stream_key(jax.random.key(flags.seed), training.Stream.FIGURES)
    title = f"Samples from the prior over codes: {name}"
    if prior.model.num_classes is None:
        sampler = latent.CodeSampler(prior, trained)
        samples = np.asarray(trained.sample(100, key=key, sampler=sampler))
        return figures.plot_samples(samples, title=title, columns=20)
    told, names = choose_classes(codes)
    sampler = latent.CodeSampler(prior, trained, told.ravel())
    samples = np.asarray(trained.sample(told.size, key=key, sampler=sampler))
    shape = (*told.shape, *trained.data_shape)
    return figures.plot_rows(samples.reshape(shape), names, title=title)


def paint_codes(
    trained: TrainedVAE, codes: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Codes ``(N, H', W', D)`` as coloured images of the examples' size.

    Red, green and blue are the directions in which the entries vary most.
    """
    numbers = np.arange(num_codes(trained))
    looked_up = trained.model.apply(trained.variables, numbers, method="lookup")
    entries = np.asarray(looked_up)  # (M, D)
    mean = entries.mean(axis=0)
    _, directions = np.linalg.eigh(np.atleast_2d(np.cov(entries.T)))
    largest = directions[:, ::-1][:, :3]  # (D, 3), or fewer
    low, high = np.quantile((entries - mean) @ largest, [0.02, 0.98], axis=0)
    places = np.clip(((codes - mean) @ largest - low) / (high - low), 0, 1)
    colors = np.zeros((*codes.shape[:-1], 3))
    colors[..., : places.shape[-1]] = places
    rows = np.arange(shape[1]) * codes.shape[1] // shape[1]
    columns = np.arange(shape[2]) * codes.shape[2] // shape[2]
    return colors[:, rows][:, :, columns]


def print_summary(summary: dict[str, Any], workdir: Path) -> None:
    """Prints the final numbers as one small table."""
    from rich.console import Console
    from rich.table import Table

    test = summary["test"]
    rows, columns, M = summary["code"]
    title = f"{summary['dataset']}, {summary['network']}, {rows}x{columns} of {M}"
    table = Table(title=title, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("test squared error", f"{test['squared_error']:.5f}, mean of pixels")
    table.add_row("reconstruction", f"{-test['log_likelihood']:.2f} nats per example")
    table.add_row("perplexity", f"{test['perplexity']:.1f} of {M}")
    table.add_row("dead entries", f"{test['dead_entries']:.1%}")
    if "code_nll" in test:
        Y = summary["prior_classes"]
        most = rows * columns * math.log(M) + math.log(Y or 1)
        table.add_row(
            "test -log p(code)" if Y is None else "test -log p(code, class)",
            f"{test['code_nll']:.2f} nats; evenly {most:.2f}",
        )
    if "bits_per_dim" in test:
        table.add_row("test bits per dimension", f"{test['bits_per_dim']:.3f}, at most")
    table.add_row(
        "parameters",
        f"{summary['parameters']:,}; of the prior {summary['prior_parameters']:,}",
    )
    table.add_row(
        "epochs",
        f"{summary['epochs']}, prior {summary['prior_epochs']}, on {summary['device']}",
    )
    table.add_row("written to", str(workdir))
    folders = ["prior/"] if summary["prior_epochs"] else []
    names = [*folders, "summary.json", *summary["figures"]]
    table.add_row("files", "\n".join(names))
    Console().print(table)


if __name__ == "__main__":
    run_command(main, Flags)
