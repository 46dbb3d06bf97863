"""The rows of the ledger: what is run, and what was published about it.

A row is a table of ``rows.toml``; a new one needs no code.
"""

import dataclasses
import hashlib
import json
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flaxvae import InputError
from flaxvae.checks import check_choice

ROWS = Path(__file__).parent / "rows.toml"
FOLDERS = ("mnist", "binarized_mnist", "odds")  # data that a command line may name


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published number, and the commands that measure ours.

    Attributes:
      name: of the row; letters, digits and hyphens.
      run: that of the row whose run it is; rows with the same commands share one. The
        file has ``commands_of`` in place of the commands of the others.
      title: the model and its data, for people.
      commands: each the words after ``python -m experiments.``, run one after the
        other. ``{run}`` is the folder of the row's run; ``{mnist}``,
        ``{binarized_mnist}`` and ``{odds}`` are folders with data.
      file: what they write into the folder of the run: JSON, or a CSV file.
      number: where our number stands there: keys of JSON joined by dots, or a column
        of the CSV file. Of several numbers it is the mean.
      error: where its standard error stands, if in the JSON file; of several numbers
        it is that of the mean.
      negative: whether the file has the number with the opposite sign (an ELBO).
      unit: of the numbers, such as ``nats``.
      better: which numbers are better.
      published: the published number, or None where there is none to compare with.
      source: author, year and arXiv id, or the program that states it.
      tolerance: by how much ours may be worse for the row to be met.
      protocol: what the numbers are of.
      deviations: how our training differs from the published one.
    """

    name: str
    run: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    file: str = "summary.json"
    number: str
    error: str | None = None
    negative: bool = False
    unit: str = "nats"
    better: Literal["lower", "higher"] = "lower"
    published: float | None = None
    source: str = ""
    tolerance: float = 0.0
    protocol: str
    deviations: str = ""

    def __post_init__(self) -> None:
        allowed = string.ascii_lowercase + string.digits + "-"
        if not self.name or set(self.name) - set(allowed):
            raise InputError(f"a row's name must be of {allowed!r}, got {self.name!r}")
        if not self.commands or not all(self.commands):
            raise InputError(f"commands of {self.name} must not be empty")
        check_choice(f"better of {self.name}", self.better, ("lower", "higher"))
        for _, name in self._fields():
            check_choice(f"name in {self.name}'s commands", name, ("run", *FOLDERS))
        stated = (self.published is not None, bool(self.source), bool(self.deviations))
        if len(set(stated)) > 1:
            raise InputError(
                f"{self.name} must have all or none of published, source and deviations"
            )

    @property
    def data(self) -> tuple[str, ...]:
        """The names of `FOLDERS` that the commands mention."""
        names = {name for _, name in self._fields()}
        return tuple(name for name in FOLDERS if name in names)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with the commands and the number."""
        return _hash([self.commands, self.file, self.number, self.error, self.negative])

    @property
    def folder(self) -> str:
        """The name of the folder of its run, which changes with the commands."""
        return f"{self.run}-{_hash(self.commands)}"

    def is_met(self, number: float) -> bool:
        """Whether a number is as good as the published one, within the tolerance."""
        assert self.published is not None
        worse = number - self.published
        return (worse if self.better == "lower" else -worse) <= self.tolerance

    def expand(self, run: Path, folders: Mapping[str, Path]) -> list[list[str]]:
        """The commands with the folders in their places.

        Args:
          run: the folder of the row's run.
          folders: those of data by name.
        """
        values = {"run": str(run)} | {k: str(v) for k, v in folders.items()}
        return [[word.format(**values) for word in words] for words in self.commands]

    def _fields(self) -> list[tuple[str, str]]:
        """Each word of a command that has a folder, and the name of that folder."""
        return [
            (word, name)
            for words in self.commands
            for word in words
            for _, name, _, _ in string.Formatter().parse(word)
            if name is not None
        ]


def read_rows(path: Path = ROWS) -> dict[str, Row]:
    """All rows by name, in the order of the file.

    Raises:
      InputError: a file that is no TOML, or a row with a wrong or missing field.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} must be TOML: {error}") from error
    return {name: _read_row(name, tables) for name in tables}


def _read_row(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Row:
    table = {"name": name, "run": name, **tables[name]}
    if "commands_of" in table:
        other = table["run"] = table.pop("commands_of")
        check_choice(f"commands_of of {name}", other, tables)
        table["commands"] = tables[other].get("commands", ())
    fields = {field.name: field for field in dataclasses.fields(Row)}
    for key in table:
        check_choice(f"field of {name}", key, fields)
    missing = [
        key
        for key, field in fields.items()
        if key not in table and field.default is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"row {name} must have {', '.join(missing)}")
    table["commands"] = tuple(tuple(line.split()) for line in table["commands"])
    return Row(**table)


def _hash(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
