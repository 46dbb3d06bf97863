"""Classify with few labels: by codes of a VAE, by M2, and by both one on the other.

    python -m experiments.semi_supervised --labels=100
    python -m experiments.semi_supervised --labels=1000 --methods m1 m1+m2 --seed 0

``m1``: a VAE of all examples, then a classifier of its codes that also follows how
codes without labels lie. ``m2``: a conditional VAE whose classes are summed out where
they are not known. ``m1+m2``: M2 on the codes of the VAE. ``classifier``: a network
that sees the labelled examples only. Numbers to expect stand in
``experiments/README.md``. Source: Kingma et al., "Semi-supervised Learning with Deep
Generative Models", 2014, arXiv 1406.5298.
"""

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import name_workdir, run_command
from experiments.flags import DataFlags, StartFlags, read_seeds
from flaxvae import InputError, TrainedVAE, training
from flaxvae.checks import check_above, check_at_least
from flaxvae.data import Dataset, Split, choose_labelled
from flaxvae.files import write_json
from flaxvae.models import (
    Classifier,
    SemiSupervisedVAE,
    build_classifier,
    build_vae,
)
from flaxvae.objectives import SemiSupervised
from flaxvae.schedules import build_schedule

NEIGHBOURS = 10  # of a code, by which labels spread
NOT_NAMED = {"workdir", "data_dir", "dataset", "methods", "seed", "compilation_cache"}
NOT_NAMED |= {"coordinator", "num_processes", "process_id"}


