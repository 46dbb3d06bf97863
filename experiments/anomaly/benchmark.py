"""ROC AUC of the detector beside scikit-learn's, by the protocol of PyOD's benchmark.

    python -m experiments.anomaly.benchmark --tables cardio.mat pendigits.mat
    python -m experiments.anomaly.benchmark --seeds=2 --output=validation.csv

Each table is split at random into 60 % for training, without labels and with its
outliers, and 40 % for the test; one setting serves every table. Tables are files with
the classes 0 (normal) and 1 (outlier), such as those of the ODDS collection; the
default are those of `experiments.anomaly.tables`, on which the setting was chosen. The
last row is the mean over sources: tables made of one data set count together as one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments import command, terminal
from experiments.anomaly.tables import TABLES, read_keel, source_of
from flaxvae import InputError
from flaxvae.data import DataConfig
from flaxvae.evaluation.anomaly import DetectorConfig, fit_detector, read_examples
from flaxvae.files import TABLE_SUFFIXES, write_table
from flaxvae.settings import check_settings, setting
from flaxvae.training.storage.run_folder import check_new_file

TEST_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compares detectors by their mean ROC AUC on the test rows of tables."""

    tables: tuple[str, ...] = ()
    """Files, or names of KEEL's tables. Default: all 71 of the latter."""
    seeds: int = setting(10, at_least=1)
    """Splits of each table, by the seeds 0, 1, ..., which also seed the detectors."""
    output: Path | None = None
    """New NAME.csv or NAME.parquet for the numbers of each split."""
    detector: OmitArgPrefixes[DetectorConfig] = field(default_factory=DetectorConfig)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)


def main(flags: Flags) -> None:
    """Prints a row for each table: means over the seeds, and their standard errors."""
    if flags.output is not None:
        check_new_file(flags.output, TABLE_SUFFIXES)
    names = flags.tables or tuple(TABLES)
    found = []
    for name in names:
        for seed in range(flags.seeds):
            row = measure(name, seed, flags.detector)
            found.append({"table": Path(name).stem, "seed": seed, **row})
            shown = ", ".join(f"{k} {v:.4f}" for k, v in row.items())
            print(f"{found[-1]['table']}, seed {seed}: {shown}", flush=True)
    columns = {name: np.array([row[name] for row in found]) for name in found[0]}
    if flags.output is not None:
        write_table(flags.output, columns)
    detectors = [name for name in columns if name not in ("table", "seed", "seconds")]
    areas = np.stack([columns[name] for name in detectors], axis=1)
    areas = areas.reshape(len(names), flags.seeds, -1)  # (tables, seeds, detectors)
    rows = [
        [Path(name).stem, *map(show, of_table.T)]
        for name, of_table in zip(names, areas, strict=True)
    ]
    if len(names) > 1:
        sources = [source_of(name) if name in TABLES else name for name in names]
        means = average(areas.mean(1), sources)
        rows.append(["mean", *(f"{mean:.4f}" for mean in means)])
    title = f"ROC AUC, means over {flags.seeds} splits"
    terminal.print_columns(title, ["table", *detectors], rows)


def average(areas: np.ndarray, sources: list[str]) -> np.ndarray:
    """The mean of areas ``(tables, D)`` over tables, then over their sources, (D,)."""
    of = np.array(sources)
    each = [areas[of == source].mean(0) for source in dict.fromkeys(sources)]
    return np.asarray(np.mean(each, axis=0))


def measure(name: str, seed: int, config: DetectorConfig) -> dict[str, float]:
    """The ROC AUC of each detector on a table's test rows, and seconds of the VAE's."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    x, y = read_table(name, seed)
    train, test, _, labels = train_test_split(
        x, y, test_size=TEST_SHARE, random_state=seed
    )
    started = time.perf_counter()
    scores = fit_detector(train, seed=seed, config=config).score(test)
    seconds = time.perf_counter() - started
    of_each = {"VAE": scores}
    of_each |= {name: detect(train, test, seed) for name, detect in DETECTORS.items()}
    areas = {k: float(roc_auc_score(labels, v)) for k, v in of_each.items()}
    return {**areas, "seconds": seconds}


def read_table(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(N, F)`` and labels ``(N,)``, 1 for outliers."""
    if name in TABLES:
        return read_keel(name, seed)
    data = DataConfig(dataset=name, validation_size=0, test_size=0).load()
    examples = read_examples(data)
    if examples.labels is None:
        raise InputError(f"tables must have the classes 0 and 1, got {name}")
    return examples.x, examples.labels


def isolation_forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Scikit-learn's, with its defaults."""
    from sklearn.ensemble import IsolationForest

    scores = IsolationForest(random_state=seed).fit(train).score_samples(test)
    return -np.asarray(scores)


def pca(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Mahalanobis distance in the principal components of standardized columns."""
    from sklearn.decomposition import PCA

    components = PCA(n_components=1 - 1e-9, svd_solver="full", whiten=True)
    train, test = standardize(train, test)
    codes = components.fit(train).transform(test)
    return np.asarray((codes**2).sum(1))


def nearest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Distance to the fifth nearest training row, in standardized columns."""
    from sklearn.neighbors import NearestNeighbors

    train, test = standardize(train, test)
    distances, _ = NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)
    return np.asarray(distances[:, -1])


def standardize(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the means and deviations of the training rows."""
    mean, std = train.mean(0), train.std(0)
    std = np.where(std > 0, std, 1.0)
    return (train - mean) / std, (test - mean) / std


Detect = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
DETECTORS: dict[str, Detect] = {
    "isolation forest": isolation_forest,
    "PCA": pca,
    "nearest neighbours": nearest,
}


def show(areas: np.ndarray) -> str:
    """The mean of areas ``(seeds,)`` and its standard error."""
    if len(areas) < 2:
        return f"{areas[0]:.4f}"
    return f"{areas.mean():.4f} ± {areas.std(ddof=1) / len(areas) ** 0.5:.4f}"


if __name__ == "__main__":
    command.run_command(main, Flags)
