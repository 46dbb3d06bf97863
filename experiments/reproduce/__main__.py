"""Measure what papers published: each row of the ledger is one command.

    python -m experiments.reproduce --list
    python -m experiments.reproduce --row=iwae-5-two-layers --mnist_dir=FOLDER
    python -m experiments.reproduce --all --record
    python -m experiments.reproduce --row=iwae-5-two-layers --budget=10

A row that is interrupted goes on with the same command. ``--record`` keeps the numbers
in ``experiments/reproduce/results`` and renders the table of ``experiments/README.md``
and its figure; ``--render`` does only the latter. ``--budget`` shortens a row to about
so many minutes; what it measures is shown, and never recorded.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments import command, terminal
from experiments.reproduce import ledger, runs
from experiments.reproduce.rows import FOLDERS, Row, read_rows
from flaxvae import InputError
from flaxvae.checks import check_choice
from flaxvae.settings import check_settings, setting
from flaxvae.training.storage.run_folder import check_writable

STOPPED = (-2, -15, 130, 143)  # codes of a command that was interrupted


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Runs rows of the ledger, or shows it."""

    list: bool = False
    """Show every row with its published number and ours."""
    row: tuple[str, ...] = ()
    """Names of rows to run."""
    all: bool = False
    """Run every row that is not measured with its present settings."""
    render: bool = False
    """Write the table and the figure of what is recorded."""
    record: bool = False
    """Keep the numbers in the checkout, and render them."""
    budget: float | None = setting(None, above=0)
    """Shorten each row to about so many minutes."""
    mnist_dir: Path | None = None
    """Folder with the four IDX files of MNIST."""
    binarized_mnist_dir: Path | None = None
    """Folder with the three .amat files of binarized MNIST."""
    odds_dir: Path | None = None
    """Folder with the tables of the ODDS collection."""
    workdir: Path = Path("runs/reproduce")
    """Folder for the runs of the rows."""

    def __post_init__(self) -> None:
        check_settings(self)
        asked = [self.list, bool(self.row), self.all, self.render]
        if sum(asked) != 1:
            raise InputError(
                f"one of list, row, all and render must be given, got {sum(asked)}"
            )
        if self.budget is not None and (self.record or self.list or self.render):
            raise InputError(
                f"budget must be left out with record, list and render, got "
                f"{self.budget:g}: shortened runs are not recorded"
            )

    @property
    def folders(self) -> dict[str, Path]:
        """The folders of data that were given, by the names of `FOLDERS`."""
        found = {name: getattr(self, f"{name}_dir") for name in FOLDERS}
        return {k: v.expanduser().absolute() for k, v in found.items() if v is not None}


def main(flags: Flags) -> None:
    """Shows, runs or renders rows."""
    rows, results = read_rows(), ledger.read_results()
    if flags.list:
        columns = ("row", "published", "ours", "", "measured")
        terminal.print_columns("Ledger", columns, ledger.as_rows(rows, results))
    elif flags.render:
        render(rows)
    else:
        run_rows(flags, choose_rows(flags, rows, results))


def choose_rows(
    flags: Flags, rows: Mapping[str, Row], results: Mapping[str, ledger.Result]
) -> list[Row]:
    """The rows to run, whose data are there.

    Raises:
      InputError: an unknown row, or one whose folder of data is not given.
    """
    if flags.row:
        for name in flags.row:
            check_choice("row", name, rows)
        chosen = [rows[name] for name in flags.row]
    else:
        done = ("met", "not met", "measured")
        chosen = [
            row
            for name, row in rows.items()
            if ledger.describe_status(row, results.get(name)) not in done
        ]
    for row in chosen:
        for name in row.data:
            if name not in flags.folders:
                raise InputError(f"{name}_dir must be given for the row {row.name}")
    return chosen


def run_rows(flags: Flags, chosen: list[Row]) -> None:
    """Runs rows one after the other; the failure of one does not end the others."""
    workdir = flags.workdir.expanduser()
    check_writable(workdir)
    failures = []
    for row in chosen:
        try:
            run_row(flags, row, workdir)
        except runs.CommandError as error:
            if error.code in STOPPED:
                print("interrupted: the same command goes on", file=sys.stderr)
                raise SystemExit(abs(error.code)) from error
            failures.append(row.name)
            print(f"error: {row.name}: {error}", file=sys.stderr)
    if failures:
        raise SystemExit(command.FAILED)


def run_row(flags: Flags, row: Row, workdir: Path) -> None:
    """Runs one row and prints, and maybe records, what it measured."""
    published = ledger.describe_published(row)
    note = f" (published {published})" if published else ""
    if flags.budget is not None:
        number, error, changes = runs.measure_shortened(
            row, workdir, flags.folders, flags.budget
        )
        ours = ledger.add_unit(row, number, error)
        print(f"{row.name}, SHORTENED to {changes}: {ours}{note}")
        return
    result = runs.measure(row, workdir, flags.folders)
    ours = ledger.add_unit(row, result.number, result.error)
    status = ledger.describe_status(row, result)
    print(f"{row.name}: {ours}, {status}{note}")
    path = ledger.write_result(result, ledger.RESULTS if flags.record else workdir)
    print(f"written to {path}")
    if flags.record:
        render(read_rows())


def render(rows: Mapping[str, Row]) -> None:
    """Writes the table and the figure of all recorded results."""
    results = ledger.read_results()
    ledger.write_readme(ledger.make_markdown(rows, results))
    ledger.draw_ledger(rows, results)
    print(f"written: {ledger.README}, {ledger.FIGURE}")


if __name__ == "__main__":
    command.run_command(main, Flags)
