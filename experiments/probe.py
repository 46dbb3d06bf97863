"""Ask what simple classifiers can read from a model's codes, and write the codes out.

    python -m experiments.probe --workdir=runs/mnist_vae/... --dataset=mnist

``codes.npz`` and ``codes.parquet`` in the run's folder have the posterior mean of each
example, with its split, its number in it and its label.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import run_command
from experiments.flags import DataFlags, StartFlags
from experiments.runs import load_data, load_run
from flaxvae import InputError, TrainedVAE, evaluation
from flaxvae.checks import check_at_least, check_seed
from flaxvae.data import Dataset, Split
from flaxvae.files import atomic_file, write_json


@dataclass(frozen=True)
class Flags:
    """Classifies codes, raw numbers and their PCA, and writes the codes out."""

    workdir: Path
    """Folder of the run with the model; the results are written to it."""
    num_train: int = 10_000
    """Labelled training examples for the classifiers; the first ones."""
    seed: int = 0
    """Seed of the classifiers."""
    export: bool = True
    """Write codes.npz and codes.parquet."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)


def main(flags: Flags) -> None:
    """Model, codes, classifiers, table."""
    check_at_least("num_train", flags.num_train, 2)
    check_seed(flags.seed)
    trained = load_run(flags.workdir)
    dataset = load_data(flags.data, trained)
    labels, test_labels = dataset.train.labels, dataset.test.labels
    if labels is None or test_labels is None:
        raise InputError(f"dataset must have labels to be probed, got {dataset.name!r}")
    workdir = flags.workdir.expanduser()
    codes = {
        name: encode(trained, getattr(dataset, name))
        for name in ("train", "validation", "test")
        if len(getattr(dataset, name))
    }
    if flags.export:
        export(codes, dataset, workdir)
    n = flags.num_train
    raw, raw_test = prepare(dataset, dataset.train[:n]), prepare(dataset, dataset.test)
    train = {"codes": codes["train"][:n].reshape(len(raw), -1)}
    D = train["codes"].shape[1]
    test = {"codes": codes["test"].reshape(len(raw_test), -1)}
    name = f"PCA to {D}"
    train[name], test[name] = evaluation.pca_features(raw, raw_test, D, seed=flags.seed)
    name = "columns" if dataset.is_table else "pixels"
    train[name], test[name] = raw, raw_test
    accuracies = evaluation.probe_codes(
        train, labels[:n], test, test_labels, seed=flags.seed
    )
    write_json(workdir / "probe.json", accuracies)
    draw(accuracies, dataset, workdir)
    print_table(accuracies, dataset, workdir)


def encode(trained: TrainedVAE, split: Split) -> np.ndarray:
    """Posterior means ``(N, D)``."""
    return np.asarray(trained.encode(split.x, split.condition).mean)


def prepare(dataset: Dataset, split: Split) -> np.ndarray:
    """Examples as the model sees them, ``(N, F)``."""
    x = np.asarray(dataset.preprocessing.prepare(np.asarray(split.x)))
    return x.reshape(len(x), -1)


def export(codes: dict[str, np.ndarray], dataset: Dataset, workdir: Path) -> None:
    """Writes the codes of all splits, with their numbers and labels."""
    import pyarrow as pa
    import pyarrow.parquet

    z = np.concatenate(list(codes.values()))
    columns = {
        "split": np.repeat(list(codes), [len(part) for part in codes.values()]),
        "index": np.concatenate([np.arange(len(part)) for part in codes.values()]),
    }
    labels = [getattr(dataset, name).labels for name in codes]
    if all(part is not None for part in labels):
        columns["label"] = np.concatenate(labels)
    with atomic_file(workdir / "codes.npz") as temporary:
        np.savez(temporary, allow_pickle=False, codes=z, **columns)
    flat = z.reshape(len(z), -1)
    numbers = {f"z{d + 1}": flat[:, d] for d in range(flat.shape[1])}
    with atomic_file(workdir / "codes.parquet") as temporary:
        pyarrow.parquet.write_table(pa.table({**columns, **numbers}), temporary)


def draw(
    accuracies: dict[str, dict[str, float]], dataset: Dataset, workdir: Path
) -> None:
    """The accuracies as bars."""
    from flaxvae.latent import figures

    named = {
        features: {k.replace("_", " "): v for k, v in row.items()}
        for features, row in accuracies.items()
    }
    figure = figures.plot_accuracies(
        named, title=f"What classifiers read from features: {dataset.name}"
    )
    figures.save_figure(figure, workdir / "figures" / "probe.png")


def print_table(
    accuracies: dict[str, dict[str, float]], dataset: Dataset, workdir: Path
) -> None:
    """Features against classifiers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{dataset.name}: accuracy on the test split")
    table.add_column("features")
    classifiers = list(next(iter(accuracies.values())))
    for name in classifiers:
        table.add_column(name.replace("_", " "), justify="right")
    for features, row in accuracies.items():
        table.add_row(features, *(f"{row[name]:.2%}" for name in classifiers))
    Console().print(table)
    print(f"written to {workdir}: probe.json, figures/probe.png, codes")


if __name__ == "__main__":
    run_command(main, Flags)
