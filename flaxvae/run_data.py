"""A trained model that knows its data: its own, and others that are asked for."""

import dataclasses
import functools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flaxvae.checks import InputError, as_integer, check_choice, show
from flaxvae.data import Dataset, Split, condition_on_labels
from flaxvae.data.like import CHOICES, check_like
from flaxvae.data.memory import load as load_data
from flaxvae.data.recorded import (
    describe_own,
    find_differences,
    find_own,
    read_again,
    refuse_choices,
)
from flaxvae.training import RunFolder, Trained
from flaxvae.training.processes import hosts

DataSource = Dataset | str | Path
"""Data in place of a run's own: a data set, or what `Run.read` takes."""


@dataclass(frozen=True, eq=False, repr=False)
class TrainedOnData(Trained):
    """A trained model with the data that it was trained on, or others in their place.

    Attributes:
      dataset: what it was trained on, or what was stated in its place; None after
        loading: then `data` reads the run's own.
      has_other_data: whether ``dataset`` is not what it was trained on; then what is
        written names it.
    """

    dataset: Dataset | None = None
    has_other_data: bool = False

    @functools.cached_property
    def data(self) -> Dataset:
        """What it was trained on; a loaded run reads it from where it was.

        Raises:
          InputError: arrays in memory, which are not stored, or data that cannot be
            read or have changed since, in any split.
        """
        if self.dataset is not None and not self.has_other_data:
            return self.dataset
        return self._as_seen(read_again(self._described))

    def load(self, data: object, **choices: object) -> Dataset:
        """New data, read as the run's own; see `flaxvae.data.load`.

        Args:
          data: a path, a name, or arrays or a table in memory.
          **choices: about reading, such as ``separator=";"``; of arrays ``labels=``.

        Returns:
          The data set, for `score`, `evaluate` and ``encode``. Without splits of its
          own all examples are its test split, in their order.

        Raises:
          InputError: data that do not fit the run's.
        """
        return load_data(data, like=self, **choices)

    def read(self, dataset: str | Path | None = None, **choices: object) -> Dataset:
        """The run's own data at another place, or other data that are asked for.

        The source is read as the run read its own, splits included. If every example
        is the same, these are the run's own data; otherwise `load` reads it as other
        data, and a note says so.

        Args:
          dataset: a path or a name; None: that of the run's own, with ``data_dir``.
          **choices: as in `load`, or ``data_dir``, the folder of a named set.

        Raises:
          InputError: data that cannot be read, or do not fit the run's.
        """
        for name in choices:
            check_choice("choice of data", name, CHOICES)
        described = self._described
        if dataset is None:
            refuse_choices(described, choices)
        else:
            choices["dataset"] = os.fspath(dataset)
        own = find_own(described, **choices)
        if own is not None:
            return self._as_seen(own)
        if dataset is None:
            raise InputError(
                f"data_dir must hold the run's data {described['name']!r}, got "
                f"{str(choices.get('data_dir'))!r}"
            )
        other = self.load(choices.pop("dataset"), **choices)
        if not find_differences(self._as_seen(other), described):
            return self._as_seen(other)
        return dataclasses.replace(other, notes=(*other.notes, self._note_on(other)))

    def owns(self, dataset: Dataset) -> bool:
        """Whether a data set has the examples and labels that the run was trained on.

        The arrays of every split are compared by their checksums.
        """
        if dataset is self.dataset:
            return not self.has_other_data
        if dataset is self.__dict__.get("data"):
            return True
        try:
            described = self._described
        except InputError:  # nothing is known to compare with
            return True
        return not find_differences(dataset, described)

    def title_of(self, dataset: Dataset) -> str:
        """The name of a data set for a title, which says if it is not the run's own."""
        if not len(dataset.train) + len(dataset.test) or self.owns(dataset):
            return dataset.name
        return f"{dataset.name} (not the run's own data)"

    def _template(self) -> Dataset:
        """The run's data set without its examples."""
        if self.dataset is not None:
            return self.dataset.without_examples()
        if self.template is None:
            raise InputError("dataset must be stated for a run that does not know it")
        return self.template

    def _data_name(self) -> str:
        return "" if self.dataset is None else f"{self.dataset.name} "

    def _class_names(self) -> Sequence[str] | None:
        known = self.dataset or self.template
        return None if known is None else known.class_names

    def _find_class(self, label: int | str | None) -> int | None:
        """The number of a class by its number or its name in the data set.

        A number that is also the name of a class is the name.
        """
        known = [str(name) for name in self._class_names() or ()]
        if label is not None and not isinstance(label, str):
            number = as_integer("label", label, 0)
            label = str(number) if str(number) in known else number
        if not isinstance(label, str):
            return label
        if not known:
            raise InputError(
                f"label must be a number for data without class names, got {label!r}"
            )
        check_choice("label", label, known)
        return known.index(label)

    @property
    def _described(self) -> Mapping[str, object]:
        """What is known about the data that it was trained on."""
        if self.workdir is not None and (self.workdir / "config.json").exists():
            config = RunFolder(self.workdir).config
            return describe_own(config, is_conditional=self.is_conditional)
        if self.dataset is None or self.has_other_data:
            raise InputError(
                "dataset must be stated for a loaded run: flaxvae.load(workdir, "
                "dataset=...), or as an argument"
            )
        return self._as_seen(self.dataset).describe()

    def _named(
        self, found: Mapping[str, object], dataset: Dataset
    ) -> dict[str, object]:
        """Results with the name of the data where these are not the run's own."""
        if self.owns(dataset):
            return dict(found)
        return {**found, "dataset": self.title_of(dataset)}

    def _dataset(self, dataset: DataSource | None) -> Dataset:
        """The data set to use: the run's own, or another one, which a note names."""
        if dataset is None:
            return self.data if self.dataset is None else self._as_seen(self.dataset)
        notes: Sequence[str] = ()
        if isinstance(dataset, str | os.PathLike):
            dataset = self.read(os.fspath(dataset))
            notes = dataset.notes if not self.owns(dataset) else ()
        found = self._fit(dataset)
        note = self._note_on(found)
        is_noted = dataset is self.dataset or note in dataset.notes
        if not notes and not is_noted and not self.owns(found):
            notes = (note,)
        if notes and hosts.is_main():
            print("\n".join(f"NOTE: {each}" for each in notes), file=sys.stderr)
        return found

    def _fit(self, dataset: object) -> Dataset:
        """A data set whose examples the model takes.

        Raises:
          InputError: another shape, other columns, classes or grey levels.
        """
        if not isinstance(dataset, Dataset):
            raise InputError(
                f"dataset must be a Dataset, got {show(dataset)}: Run.load reads "
                "paths, names, arrays and tables"
            )
        if dataset.shape != self.data_shape:
            raise InputError(
                f"dataset must hold examples of the run's shape {self.data_shape}, got "
                f"{dataset.shape} of {dataset.name!r}"
            )
        if dataset is not self.dataset and self.template is not None:
            check_like(dataset, self.template)
        return self._as_seen(dataset)

    def _note_on(self, dataset: Dataset) -> str:
        """What is said about data that are not the run's own."""
        own = self.dataset if self.template is None else self.template
        name = (
            ""
            if own is None or own.name == dataset.name
            else f", which is {own.name!r}"
        )
        return f"{dataset.name!r} is not the data that the run was trained on{name}"

    def _as_seen(self, dataset: Dataset) -> Dataset:
        """A data set with the run's preprocessing and, if it needs some, conditions."""
        if self.is_conditional and dataset.train.condition is None:
            self._check_classes(dataset)
            dataset = condition_on_labels(dataset)
        own = self.preprocessing
        if dataset.preprocessing is own or dataset is self.dataset:
            return dataset
        return dataclasses.replace(dataset, preprocessing=own)

    def _with_training_examples(self, dataset: Dataset) -> Dataset:
        """A data set without training examples beside the run's own."""
        if len(dataset.train):
            return dataset
        try:
            own = self.data.train
        except InputError as error:
            raise InputError(
                f"dataset must have training examples, got {dataset.name!r}, all of "
                "which are test examples, and the run's own cannot be read (see "
                "flaxvae.load(workdir, dataset=...) for a run on arrays in memory)"
            ) from error
        return dataclasses.replace(dataset, train=own)

    def _check_classes(self, dataset: Dataset) -> None:
        """Refuses new data with classes that a conditional model does not have."""
        own = self.dataset if self.template is None else self.template
        known = None if own is None else own.class_names
        unknown = (dataset.class_names or ())[len(known) :] if known else ()
        if known and unknown:
            raise InputError(
                "labels must be classes that the model is conditional on, got "
                f"{', '.join(unknown)}: choose from {', '.join(known)}"
            )

    def _with_conditions(self, split: Split) -> Split:
        """A split for a conditional model; its conditions are its labels by default."""
        needs = self.is_conditional and split.condition is None
        if not needs or split.labels is None:
            return split
        return dataclasses.replace(split, condition=split.labels)
