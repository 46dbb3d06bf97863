"""The data of a command about a run: the run's own, unless others are asked for."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import terminal
from flaxvae import InputError, Run
from flaxvae.data import Dataset
from flaxvae.data.arrays import ImageOrder
from flaxvae.data.text_tables import Decimal, Header
from flaxvae.training.storage.run_folder import check_writable


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Data in place of those that the run was trained on; see `flaxvae.Run.read`."""

    dataset: str | None = None
    """A path or a name: where the run's own data are now, or other data, which are read
    like them. Default: the run's own, with its splits."""
    data_dir: Path | None = None
    """Folder with the files of a named set. Default: the run's, or that of TensorFlow
    Datasets."""
    missing_values: tuple[str, ...] = ()
    """--dataset: texts and numbers of a table that mean a missing value, besides the
    run's."""
    separator: str | None = None
    """--dataset: character between the columns of a text file. Default: found."""
    header: Header | None = None
    """--dataset: whether the first line of a text file names the columns. Default:
    found."""
    decimal: Decimal | None = None
    """--dataset: character before decimals in a text file. Default: found."""
    encoding: str | None = None
    """--dataset: encoding of a text file. Default: UTF-8, or cp1252 where it is not."""
    image_order: ImageOrder | None = None
    """--dataset: order of the pixels where images are stored as rows, see mnist_vae.
    Default: C."""

    @property
    def choices(self) -> dict[str, Any]:
        """What is stated about reading."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values.pop("dataset")
        return {n: v for n, v in values.items() if v is not None and v != ()}

    @property
    def is_stated(self) -> bool:
        """Whether any of these flags is used."""
        return self.dataset is not None or bool(self.choices)

    def load(self, run: Run) -> Dataset:
        """The data set, with its notes on the standard error stream where it is other.

        Raises:
          InputError: as `Run.data` and `Run.read`.
        """
        if not self.is_stated:
            return run.data
        dataset = run.read(self.dataset, **self.choices)
        if not run.owns(dataset):
            terminal.print_notes(dataset.notes)
        return dataset

    def refuse(self, reason: str) -> None:
        """Raises `InputError` if any of these flags is used."""
        stated = {"dataset": self.dataset, **self.choices}
        for name, value in stated.items():
            if value is not None:
                raise InputError(f"{name} must be left out {reason}, got {show(value)}")


def show(value: Any) -> str:
    """A value of a flag as the user wrote it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def choose_output(output: Path | None, workdir: Path) -> Path:
    """A folder for results; checked before the work starts.

    Raises:
      InputError: no folder, or one that cannot be written.
    """
    if output is None:
        try:
            check_writable(workdir.expanduser())
        except InputError as error:
            raise InputError(f"{error}: name another one by --output") from None
        return workdir.expanduser()
    check_writable(output.expanduser(), "output")
    return output.expanduser()