@dataclass(frozen=True)
class Flags:
    """Compares ways to classify with few labels; the same command continues it."""

    labels: int = 100
    """Labelled training examples in all, as many of each class."""
    methods: tuple[Literal["classifier", "m1", "m2", "m1+m2"], ...] = (
        "classifier",
        "m1",
        "m2",
        "m1+m2",
    )
    """What to compare."""
    seed: tuple[str, ...] = ("0", "1", "2")
    """Seeds of the choice of labels and of all training: numbers, or such as 0..4."""
    split: Literal["test", "validation"] = "test"
    """What errors are reported of; validation: to choose settings by."""
    m1_epochs: int = 40
    """Epochs of M1's VAE."""
    m1_latent_dim: int = 50
    """Its latent dimensions."""
    m1_hidden: tuple[int, ...] = (600, 600)
    """Widths of its layers."""
    m2_epochs: int = 8
    """Epochs of M2 on examples."""
    m2_latent_dim: int = 2
    """Latent dimensions of M2, beside the class; fewer leave more for it to say."""
    m2_hidden: tuple[int, ...] = (256,)
    """Widths of its layers, and of a classifier mlp."""
    m2_classifier: Literal["mlp", "conv"] = "conv"
    """Network of its classifier, and of the one alone; rows of numbers have an mlp."""
    m2_alpha: float = 100.0
    """Weight of its classifier's error."""
    stacked_epochs: int = 20
    """Epochs of M2 on codes."""
    stacked_latent_dim: int = 10
    """Latent dimensions of M2 on codes."""
    stacked_hidden: tuple[int, ...] = (500,)
    """Widths of its layers, and of its classifier's."""
    stacked_alpha: float = 1.0
    """Weight of its classifier's error."""
    learning_rate: float = 1e-3
    """Highest step size of every optimizer; it falls to 0 by a cosine."""
    batch_size: int = 128
    """Unlabelled examples in a training step."""
    workdir: Path | None = None
    """Folder of all runs; None: under runs/semi_supervised, named by data and flags."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)


def main(flags: Flags) -> None:
    """Data, labels, methods, table."""
    seeds = read_seeds(flags.seed)
    check_flags(flags)
    dataset = flags.data.load()
    if dataset.train.labels is None:
        raise InputError(f"dataset must have labels, got {dataset.name!r}")
    if not len(getattr(dataset, flags.split)):
        raise InputError(f"split must hold an example, and {flags.split} has none")
    workdir = flags.workdir or name_workdir(
        "semi_supervised", dataset.name, flags, NOT_NAMED
    )
    workdir = workdir.expanduser()
    training.check_writable(workdir)
    errors: dict[str, list[float]] = {}
    for seed in seeds:
        rows = choose_labelled(dataset.train.labels, flags.labels, seed=seed)
        study = Study(flags, dataset, rows, seed, workdir / f"seed={seed}")
        for method in flags.methods:
            for name, error in study.measure(method).items():
                errors.setdefault(name, []).append(error)
                print(f"seed {seed}, {name}: error {error:.2%}", file=sys.stderr)
    write_json(
        workdir / "results.json",
        {"labels": flags.labels, "seeds": seeds, "split": flags.split, "error": errors},
    )
    print_table(errors, flags, dataset, workdir)


def check_flags(flags: Flags) -> None:
    """Refuses values that no run could use, before anything is loaded."""
    flags.data.check()
    if not flags.methods:
        raise InputError("methods must name one, got none")
    for name in ("labels", "m1_epochs", "m2_epochs", "stacked_epochs", "batch_size"):
        check_at_least(name, getattr(flags, name), 1)
    for name in ("m1_latent_dim", "m2_latent_dim", "stacked_latent_dim"):
        check_at_least(name, getattr(flags, name), 1)
    for name in ("m2_alpha", "stacked_alpha", "learning_rate"):
        check_above(name, getattr(flags, name), 0)
    for name in ("m1_hidden", "m2_hidden", "stacked_hidden"):
        for width in getattr(flags, name):
            check_at_least(name, width, 1)


@dataclass(frozen=True)
class Study:
    """One choice of labels, and what the methods make of it."""

    flags: Flags
    dataset: Dataset
    rows: np.ndarray  # numbers of the labelled training examples
    seed: int
    workdir: Path

    def measure(self, method: str) -> dict[str, float]:
        """The errors of a method, as shares of the split's examples."""
        if method == "classifier":
            return {"classifier alone": self.error_of(self.classifier(), self.dataset)}
        if method == "m1":
            return self.classify_codes()
        if method == "m2":
            flags = self.flags
            model = self.build_m2(self.dataset, flags.m2_latent_dim, flags.m2_hidden)
            # At first by the labels alone: what is easy to generate would lead astray.
            steps = flags.m2_epochs * self.steps_per_epoch
            trained = self.fit_m2(
                "m2",
                model,
                self.dataset,
                flags.m2_epochs,
                flags.m2_alpha,
                schedules={"feedback": build_schedule("linear", max(1, steps // 2))},
            )
            return {"M2": self.error_of(trained, self.dataset)}
        flags, codes = self.flags, self.codes
        model = self.build_m2(codes, flags.stacked_latent_dim, flags.stacked_hidden)
        trained = self.fit_m2(
            "m1+m2", model, codes, flags.stacked_epochs, flags.stacked_alpha
        )
        return {"M1+M2": self.error_of(trained, codes)}

    @property
    def num_classes(self) -> int:
        """Y."""
        return self.dataset.num_classes or 1

    def classifier(self) -> TrainedVAE:
        """M2's classifier, of the labelled examples alone."""
        from flaxvae.data import condition_on_labels
        from flaxvae.objectives import classification

        few = self.dataset.train[self.rows]
        told = condition_on_labels(
            Dataset("labelled", few, few[:0], few[:0], self.dataset.max_value)
        )
        return training.fit(
            self.build_classifier(self.dataset, self.flags.m2_hidden),
            told,
            objective=classification,
            optimizer=training.build_optimizer("adam", 1e-3),
            epochs=300,
            batch_size=min(100, len(few)),
            seed=self.seed,
            workdir=self.workdir / "classifier",
            settings={"labelled": self.rows.tolist()},
            progress=False,
        )

    @functools.cached_property
    def m1(self) -> TrainedVAE:
        """The VAE of all training examples."""
        flags = self.flags
        vae = build_vae(
            self.dataset.shape,
            flags.m1_latent_dim,
            hidden=flags.m1_hidden,
            likelihood="normal" if self.dataset.is_table else "bernoulli",
        )
        return training.fit(
            vae,
            self.dataset,
            **self.schedule(flags.m1_epochs),
            seed=self.seed,
            workdir=self.workdir / "m1",
        )

    @functools.cached_property
    def codes(self) -> Dataset:
        """M1's posterior means as a table, with mean 0 and deviation 1."""

        def encode(split: Split) -> np.ndarray:
            D = self.flags.m1_latent_dim
            if not len(split):
                return np.zeros((0, D), np.float32)
            return np.asarray(self.m1.encode(split.x).mean)

        z = {
            n: encode(getattr(self.dataset, n)) for n in ("train", "validation", "test")
        }
        mean, std = z["train"].mean(axis=0), z["train"].std(axis=0)
        # A dimension that M1 leaves unused stays small.
        scale = np.maximum(std, 0.1)
        splits: dict[str, Any] = {
            name: Split((each - mean) / scale, getattr(self.dataset, name).labels)
            for name, each in z.items()
        }
        return Dataset(f"codes of {self.dataset.name}", **splits)

    def classify_codes(self) -> dict[str, float]:
        """Classifiers of M1's codes: by the labelled ones, and by how all lie."""
        from sklearn.semi_supervised import LabelSpreading
        from sklearn.svm import SVC

        train, other = self.codes.train, getattr(self.codes, self.flags.split)
        labels = train.labels
        assert labels is not None
        machine = SVC(C=10.0).fit(train.x[self.rows], labels[self.rows])
        known = np.full(len(train), -1)
        known[self.rows] = labels[self.rows]
        spreading = LabelSpreading(
            kernel="knn", n_neighbors=NEIGHBOURS, alpha=0.9, max_iter=100, n_jobs=-1
        ).fit(train.x, known)
        return {
            "M1 + support vectors": 1 - machine.score(other.x, other.labels),
            "M1 + label spreading": 1 - spreading.score(other.x, other.labels),
        }

    def build_m2(
        self, dataset: Dataset, latent_dim: int, hidden: tuple[int, ...]
    ) -> SemiSupervisedVAE:
        """M2 for images, or for rows of numbers."""
        vae = build_vae(
            dataset.shape,
            latent_dim,
            hidden=hidden,
            likelihood="normal" if dataset.is_table else "bernoulli",
            conditional="concat",
            num_classes=self.num_classes,
        )
        return SemiSupervisedVAE(vae, self.build_classifier(dataset, hidden))

    def build_classifier(self, dataset: Dataset, hidden: tuple[int, ...]) -> Classifier:
        """For images, or for rows of numbers."""
        if dataset.is_table or self.flags.m2_classifier == "mlp":
            return build_classifier("mlp", self.num_classes, hidden=hidden)
        return build_classifier("conv", self.num_classes)

    def fit_m2(
        self,
        name: str,
        model: SemiSupervisedVAE,
        dataset: Dataset,
        epochs: int,
        alpha: float,
        **more: Any,
    ) -> TrainedVAE:
        """Trains M2 on all examples, a few of them with labels."""
        few = dataset.train[self.rows]
        seen = np.asarray(dataset.preprocessing.prepare(np.asarray(few.x)))
        return training.fit(
            model,
            dataset,
            objective=SemiSupervised(seen, few.labels),
            weights={"alpha": alpha, "feedback": 1.0},
            **more,
            settings={"labelled": self.rows.tolist()},
            **self.schedule(epochs),
            seed=self.seed,
            workdir=self.workdir / name,
        )

    def schedule(self, epochs: int) -> dict[str, Any]:
        """How every model of all examples is trained."""
        optimizer = training.build_optimizer(
            "adam",
            self.flags.learning_rate,
            schedule="cosine",
            total_steps=epochs * self.steps_per_epoch,
        )
        return {
            "optimizer": optimizer,
            "epochs": epochs,
            "batch_size": self.flags.batch_size,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Of every training on all examples."""
        return max(1, len(self.dataset.train) // self.flags.batch_size)

    def error_of(self, trained: TrainedVAE, dataset: Dataset) -> float:
        """The share of the split's examples that get another class than theirs."""
        split = getattr(dataset, self.flags.split)
        logits = trained.compute(lambda model, x: model(x), split.x)
        return float((np.asarray(logits).argmax(axis=1) != split.labels).mean())


def print_table(
    errors: dict[str, list[float]], flags: Flags, dataset: Dataset, workdir: Path
) -> None:
    """Means over the seeds, with the least and the largest."""
    from rich.console import Console
    from rich.table import Table

    seeds = len(next(iter(errors.values())))
    of_what = f"{dataset.name}, {flags.labels} labels, {seeds} seeds"
    table = Table(title=f"{of_what}: {flags.split} error")
    for title in ("method", "mean", "least", "largest"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for name, values in errors.items():
        numbers = (np.mean(values), min(values), max(values))
        table.add_row(name, *(f"{number:.2%}" for number in numbers))
    Console().print(table)
    print(f"written to {workdir}")


if __name__ == "__main__":
    run_command(main, Flags)
