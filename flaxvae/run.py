"""A run: a trained model with its data, its report, its pictures and its summary.

`fit`, `sweep` and `load` are those of `flaxvae.training`, and return a `Run`.
"""

import contextlib
import dataclasses
import functools
import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import numpy as np

from flaxvae import evaluation, latent, training
from flaxvae.capabilities import ModelTraits
from flaxvae.checks import (
    InputError,
    as_integer,
    as_integers,
    check_boolean,
    check_seed,
    show,
)
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import SPLITS, check_examples
from flaxvae.data.layout import layout_of
from flaxvae.data.memory import as_dataset
from flaxvae.evaluation.measures.context import Context, MeasureConfig
from flaxvae.evaluation.metrics import Result
from flaxvae.evaluation.probe import check_probed
from flaxvae.evaluation.recognition import check_recognized, train_classifier
from flaxvae.evaluation.record import Record, record_metrics
from flaxvae.evaluation.scores import score_dataset
from flaxvae.files import TABLE_SUFFIXES, write_json, write_table
from flaxvae.latent.animations import animate
from flaxvae.latent.comparisons import draw_accuracies
from flaxvae.latent.context import Picture
from flaxvae.latent.explorer.page import (
    PAGE,
    POINTS,
    ExplorerConfig,
    write_explorer,
)
from flaxvae.latent.gallery import make_notebook_view, write_gallery
from flaxvae.latent.generate import (
    check_output,
    check_sampled,
    choose_around,
    needs_data,
    write_codes,
)
from flaxvae.latent.pictures import available_pictures
from flaxvae.latent.samplers import SamplerName
from flaxvae.models import VQVAE, Autoencoder, CodePriorConfig
from flaxvae.run_data import DataSource, TrainedOnData
from flaxvae.training import Engine, Member, RunFolder, Trained, Training
from flaxvae.training.interrupt import Interrupted
from flaxvae.training.processes import hosts
from flaxvae.training.storage.environment import device_name
from flaxvae.training.storage.run_folder import check_new_file, check_writable
from flaxvae.training.storage.tensorboard import add_figures
from flaxvae.types import AnimationFormat, Json, PictureFormat, PictureStyle

