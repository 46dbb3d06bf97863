"""Ask a classifier of real examples what it sees in those that a model makes.

    python -m experiments.recognize --workdir=runs/mnist_vae/... --dataset=mnist

Of a model that is told classes they are asked for in turn.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import run_command
from experiments.flags import DataFlags, StartFlags
from experiments.runs import choose_sampler, count_classes, load_data, load_run
from flaxvae import evaluation, training
from flaxvae.checks import check_at_least, check_seed
from flaxvae.files import write_json


@dataclass(frozen=True)
class Flags:
    """Classifies what a model makes, by a classifier of the real examples."""

    workdir: Path
    """Folder of the run with the model; the classifier is kept in it."""
    num: int = 10_000
    """Examples to make."""
    sampler: Literal["prior", "mixture", "aggregate"] = "prior"
    """Codes: prior, a mixture fitted to codes, or a training example's own."""
    classifier_epochs: int = 5
    """Epochs of the classifier."""
    seed: int = 0
    """Seed of the draws and of the classifier."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)


def main(flags: Flags) -> None:
    """Model, classifier, examples, numbers."""
    check_at_least("num", flags.num, 1)
    check_at_least("classifier_epochs", flags.classifier_epochs, 1)
    check_seed(flags.seed)
    trained = load_run(flags.workdir)
    dataset = load_data(flags.data, trained)
    workdir = flags.workdir.expanduser()
    classifier = evaluation.train_classifier(
        dataset,
        epochs=flags.classifier_epochs,
        seed=flags.seed,
        workdir=workdir / f"classifier-{flags.classifier_epochs}-{flags.seed}",
    )
    real = evaluation.describe_recognition(
        evaluation.recognize(
            classifier, np.asarray(dataset.preprocessing.prepare(dataset.test.x))
        ),
        dataset.test.labels,
    )
    num_classes = count_classes(workdir, trained)
    asked = None if num_classes is None else np.arange(flags.num) % num_classes
    sampler = choose_sampler(
        workdir, trained, flags.sampler, dataset.train.x, flags.seed, asked
    )
    key = training.stream_key(jax.random.key(flags.seed), training.Stream.FIGURES)
    told = asked if trained.is_conditional else None
    made = trained.sample(flags.num, key=key, sampler=sampler, condition=told)
    found = evaluation.describe_recognition(
        evaluation.recognize(classifier, np.asarray(made)), asked
    )
    write_json(workdir / "recognition.json", {"made": found, "real": real})
    print_table(found, real, flags)


def print_table(found: dict[str, float], real: dict[str, float], flags: Flags) -> None:
    """Made and real examples side by side."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{flags.num:,} examples of {flags.workdir}")
    table.add_column("recognised")
    table.add_column("made", justify="right")
    table.add_column("real (test)", justify="right")
    names = {
        "as_asked": ("as the class asked for (real: their own)", "{:.2%}"),
        "confident": ("with a probability above 0.9", "{:.2%}"),
        "classes": ("classes in use, exp of their entropy", "{:.2f}"),
    }
    for name, (title, form) in names.items():
        made = form.format(found[name]) if name in found else "-"
        table.add_row(title, made, form.format(real[name]))
    Console().print(table)


if __name__ == "__main__":
    run_command(main, Flags)
