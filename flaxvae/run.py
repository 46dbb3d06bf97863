"""A run: a trained model with its data, its report, its pictures and its summary.

`fit`, `sweep` and `load` are those of `flaxvae.training`, and return a `Run`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import numpy as np

from flaxvae import evaluation, latent, training
from flaxvae.checks import InputError, as_integers, check_choice, show
from flaxvae.data import Dataset, Split, condition_on_labels
from flaxvae.data.dataset import SPLITS
from flaxvae.data.memory import as_dataset
from flaxvae.data.memory import load as load_data
from flaxvae.evaluation.scores import score_dataset
from flaxvae.files import TABLE_SUFFIXES, write_json, write_table
from flaxvae.latent.comparisons import draw_accuracies
from flaxvae.latent.generate import check_output, choose_around, needs_data, write_codes
from flaxvae.latent.samplers import SamplerName
from flaxvae.models import VQVAE, Autoencoder, CodePriorConfig
from flaxvae.training import Engine, Member, RunFolder, Trained, hosts
from flaxvae.training.environment import device_name
from flaxvae.training.interrupt import Interrupted
from flaxvae.training.run_folder import check_new_file
from flaxvae.training.tensorboard import add_figures

TIMES = (
    "seconds_per_epoch",
    "seconds_per_step",
    "images_per_second",
    "compile_seconds",
    "peak_memory_bytes",
)
PRIOR_FOLDER = "prior"  # in a VQ-VAE's run: the run of the prior over its codes

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False, repr=False)
class Run(Trained):
    """A trained model that knows its data: evaluate, draw, generate, summarize.

    Attributes:
      dataset: what it was trained on; None after loading, until it is stated.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      codes: of a VQ-VAE, the data set as numbers of codebook entries, where it has been
        encoded.
    """

    dataset: Dataset | None = None
    code_prior: Trained | None = None
    codes: Dataset | None = None

    @classmethod
    def of(cls, trained: Trained, dataset: Dataset | None = None) -> "Run":
        """The run of a trained model."""
        names = [field.name for field in dataclasses.fields(Trained)]
        return cls(**{n: getattr(trained, n) for n in names}, dataset=dataset)

    def evaluate(
        self,
        split: str | Split = "test",
        *,
        nll_samples: int | None = None,
        seed: int | None = None,
        on_progress: Callable[[int], None] | None = None,
        dataset: Dataset | None = None,
    ) -> dict[str, Any]:
        """The report on a split; see `flaxvae.evaluation.evaluate`.

        Args:
          split: the name of a split of the data set, or examples, which the report
            calls ``test``.
          nll_samples: see `flaxvae.evaluation.evaluate`; so are the next two.
          seed: of the draws.
          on_progress: of the estimate of -log p(x).
          dataset: of a loaded run; default the run's own.

        Raises:
          InputError: no data set, or what `flaxvae.evaluation.evaluate` refuses.
        """
        report = functools.partial(
            evaluation.evaluate,
            self,
            nll_samples=nll_samples,
            seed=seed,
            on_progress=on_progress,
            code_prior=self.code_prior,
        )
        if isinstance(split, Split):
            return report(self._with_conditions(split))
        dataset = self._dataset(dataset)
        name, split = split, _split_of(dataset, split)
        if not isinstance(self.model, VQVAE):
            return report(split, name=name)
        codes = self._codes(dataset)
        return report(
            split,
            name=name,
            codes=_split_of(codes, name),
            train_codes=codes.train,
        )

    def load(self, data: Any, **choices: Any) -> Dataset:
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

    def score(
        self,
        data: Any = "test",
        *,
        num_samples: int = 10,
        seed: int | None = None,
        output: str | Path | None = None,
        dataset: Dataset | None = None,
    ) -> dict[str, np.ndarray]:
        """Numbers about each example; see `flaxvae.evaluation.score`.

        ``run.score("new.csv", output="scores.csv")`` scores new data.

        Args:
          data: the name of a split of the run's data set, a `Split`, a data set, whose
            splits are scored one after the other, or what `load` reads.
          num_samples: draws of the code, over which each number is a mean.
          seed: of the draws.
          output: also writes the table there, a new .csv or .parquet file.
          dataset: of a loaded run; default the run's own.

        Returns:
          One array ``(N,)`` per column, in the order of the examples.

        Raises:
          InputError: what `flaxvae.evaluation.score` refuses, or an output that exists
            or cannot be written.
        """
        if output is not None:
            check_new_file(Path(output), TABLE_SUFFIXES)
        if isinstance(data, str) and data in SPLITS:
            data = _split_of(self._dataset(dataset), data)
        if isinstance(data, Split):
            none = dataclasses.replace(self._template(), train=data[:0])
            data = dataclasses.replace(none, validation=data[:0], test=data)
        elif not isinstance(data, Dataset):
            data = self.load(data)
        scores = score_dataset(
            self, self._dataset(data), num_samples=num_samples, seed=seed
        )
        if output is not None:
            path = Path(output).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, scores)
        return scores

    def draw(
        self,
        folder: str | Path | None = None,
        *,
        title: str | None = None,
        sampler: SamplerName = "prior",
        manifold_dims: Sequence[int] | None = None,
        other: Trained | None = None,
        seed: int | None = None,
        dataset: Dataset | None = None,
    ) -> list[Path]:
        """Draws the pictures of the run; see `flaxvae.latent.draw`.

        Args:
          folder: where the files are written; default ``figures`` in the run's folder.
          title: see `flaxvae.latent.draw`; so are the next four.
          sampler: the distribution of the codes of samples.
          manifold_dims: dimensions of the grid of decoded codes.
          other: a VAE to compare a plain autoencoder with.
          seed: of the samples.
          dataset: of a loaded run; default the run's own.

        Returns:
          The paths of the files.

        Raises:
          InputError: no data set or no folder, or what `flaxvae.latent.draw` refuses.
        """
        dataset = self._dataset(dataset)
        own = folder is None
        folder = self._workdir() / "figures" if folder is None else folder
        paths = latent.draw(
            self,
            dataset,
            folder,
            title=title,
            sampler=sampler,
            manifold_dims=manifold_dims,
            other=other,
            code_prior=self.code_prior,
            codes=self._codes(dataset) if isinstance(self.model, VQVAE) else None,
            seed=seed,
        )
        if own:
            add_figures(self._workdir(), paths, self.epochs)
        return paths

    def generate(
        self,
        num: int = 100,
        *,
        sampler: SamplerName = "prior",
        label: int | str | None = None,
        around: int | Sequence[int] | None = (),
        spread: float = 1.0,
        with_noise: bool = False,
        seed: int | None = None,
        output: str | Path | None = None,
        dataset: Dataset | Callable[[], Dataset] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples of the model; see `flaxvae.latent.generate`.

        Args:
          num: number of samples; with ``around``, of each example.
          sampler: see `flaxvae.latent.generate`; so are the next four, but for
            ``around``.
          label: generates one class only, by its number or its name in the data set.
          around: numbers of test examples to vary.
          spread: scales the deviation of codes around examples.
          with_noise: draws from p(x|z) instead of returning its mean.
          seed: of the draws.
          output: also writes them there; see `flaxvae.latent.write_examples`.
          dataset: of a loaded run, or a function that loads it, which is called only
            where examples are needed; default the run's own.

        Returns:
          The samples, and the class of each or None.

        Raises:
          InputError: what `flaxvae.latent.generate` and `write_examples` refuse.
        """
        if isinstance(label, str):
            label = self._find_class(label)
        around = () if around is None else as_integers("around", around)
        if output is not None:
            ndim = len(self.data_shape)
            check_output(Path(output), is_table=ndim == 1, is_series=ndim == 2)
        if needs_data(
            self,
            sampler=sampler,
            label=label,
            around=around,
            code_prior=self.code_prior,
        ):
            dataset = self._dataset(dataset() if callable(dataset) else dataset)
        elif not isinstance(dataset, Dataset):
            dataset = self.dataset
        x, labels = latent.generate(
            self,
            num,
            sampler=sampler,
            label=label,
            around=choose_around(self._dataset(dataset), around)
            if len(around)
            else None,
            spread=spread,
            with_noise=with_noise,
            dataset=dataset,
            code_prior=self.code_prior,
            seed=seed,
        )
        if output is not None:
            columns = None if dataset is None else dataset.columns
            schema = self.preprocessing.schema
            latent.write_examples(output, x, labels, columns=columns, schema=schema)
        return x, labels

    def generate_table(self, num: int = 100, **choices: Any) -> Any:
        """Samples of a run on a table, as an Arrow table of its columns.

        Args:
          num: number of rows.
          **choices: other arguments of `generate`.

        Raises:
          InputError: a run on images or on rows without names, or what `generate`
            refuses.
        """
        schema = self.preprocessing.schema
        if schema is None:
            raise InputError(
                "generate_table is for runs on tables: use generate for others"
            )
        return schema.decode(*self.generate(num, **choices))

    def probe(
        self,
        folder: str | Path | None = None,
        *,
        num_train: int = 10_000,
        seed: int | None = None,
        export: bool = False,
        dataset: Dataset | None = None,
    ) -> dict[str, dict[str, float]]:
        """Accuracies of classifiers on the codes; see `flaxvae.evaluation.probe`.

        Args:
          folder: where ``probe.json`` and ``figures/probe.png`` are written; default
            the run's folder, if it has one.
          num_train: labelled training examples for the classifiers.
          seed: of the classifiers.
          export: also writes the codes; they are posterior means with their labels.
          dataset: of a loaded run; default the run's own.

        Raises:
          InputError: no data set, no labels, or no folder to export to.
        """
        dataset = self._dataset(dataset)
        codes = latent.encode_dataset(self, dataset)
        accuracies = evaluation.probe(
            self, dataset, num_train=num_train, seed=seed, codes=codes
        )
        folder = self.workdir if folder is None else Path(folder)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "probe.json", accuracies)
            draw_accuracies(accuracies, folder / "figures", title=dataset.name)
        if export:
            write_codes(codes, folder or self._workdir())
        return accuracies

    def fit_code_prior(
        self,
        config: CodePriorConfig | None = None,
        *,
        workdir: str | Path | None = None,
        engine: Engine | None = None,
        progress: bool = True,
        dataset: Dataset | None = None,
    ) -> "Run":
        """The run of a VQ-VAE with a prior over its codes, the second stage.

        Args:
          config: see `flaxvae.evaluation.fit_code_prior`; without epochs of a prior the
            data set is encoded, and no prior is trained.
          workdir: a run's folder; default ``prior`` in the run's folder, if it has one.
          engine: see `flaxvae.training.fit`.
          progress: see `flaxvae.training.fit`.
          dataset: of a loaded run; default the run's own.

        Raises:
          InputError: a model without a codebook, or what `fit` refuses.
        """
        if not isinstance(self.model, VQVAE):
            raise InputError(
                "a prior over codes must be of a VQVAE, got "
                f"{type(self.model).__name__}"
            )
        config = config or CodePriorConfig()
        dataset = self._dataset(dataset)
        codes = self._codes(dataset)
        prior = None
        if config.prior_epochs != 0:
            own = None if self.workdir is None else self.workdir / PRIOR_FOLDER
            prior = evaluation.fit_code_prior(
                codes,
                config,
                seed=self.seed,
                workdir=workdir or own,
                engine=engine,
                progress=progress,
            )
        return dataclasses.replace(self, dataset=dataset, codes=codes, code_prior=prior)

    def summarize(
        self,
        report: Mapping[str, Any],
        figures: Sequence[str | Path] = (),
        **described: Any,
    ) -> dict[str, Any]:
        """What ``summary.json`` holds: the data, the model, the report, the figures.

        Args:
          report: as `evaluate` returns it.
          figures: paths as `draw` returns them.
          **described: more about the model, such as ``network="784-256-2"``.
        """
        names = [str(_relative(Path(path), self.workdir)) for path in figures]
        summary: dict[str, Any] = {
            "dataset": None if self.dataset is None else self.dataset.name,
            **described,
            "parameters": self.parameters,
            "epochs": self.epochs,
            "device": device_name(),
        }
        if isinstance(self.model, VQVAE):
            prior: Any = self.code_prior
            summary |= {
                "prior_parameters": prior.parameters if prior else 0,
                "prior_classes": prior.model.num_classes if prior else None,
                "prior_epochs": prior.epochs if prior else 0,
            }
        elif not isinstance(self.model, Autoencoder):
            skipped = sum(line.get("skipped", 0) for line in self.history)
            summary |= {
                "train_examples": None
                if self.dataset is None
                else len(self.dataset.train),
                "best_epoch": self.best_epoch,
                "skipped_updates": skipped,
            }
        before = self._summary_before()
        times = {name: before.get(name) for name in TIMES}
        return summary | times | self.timing | dict(report) | {"figures": names}

    def write_summary(
        self,
        report: Mapping[str, Any],
        figures: Sequence[str | Path] = (),
        **described: Any,
    ) -> dict[str, Any]:
        """Writes ``summary.json`` to the run's folder, and returns its contents.

        The arguments are those of `summarize`.

        Raises:
          InputError: a run without a folder.
        """
        summary = self.summarize(report, figures, **described)
        folder = RunFolder(self._workdir())
        if hosts.is_main():
            folder.write_summary(summary)
        return summary

    def _template(self) -> Dataset:
        """The run's data set without its examples."""
        if self.dataset is not None:
            return self.dataset.without_examples()
        if self.template is None:
            raise InputError("dataset must be stated for a run that does not know it")
        return self.template

    def _summary_before(self) -> Mapping[str, Any]:
        return (self.workdir and RunFolder(self.workdir).summary) or {}

    def _data_name(self) -> str:
        return "" if self.dataset is None else f"{self.dataset.name} "

    def _class_names(self) -> Sequence[str] | None:
        return None if self.dataset is None else self.dataset.class_names

    def _find_class(self, name: str) -> int:
        """The number of a class by its name in the data set."""
        known = self._class_names()
        if known is None:
            raise InputError(
                f"label must be a number for data without class names, got {name!r}"
            )
        check_choice("label", name, map(str, known))
        return [str(each) for each in known].index(name)

    def _dataset(self, dataset: Dataset | None) -> Dataset:
        dataset = self.dataset if dataset is None else dataset
        if dataset is None:
            raise InputError(
                "dataset must be stated for a loaded run: flaxvae.load(workdir, "
                "dataset=...), or as an argument"
            )
        if not isinstance(dataset, Dataset):
            raise InputError(f"dataset must be a Dataset, got {show(dataset)}")
        if dataset.shape != self.data_shape:
            raise InputError(
                f"dataset must hold examples of the run's shape {self.data_shape}, got "
                f"{dataset.shape} of {dataset.name!r}"
            )
        if self.is_conditional and dataset.train.condition is None:
            self._check_classes(dataset)
            return condition_on_labels(dataset)
        return dataset

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

    def _codes(self, dataset: Dataset) -> Dataset:
        if self.codes is not None and dataset is self.dataset:
            return self.codes
        return latent.encode_dataset(self, dataset, indices=True)

    def _workdir(self) -> Path:
        if self.workdir is None:
            raise InputError("folder must be stated for a run without a workdir")
        return self.workdir


