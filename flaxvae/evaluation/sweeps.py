"""A sweep's results as a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from flaxvae.data import Dataset
from flaxvae.evaluation.bound import evaluate_elbo
from flaxvae.files import atomic_file
from flaxvae.training import Member, NonFiniteError

TERMS = ("elbo", "log_likelihood", "kl")


def tabulate(
    members: Sequence[Member],
    dataset: Dataset | None = None,
    *,
    folder: str | Path | None = None,
) -> list[dict[str, object]]:
    """One row per model of a sweep, in the order of its members.

    Args:
      members: as `flaxvae.training.sweep` returns them.
      dataset: adds the numbers of its test split.
      folder: also writes ``results.csv`` and ``results.parquet`` there.

    Returns:
      Rows of the setting and the numbers of the epoch that counts: the best one under
      early stopping, otherwise the last. ``validation_elbo``,
      ``validation_log_likelihood`` and ``validation_kl`` in nats per example, the same
      of the test split, ``parameters``, ``epochs``, ``best_epoch``,
      ``seconds_per_epoch`` and ``failure``; None for what is not known.
    """
    rows = [_describe(member, dataset) for member in members]
    if folder is not None:
        _write(rows, Path(folder))
    return rows


def _describe(member: Member, dataset: Dataset | None) -> dict[str, object]:
    trained = member.trained
    row = dict(member.setting)
    lines = {line["epoch"]: line for line in trained.history}
    counting = trained.best_epoch or max(lines, default=0)
    known = lines[counting]["validation"] if counting in lines else {}
    failure = member.failure
    row |= {f"validation_{name}": known.get(name) for name in TERMS}
    if dataset is not None:
        test: dict[str, float] = {}
        if failure is None:
            try:
                test = evaluate_elbo(trained, dataset.test)
            except NonFiniteError as error:
                failure = f"test split: {error}"
        row |= {f"test_{name}": test.get(name) for name in TERMS}
    row["parameters"] = trained.parameters
    row["epochs"] = trained.epochs
    row["best_epoch"] = trained.best_epoch
    row["seconds_per_epoch"] = trained.timing.get("seconds_per_epoch")
    row["failure"] = failure
    return row


def _write(rows: Sequence[Mapping[str, object]], folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(folder / "results.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    with atomic_file(folder / "results.parquet") as temporary:
        table = pyarrow.Table.from_pylist([dict(row) for row in rows])
        pyarrow.parquet.write_table(table, temporary)