TIMES = (
    "seconds_per_epoch",
    "seconds_per_step",
    "images_per_second",
    "compile_seconds",
    "peak_memory_bytes",
)
MAIN_PICTURES = ("latent_scatter", "reconstructions", "samples")  # in a notebook
PRIOR_FOLDER = "prior"  # in a VQ-VAE's run: the run of the prior over its codes

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False, repr=False)
class Run(TrainedOnData):
    """A trained model that knows its data: evaluate, draw, generate, summarize.

    Attributes:
      dataset: what it was trained on, or what was stated in its place; None after
        loading: then `data` reads the run's own.
      has_other_data: whether ``dataset`` is not what it was trained on.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      codes: of a VQ-VAE, the data set as numbers of codebook entries, where it has been
        encoded.
    """

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
        dataset: DataSource | None = None,
    ) -> dict[str, Any]:
        """The report on a split; see `flaxvae.evaluation.evaluate`.

        Args:
          split: the name of a split of the data set, or examples, without ``dataset``,
            which the report calls ``test``.
          nll_samples: see `flaxvae.evaluation.evaluate`; so are the next two.
          seed: of the draws.
          on_progress: of the estimate of -log p(x).
          dataset: in place of the run's own: a data set, or what `read` takes.

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
            _refuse_dataset(dataset, "a Split")
            return report(self._with_conditions(split))
        dataset = self._dataset(dataset)
        name, split = split, _split_of(dataset, split)
        named = {} if self.owns(dataset) else {"dataset": self.title_of(dataset)}
        if not isinstance(self.model, VQVAE):
            return report(split, name=name) | named
        codes = self._codes(dataset, seed)
        found = report(
            split,
            name=name,
            codes=_split_of(codes, name),
            train_codes=codes.train if len(codes.train) else None,
        )
        return found | named

    def measure(
        self,
        metrics: str | Sequence[str] | None = None,
        split: str | None = None,
        *,
        config: MeasureConfig | None = None,
        seed: int | None = None,
        folder: str | Path | None = None,
        on_result: Callable[[Result], None] | None = None,
        progress: bool = True,
        dataset: DataSource | None = None,
    ) -> Record:
        """All metrics of the run that apply, with their standard errors.

        ``run.measure(["nll", "mmd"])["metrics"]["mmd"]["numbers"]``

        Args:
          metrics: one name or several of `flaxvae.evaluation.metrics.METRICS`; None:
            all of them.
          split: the name of a split; None: ``test``, where that has no examples
            ``validation``, and else ``train``.
          config: how much is computed.
          seed: of all draws; default that of the run.
          folder: where ``evaluation.json``, ``figures`` and the classifier of real
            examples are written, each number as soon as it is known; the same call
            continues. Default: the run's folder, if it has one.
          on_result: called with each result.
          progress: of the training of the classifier.
          dataset: in place of the run's own: a data set, or what `read` takes.

        Returns:
          See `flaxvae.evaluation.record.Record`: what ``evaluation.json`` holds.

        Raises:
          InputError: no data set, a split without examples, an unknown metric, one that
            does not apply but was asked for by its name, or a folder that cannot be
            written.
          NonFiniteError: a model or a number that is infinite or NaN.
        """
        self.check_finite()
        names = (metrics,) if isinstance(metrics, str) else metrics
        folder = self.workdir if folder is None else Path(folder).expanduser()
        if folder is not None:
            check_writable(folder, "folder")
        seed = None if seed is None else check_seed(seed)
        dataset = self._dataset(dataset)
        if split is None:
            sizes = {name: len(dataset.split(name)) for name in reversed(SPLITS)}
            split = next((name for name, size in sizes.items() if size), "test")
        _split_of(dataset, split)
        with contextlib.suppress(InputError):  # few metrics need them, and say so
            dataset = self._with_training_examples(dataset)
        config = config or MeasureConfig()
        kept = self._name_classifier(dataset, config.classifier_epochs, seed)
        context = Context(
            trained=self,
            dataset=dataset,
            name=split,
            config=config,
            seed=seed,
            code_prior=self.code_prior,
            stored_codes=self._stored_codes(dataset, seed),
            classifier_folder=folder and folder / kept,
            progress=progress,
        )
        title = self.title_of(dataset)
        found = record_metrics(
            context, names, title=title, folder=folder, on_result=on_result
        )
        if folder is not None and folder == self.workdir and hosts.is_main():
            write_gallery(folder)
        return found

    def score(
        self,
        data: object = "test",
        *,
        num_samples: int = 10,
        seed: int | None = None,
        output: str | Path | None = None,
        dataset: DataSource | None = None,
    ) -> dict[str, np.ndarray]:
        """Numbers about each example; see `flaxvae.evaluation.score`.

        ``run.score("new.csv", output="scores.csv")`` scores new data.

        Args:
          data: the name of a split of the run's data set, a `Split`, a data set, whose
            splits are scored one after the other, or what `load` reads.
          num_samples: draws of the code, over which each number is a mean.
          seed: of the draws.
          output: also writes the table there, a new .csv or .parquet file.
          dataset: whose split is scored, in place of the run's own: a data set, or what
            `read` takes.

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
        else:
            _refuse_dataset(dataset, "data that are not the name of a split")
        if isinstance(data, Split):
            none = dataclasses.replace(self._template(), train=data[:0])
            data = dataclasses.replace(none, validation=data[:0], test=data)
        elif not isinstance(data, Dataset):
            data = self.load(data)
        scores = score_dataset(
            self, self._fit(data), num_samples=num_samples, seed=seed
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
        pictures: Mapping[str, Picture] | str | Sequence[str] | None = None,
        file_format: PictureFormat = "png",
        style: PictureStyle = "light",
        on_picture: Callable[[str], None] | None = None,
        dataset: DataSource | None = None,
    ) -> list[Path]:
        """Draws the pictures of the run; see `flaxvae.latent.draw`.

        Args:
          folder: where the files are written; default ``figures`` in the run's folder.
          title: see `flaxvae.latent.draw`; so are the next four.
          sampler: the distribution of the codes of samples.
          manifold_dims: dimensions of the grid of decoded codes.
          other: a VAE to compare a plain autoencoder with.
          seed: of the samples.
          pictures: one name or several, or functions by name; default those that every
            run draws.
          file_format: ``png``, ``pdf``, ``svg`` or ``webp``.
          style: ``light`` or ``dark``.
          on_picture: called with each picture's name before it is drawn.
          dataset: in place of the run's own: a data set, or what `read` takes.

        Returns:
          The paths of the files.

        Raises:
          InputError: no data set or no folder, or what `flaxvae.latent.draw` refuses.
        """
        own = folder is None
        folder = self._workdir() / "figures" if folder is None else folder
        dataset = self._dataset(dataset)
        if isinstance(self.model, VQVAE) or sampler != "prior":
            dataset = self._with_training_examples(dataset)
        paths = latent.draw(
            self,
            dataset,
            folder,
            title=self.title_of(dataset) if title is None else title,
            sampler=sampler,
            manifold_dims=manifold_dims,
            other=other,
            code_prior=self.code_prior,
            codes=self._codes(dataset) if isinstance(self.model, VQVAE) else None,
            seed=seed,
            pictures=pictures,
            file_format=file_format,
            style=style,
            on_picture=on_picture,
        )
        if own and file_format == "png":
            add_figures(self._workdir(), paths, self.epochs)
        return paths

    def _repr_html_(self) -> str:
        """What a notebook shows: numbers of the last epoch, and small pictures.

        Pictures are those of the run's folder; without any there, of data in memory,
        they are drawn, unless the run has failed.
        """
        numbers: dict[str, Json] = {
            "epochs": self.epochs,
            "parameters": self.parameters,
            **(dict(self.history[-1]["validation"] or {}) if self.history else {}),
        }
        with tempfile.TemporaryDirectory() as folder:
            paths, layout = self._find_pictures(folder), layout_of(self.data_shape)
            return make_notebook_view(repr(self), numbers, paths, layout)

    def _find_pictures(self, spare: str) -> list[Path]:
        """The main pictures of the run's folder, or else new ones in ``spare``."""
        if self.workdir is not None:
            found = [self.workdir / "figures" / f"{name}.png" for name in MAIN_PICTURES]
            if there := [path for path in found if path.exists()]:
                return there
        if self.dataset is None or self.failure or len(self.dataset.test) < 2:
            return []
        suited = available_pictures(self, self.dataset)
        names = [name for name in MAIN_PICTURES if name in suited]
        return self.draw(spare, pictures=names)

    def animate(
        self,
        folder: str | Path | None = None,
        *,
        animations: str | Sequence[str] | None = None,
        file_format: AnimationFormat = "gif",
        style: PictureStyle = "light",
        on_picture: Callable[[str], None] | None = None,
        dataset: DataSource | None = None,
    ) -> list[Path]:
        """Writes animations of latent space; see `flaxvae.latent.animations.animate`.

        Args:
          folder: where the files are written; default ``figures`` in the run's folder.
          animations: one name or several; default all that suit the model.
          file_format: ``gif`` or ``mp4``.
          style: ``light`` or ``dark``.
          on_picture: called with each animation's name before it is computed.
          dataset: in place of the run's own: a data set, or what `read` takes.

        Returns:
          The paths of the files.

        Raises:
          InputError: no data set or no folder, or what `animate` refuses.
        """
        folder = self._workdir() / "figures" if folder is None else folder
        return animate(
            self,
            self._dataset(dataset),
            folder,
            animations=animations,
            file_format=file_format,
            style=style,
            on_picture=on_picture,
        )

    def explore(
        self,
        path: str | Path | None = None,
        *,
        num_points: int = POINTS,
        with_encoder: bool = False,
        with_tsne: bool = False,
        with_umap: bool = False,
        dataset: DataSource | None = None,
    ) -> Path:
        """Writes an HTML page on which latent space is explored.

        See `flaxvae.latent.explorer.page.write_explorer`.

        Args:
          path: of the file; default ``explorer.html`` in the run's folder.
          num_points: this and the next three as in
            `flaxvae.latent.explorer.page.ExplorerConfig`.
          with_encoder: whether images can be dropped on the page.
          with_tsne: whether codes are also arranged by t-SNE.
          with_umap: whether codes are also arranged by UMAP.
          dataset: in place of the run's own: a data set, or what `read` takes.

        Returns:
          The path of the file.

        Raises:
          InputError: no data set or no folder, or what `write_explorer` refuses.
        """
        config = ExplorerConfig(
            num_points=num_points,
            with_encoder=with_encoder,
            with_tsne=with_tsne,
            with_umap=with_umap,
        )
        path = self._workdir() / PAGE if path is None else Path(path)
        dataset = self._dataset(dataset)
        title = self.title_of(dataset)
        return write_explorer(self, dataset, path, config, title=title)

    def generate(
        self,
        num: int = 100,
        *,
        sampler: SamplerName = "prior",
        label: int | str | None = None,
        around: int | Sequence[int] | None = (),
        spread: float = 1.0,
        with_noise: bool = False,
        temperature: float = 1.0,
        seed: int | None = None,
        output: str | Path | None = None,
        dataset: DataSource | Callable[[], Dataset] | None = None,
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
          temperature: of a model with several levels, see `flaxvae.latent.generate`.
          seed: of the draws.
          output: also writes them there; see `flaxvae.latent.write_examples`.
          dataset: in place of the run's own: a data set, what `read` takes, or a
            function that loads a data set, which is called only where examples are
            needed. Without training examples those of the test split stand for them.

        Returns:
          The samples, and the class of each or None.

        Raises:
          InputError: what `flaxvae.latent.generate` and `write_examples` refuse.
        """
        label = self._find_class(label)
        around = () if around is None else as_integers("around", around)
        if output is not None:
            ndim = len(self.data_shape)
            check_output(
                Path(output),
                is_table=ndim == 1,
                is_series=ndim == 2,
                shape=self.data_shape,
                num=as_integer("num", num, 1) * max(1, len(around)),
            )
        found = None
        if self.needs_data(sampler=sampler, label=label, around=around):
            found = self._dataset(dataset() if callable(dataset) else dataset)
            if not len(found.train):  # other data, whose examples are asked for
                found = dataclasses.replace(found, train=found.test)
        x, labels = latent.generate(
            self,
            num,
            sampler=sampler,
            label=label,
            around=choose_around(found, around) if found and around else None,
            spread=spread,
            with_noise=with_noise,
            temperature=temperature,
            dataset=found,
            code_prior=self.code_prior,
            seed=seed,
        )
        if output is not None:
            known = self.dataset or self.template
            columns = None if known is None else known.columns
            schema = self.preprocessing.schema
            latent.write_examples(output, x, labels, columns=columns, schema=schema)
        return x, labels

    def needs_data(
        self,
        *,
        sampler: SamplerName = "prior",
        label: int | str | None = None,
        around: int | Sequence[int] | None = (),
    ) -> bool:
        """Whether `generate` reads examples under these arguments.

        Raises:
          InputError: arguments that do not fit together or the model.
        """
        label = self._find_class(label)
        around = () if around is None else as_integers("around", around)
        return needs_data(
            self,
            sampler=sampler,
            label=label,
            around=around,
            code_prior=self.code_prior,
        )

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
        dataset: DataSource | None = None,
    ) -> dict[str, dict[str, float]]:
        """Accuracies of classifiers on the codes; see `flaxvae.evaluation.probe`.

        Args:
          folder: where ``probe.json`` and ``figures/probe.png`` are written; default
            the run's folder, if it has one.
          num_train: labelled training examples for the classifiers.
          seed: of the classifiers.
          export: also writes the codes; they are posterior means with their labels.
          dataset: in place of the run's own. Without training examples the
            classifiers are trained on the run's own.

        Raises:
          InputError: no data set, no labels, no folder to export to, or one that cannot
            be written.
        """
        check_boolean("export", export)
        folder = self.workdir if folder is None else Path(folder).expanduser()
        if export and folder is None:
            folder = self._workdir()
        if folder is not None:
            check_writable(folder, "folder")
        dataset = self._with_training_examples(self._dataset(dataset))
        check_probed(dataset, num_train=num_train, seed=seed)
        codes = latent.encode_dataset(self, dataset)
        accuracies = evaluation.probe(
            self, dataset, num_train=num_train, seed=seed, codes=codes
        )
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "probe.json", self._named(accuracies, dataset))
            title = self.title_of(dataset)
            draw_accuracies(accuracies, folder / "figures", title=title)
        if export and folder is not None:
            write_codes(codes, folder)
        return accuracies

    def recognize(
        self,
        folder: str | Path | None = None,
        *,
        num: int = 10_000,
        sampler: SamplerName = "prior",
        classifier_epochs: int = 5,
        seed: int | None = None,
        progress: bool = True,
        dataset: DataSource | None = None,
    ) -> dict[str, dict[str, float]]:
        """How a classifier of real examples classifies generated samples.

        See `flaxvae.evaluation.recognize`. The classifier is kept in the folder, where
        the next call finds it.

        Args:
          folder: where ``recognition.json`` and the classifier are written; default the
            run's folder, if it has one.
          num: number of samples.
          sampler: the distribution of their codes.
          classifier_epochs: epochs of the classifier.
          seed: of the draws and of the classifier; default that of the run.
          progress: see `flaxvae.training.fit`.
          dataset: in place of the run's own. Without training examples the classifier
            is trained on the run's own.

        Raises:
          InputError: as `flaxvae.evaluation.recognize`, before the classifier is
            trained, or a folder that cannot be written.
          NonFiniteError: a model that is infinite or NaN, before that, too.
        """
        self.check_finite()
        folder = self.workdir if folder is None else Path(folder).expanduser()
        if folder is not None:
            check_writable(folder, "folder")
        as_integer("num", num, 1)
        seed = check_seed(self.seed if seed is None else seed)
        check_sampled(self, sampler=sampler, code_prior=self.code_prior)
        dataset = self._with_training_examples(self._dataset(dataset))
        check_recognized(dataset)
        kept = self._name_classifier(dataset, classifier_epochs, seed)
        classifier = train_classifier(
            dataset,
            epochs=classifier_epochs,
            seed=seed,
            workdir=folder and folder / kept,
            progress=progress,
        )
        found = evaluation.recognize(
            self,
            dataset,
            num=num,
            sampler=sampler,
            classifier=classifier,
            code_prior=self.code_prior,
            seed=seed,
        )
        if folder is not None:
            write_json(folder / "recognition.json", self._named(found, dataset))
        return found

    def fit_code_prior(
        self,
        config: CodePriorConfig | None = None,
        *,
        workdir: str | Path | None = None,
        engine: Engine | None = None,
        progress: bool = True,
        dataset: DataSource | None = None,
    ) -> "Run":
        """The run of a VQ-VAE with a prior over its codes, the second stage.

        Args:
          config: see `flaxvae.evaluation.fit_code_prior`; without epochs of a prior the
            data set is encoded, and no prior is trained.
          workdir: a run's folder; default ``prior`` in the run's folder, if it has one.
          engine: see `flaxvae.training.fit`.
          progress: see `flaxvae.training.fit`.
          dataset: in place of the run's own: a data set, or what `read` takes.

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
        check_examples(dataset.train, f"train of {dataset.name!r}")
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
        other = not self.owns(dataset)
        return dataclasses.replace(
            self,
            dataset=dataset,
            codes=codes,
            code_prior=prior,
            has_other_data=other,
        )

    def summarize(
        self,
        report: Mapping[str, object],
        figures: Sequence[str | Path] = (),
        **described: object,
    ) -> dict[str, Any]:
        """What ``summary.json`` holds: the data, the model, the report, the figures.

        Args:
          report: as `evaluate` returns it.
          figures: paths as `draw` returns them.
          **described: more about the model, such as ``network="784-256-2"``.
        """
        names = [str(_relative(Path(path), self.workdir)) for path in figures]
        known = self.dataset or self.__dict__.get("data")
        template = known or self.template
        summary: dict[str, object] = {
            "dataset": None if template is None else self.title_of(template),
            **described,
            "parameters": self.parameters,
            "epochs": self.epochs,
            "device": device_name(),
        }
        if isinstance(self.model, VQVAE):
            prior = self.code_prior
            classes = ModelTraits.of(prior.model).num_classes if prior else None
            summary |= {
                "prior_parameters": prior.parameters if prior else 0,
                "prior_classes": classes,
                "prior_epochs": prior.epochs if prior else 0,
            }
        elif not isinstance(self.model, Autoencoder):
            skipped = sum(line.get("skipped", 0) for line in self.history)
            summary |= {
                "train_examples": None if known is None else len(known.train),
                "best_epoch": self.best_epoch,
                "skipped_updates": skipped,
            }
        before = self._summary_before()
        times = {name: before.get(name) for name in TIMES}
        return summary | times | self.timing | dict(report) | {"figures": names}

    def write_summary(
        self,
        report: Mapping[str, object],
        figures: Sequence[str | Path] = (),
        **described: object,
    ) -> dict[str, Any]:
        """Writes ``summary.json`` to the run's folder, and returns its contents.

        Beside it ``gallery.html`` shows the numbers and pictures of the folder on one
        page; see `flaxvae.latent.gallery`. The arguments are those of `summarize`.

        Raises:
          InputError: a run without a folder.
        """
        summary = self.summarize(report, figures, **described)
        folder = RunFolder(self._workdir())
        if hosts.is_main():
            folder.write_summary(summary)
            write_gallery(self._workdir())
        return summary

    def _summary_before(self) -> Mapping[str, object]:
        return (self.workdir and RunFolder(self.workdir).summary) or {}

    def _codes(self, dataset: Dataset, seed: int | None = None) -> Dataset:
        """The data set as numbers of entries, of the inputs drawn under a seed."""
        stored = self._stored_codes(dataset, seed)
        return stored or latent.encode_dataset(self, dataset, indices=True, seed=seed)

    def _stored_codes(self, dataset: Dataset, seed: int | None) -> Dataset | None:
        """The same, if it has been encoded already."""
        has_draws = dataset.preprocessing.has_draws(dataset.train.x.dtype)
        is_own = seed is None or seed == self.seed or not has_draws
        return self.codes if dataset is self.dataset and is_own else None

    def _name_classifier(self, dataset: Dataset, epochs: int, seed: int | None) -> str:
        """The folder of a classifier of a data set's examples."""
        name = f"classifier-{epochs}-{self.seed if seed is None else seed}"
        if self.owns(dataset):
            return name
        return f"{name}-{dataset.fingerprint(with_labels=True)}"

    def _workdir(self) -> Path:
        if self.workdir is None:
            raise InputError("folder must be stated for a run without a workdir")
        return self.workdir


def _refuse_dataset(dataset: DataSource | None, beside: str) -> None:
    if dataset is not None:
        raise InputError(f"dataset must be left out beside {beside}")


def _split_of(dataset: Dataset, name: str) -> Split:
    splits = dict(zip(SPLITS, dataset.splits, strict=True))
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
        bound, dataset = _bind(signature, *args, **kwargs)
        try:
            return Run.of(function(*bound.args, **bound.kwargs), dataset)
        except Interrupted as error:
            if isinstance(error.trained, Trained):
                error.trained = Run.of(error.trained, dataset)
            raise

    return _annotate(call, signature, Run)


def _with_runs(function: Callable[P, list[Member]]) -> Callable[P, list[RunMember]]:
    """The function with a `Run` in each member of its result."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> list[RunMember]:
        bound, dataset = _bind(signature, *args, **kwargs)

        def as_runs(members: list[Member]) -> list[RunMember]:
            return [
                RunMember(m.setting, Run.of(m.trained, dataset), m.failure)
                for m in members
            ]

        try:
            return as_runs(function(*bound.args, **bound.kwargs))
        except Interrupted as error:
            found = error.trained
            error.trained = as_runs(found if isinstance(found, list) else [])
            raise

    return _annotate(call, signature, list[RunMember])


def _bind(
    signature: inspect.Signature, *args: object, **kwargs: object
) -> tuple[inspect.BoundArguments, Dataset]:
    """The arguments of `fit` or `sweep`, and their data set, read where it must be."""
    bound = signature.bind(*args, **kwargs)
    first = bound.args[0] if bound.args else None
    if isinstance(first, Training):
        return bound, first.dataset
    if "dataset" not in bound.arguments:
        raise TypeError("missing a required argument: 'dataset'")
    dataset = bound.arguments["dataset"] = as_dataset(bound.arguments["dataset"])
    return bound, dataset


def _annotate(
    function: Callable[P, R], signature: inspect.Signature, result: object
) -> Callable[P, R]:
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
    dataset = None if dataset is None else as_dataset(dataset)
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
    dataset: DataSource | None = None,
) -> Run:
    """Loads a run from its folder; of a VQ-VAE with the prior over its codes.

    It reads its own data when they are first needed, from where it had them: see
    `Run.data`.

    Args:
      workdir: the folder that a run wrote.
      model: see `flaxvae.training.load`.
      dataset: the data of a run on arrays in memory, which are not stored; the place
        of data that have moved; or other data that fit, see `Run.read`.

    Raises:
      InputError: as `flaxvae.training.load`, or data that do not fit the run's.
    """
    workdir = Path(workdir).expanduser()
    run = Run.of(training.load(workdir, model))
    if dataset is not None:
        found = run._dataset(dataset)
        other = not run.owns(found)
        run = dataclasses.replace(run, dataset=found, has_other_data=other)
    folder = workdir / PRIOR_FOLDER
    if isinstance(run.model, VQVAE) and (folder / "config.json").exists():
        run = dataclasses.replace(run, code_prior=training.load(folder))
    return run