def _split_of(dataset: Dataset, name: str) -> Split:
    splits = {
        "train": dataset.train,
        "validation": dataset.validation,
        "test": dataset.test,
    }
    if not isinstance(name, str):
        raise InputError(
            f"split must be a Split or one of {', '.join(splits)}, got {show(name)}"
        )
    if name not in splits:
        raise InputError(f"unknown split {name!r}: choose from {', '.join(splits)}")
    if not len(splits[name]):
        held = ", ".join(each for each, split in splits.items() if len(split))
        raise InputError(
            f"split must hold an example, and {name} of {dataset.name!r} has none: "
            f"choose from {held or 'another data set'}"
        )
    return splits[name]


def _relative(path: Path, workdir: Path | None) -> Path:
    is_inside = workdir is not None and path.is_relative_to(workdir)
    return path.relative_to(workdir) if workdir and is_inside else path


@dataclass(frozen=True, eq=False)
class RunMember(Member):
    """One model of a sweep; see `flaxvae.training.Member`."""

    trained: Run


def _with_run(function: Callable[P, Trained]) -> Callable[P, Run]:
    """The function with a `Run` of its argument ``dataset`` as result."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Run:
        bound = signature.bind(*args, **kwargs)
        dataset = bound.arguments["dataset"] = as_dataset(bound.arguments["dataset"])
        try:
            return Run.of(function(*bound.args, **bound.kwargs), dataset)
        except Interrupted as error:
            if error.trained is not None:
                error.trained = Run.of(error.trained, dataset)
            raise

    return _annotate(call, signature, Run)


def _with_runs(function: Callable[P, list[Member]]) -> Callable[P, list[RunMember]]:
    """The function with a `Run` in each member of its result."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> list[RunMember]:
        bound = signature.bind(*args, **kwargs)
        dataset = bound.arguments["dataset"] = as_dataset(bound.arguments["dataset"])

        def as_runs(members: list[Member]) -> list[RunMember]:
            return [
                RunMember(m.setting, Run.of(m.trained, dataset), m.failure)
                for m in members
            ]

        try:
            return as_runs(function(*bound.args, **bound.kwargs))
        except Interrupted as error:
            error.trained = as_runs(error.trained or [])
            raise

    return _annotate(call, signature, list[RunMember])


