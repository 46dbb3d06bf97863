"""Find anomalies in a table or in images by an ensemble of small VAEs.

    python -m experiments.anomaly_detection --dataset=table.csv --contamination=0.02
    python -m experiments.anomaly_detection --dataset=cardio.mat --test_size=0.4
    python -m experiments.anomaly_detection --dataset=mnist --normal_class=0

The detector is fitted without labels to data that hold anomalies, or to the examples of
one class. scores.csv has one row per example, in the order of the data: its score, the
higher the more anomalous, whether it is above the threshold, and the columns of the
table that add most to it. Where labels say which examples are anomalous, AUROC and
average precision are measured on the examples that the detector was not fitted to.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes

from experiments import command, inputs, terminal
from flaxvae import InputError
from flaxvae.checks import check_seed
from flaxvae.data import DataConfig
from flaxvae.evaluation import anomaly
from flaxvae.files import TABLE_SUFFIXES
from flaxvae.settings import check_settings, setting
from flaxvae.training.storage.run_folder import check_writable

HIGHEST = 5  # examples in the table that is printed
COLUMNS = 3  # of each


@dataclass(frozen=True, kw_only=True)
class Data(DataConfig):
    """Data that are not split unless that is asked for."""

    validation_size: int | float = setting(0, at_least=0, at_most=0)
    """Nothing is held out for validation."""
    test_size: int | float = setting(0, at_least=0)
    """Examples held out of the training to measure on, if the data have no test split:
    a count, or a fraction if < 1."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Scores every example of a data set; the same command gives the same scores."""

    normal_class: str | None = None
    """Fit to this class alone, by its name or number; all others are anomalous.
    Default: fit to all training examples; of classes 0 and 1 the class 1 is anomalous.
    """
    contamination: float | None = setting(None, above=0, below=1)
    """Share of anomalies among the examples that the detector is fitted to, which sets
    the threshold. Default: 0.1, unless false_alarm_rate is stated."""
    false_alarm_rate: float | None = setting(None, above=0, below=1)
    """Share of normal examples that may be called anomalous; it sets the threshold."""
    seed: int = 0
    """Seed of the detector."""
    workdir: Path | None = None
    """Folder for the results. Default: in runs/anomaly_detection, named by the flags.
    """
    output: Path | None = None
    """NAME.csv or NAME.parquet for the scores. Default: scores.csv in workdir."""
    figures: bool = True
    """Draw histograms, ROC and precision-recall curves, and contributions."""
    detector: OmitArgPrefixes[anomaly.DetectorConfig] = field(
        default_factory=anomaly.DetectorConfig
    )
    data: OmitArgPrefixes[Data] = field(default_factory=Data)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        check_settings(self)
        check_seed(self.seed)
        if self.output and self.output.suffix.lower() not in TABLE_SUFFIXES:
            raise InputError(
                f"output must end in {' or '.join(TABLE_SUFFIXES)}, got {self.output}"
            )


def main(flags: Flags) -> None:
    """Data, detector, scores, files, table."""
    # Held out below, so that scores stay in the order of the data.
    data = dataclasses.replace(flags.data, test_size=0)
    if flags.data.test_size and flags.data.num_examples is None:
        data = dataclasses.replace(data, split_seed=0)  # nothing is drawn here
    dataset = data.load()
    terminal.print_notes(dataset.notes)
    workdir = inputs.choose_workdir("anomaly_detection", dataset, flags, ("output",))
    if flags.output is not None:
        check_writable(flags.output.expanduser().absolute().parent, "output's folder")
    examples = anomaly.read_examples(
        dataset,
        normal_class=flags.normal_class,
        test_size=flags.data.test_size,
        seed=flags.data.split_seed,
    )
    found = anomaly.detect(
        dataset.name,
        examples,
        contamination=flags.contamination,
        false_alarm_rate=flags.false_alarm_rate,
        seed=flags.seed,
        config=flags.detector,
    )
    output = flags.output and flags.output.expanduser()
    files = found.write(workdir, output=output, figures=flags.figures)
    terminal.print_columns(
        f"{dataset.name}: the examples of the highest scores", *list_highest(found)
    )
    terminal.print_table(dataset.name, describe(found))
    print("written:", *files, sep="\n  ")


def list_highest(found: anomaly.Detection) -> tuple[list[str], list[list[str]]]:
    """The names of columns, and a row for each of the highest scores."""
    places = list(found.examples.places)
    count = COLUMNS if found.examples.groups else 0
    columns = [*places, "score", *["adds most", "then", "then"][:count]]
    rows = []
    for i in (-found.table["score"]).argsort(kind="stable")[:HIGHEST]:
        row = {name: values[i] for name, values in found.table.items()}
        most = [
            f"{row[f'column_{k}']} ({row[f'contribution_{k}']:+#.2g})"
            for k in range(1, count + 1)
            if f"column_{k}" in row
        ]
        rows.append(
            [*(str(row[name]) for name in places), f"{row['score']:#.3g}", *most]
        )
    return columns[: len(rows[0])], rows


def describe(found: anomaly.Detection) -> list[tuple[str, str]]:
    """Rows about the fit, the threshold and the ranking."""
    summary, ranking = found.summary, found.ranking
    rows = [
        ("fitted to", f"{summary['num_training']:,} examples"),
        ("threshold", f"{found.threshold:.4g}"),
        ("above it", f"{summary['num_flagged']:,} of {summary['num_scored']:,}"),
    ]
    if ranking is None:
        return rows
    for name, area, (low, high) in (
        ("AUROC", ranking.auroc, ranking.auroc_interval),
        (
            "average precision",
            ranking.average_precision,
            ranking.average_precision_interval,
        ),
    ):
        rows.append((name, f"{area:.4f} (95 % interval {low:.4f} to {high:.4f})"))
    return [*rows, ("measured on", str(summary["ranked_on"]))]


if __name__ == "__main__":
    command.run_command(main, Flags)