def _annotate(function: F, signature: inspect.Signature, result: Any) -> F:
    """What ``help()`` shows: the signature with another type of result."""
    changed = signature.replace(return_annotation=result)
    function.__signature__ = changed  # type: ignore[attr-defined]  # read by inspect
    return function


fit = _with_run(training.fit)
sweep = _with_runs(training.sweep)


def save(trained: Trained, workdir: str | Path, dataset: Dataset | None = None) -> None:
    """Writes a trained model into a run's folder of its own, for `load`.

    Its history, timing, objective and seed are written, too, and of a VQ-VAE the prior
    over its codes.

    Args:
      trained: the model and its variables, such as a run.
      workdir: a folder that holds no run yet.
      dataset: what it is a model of; described in ``config.json``. Default: that of the
        run, or as the run's own folder describes it.

    Raises:
      InputError: the folder holds a run, or cannot be written; or no data set.
    """
    if dataset is None and isinstance(trained, Run):
        dataset = trained.dataset
    training.save(trained, workdir, dataset)
    prior = trained.code_prior if isinstance(trained, Run) else None
    if prior is not None:
        codes = trained.codes if isinstance(trained, Run) else None
        if codes is None and dataset is not None:
            codes = latent.encode_dataset(trained, dataset, indices=True)
        training.save(prior, Path(workdir).expanduser() / PRIOR_FOLDER, codes)


def load(
    workdir: str | Path,
    model: nn.Module | None = None,
    *,
    dataset: Dataset | None = None,
) -> Run:
    """Loads a run from its folder; of a VQ-VAE with the prior over its codes.

    Args:
      workdir: the folder that a run wrote.
      model: see `flaxvae.training.load`.
      dataset: the run's data, which are not stored.

    Raises:
      InputError: as `flaxvae.training.load`, or examples of another shape.
    """
    workdir = Path(workdir).expanduser()
    run = Run.of(training.load(workdir, model))
    if dataset is not None:
        run = dataclasses.replace(run, dataset=run._dataset(dataset))
    folder = workdir / PRIOR_FOLDER
    if isinstance(run.model, VQVAE) and (folder / "config.json").exists():
        run = dataclasses.replace(run, code_prior=training.load(folder))
    return run
