"""Classification with few labels: by the codes of a VAE (M1), by M2, and by both.

``m1``: a VAE of all examples, then a classifier of its codes that also uses how the
unlabelled codes are distributed. ``m2``: a conditional VAE whose classes are summed out
for unlabelled examples. ``m1+m2``: M2 on the codes of the VAE. ``classifier``: a
network trained on the labelled examples only.

Where images are dynamically binarized or dequantized, every method sees drawn images,
and none of them grey levels: networks on images a new draw in each training step, of
labelled examples, too; M1's codes and all errors are of the one draw of each example
that an evaluation uses.

Source: Kingma et al., "Semi-supervised Learning with Deep Generative Models", 2014,
arXiv 1406.5298.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import flax.linen as nn
import numpy as np

from flaxvae.checks import InputError, as_integer, check_choice
from flaxvae.data import Dataset, Split
from flaxvae.data.labelled import choose_labelled
from flaxvae.evaluation.recognition import find_errors
from flaxvae.latent.encode import encode_means, evaluation_key
from flaxvae.models import (
    Classifier,
    SemiSupervisedVAE,
    build_classifier,
    build_vae,
)
from flaxvae.objectives import M2, Classification, Objective
from flaxvae.schedules import Schedule, warm_up
from flaxvae.settings import check_needs, check_settings, setting
from flaxvae.training import Engine, Trained, fit
from flaxvae.training.training import DEFAULT_OBJECTIVE

NEIGHBOURS = 10  # of a code, in label spreading
CLASSIFIER_EPOCHS = 300
LEAST_DEVIATION = 0.1  # of a code's dimension: one that M1 does not use stays small

Method = Literal["classifier", "m1", "m2", "m1+m2"]
METHODS: tuple[Method, ...] = get_args(Method)
OF_M1 = {"methods": ("m1", "m1+m2")}
OF_M2 = {"methods": "m2"}
OF_STACKED = {"methods": "m1+m2"}
OF_ALL = {"methods": ("m1", "m2", "m1+m2")}
ON_EXAMPLES = {"methods": ("classifier", "m2")}


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedConfig:
    """Networks and training of the methods.

    Raises:
      InputError: a value out of range.
    """

    m1_epochs: int = setting(40, at_least=1, needs=OF_M1)
    """Epochs of M1's VAE."""
    m1_latent_dim: int = setting(50, at_least=1, needs=OF_M1)
    """Latent dimensions of M1."""
    m1_hidden: tuple[int, ...] = setting((600, 600), at_least=1, needs=OF_M1)
    """Widths of M1's layers."""
    m2_epochs: int = setting(8, at_least=1, needs=OF_M2)
    """Epochs of M2 on examples."""
    m2_latent_dim: int = setting(2, at_least=1, needs=OF_M2)
    """Latent dimensions of M2, beside the class; fewer leave more to the class."""
    m2_hidden: tuple[int, ...] = setting((256,), at_least=1, needs=ON_EXAMPLES)
    """Widths of M2's layers, and of the classifier mlp."""
    m2_classifier: Literal["mlp", "conv"] = setting("conv", needs=ON_EXAMPLES)
    """Network of M2's classifier and of the classifier alone; always mlp for tables."""
    m2_alpha: float = setting(100.0, above=0, needs=OF_M2)
    """Weight of the classification loss in M2."""
    stacked_epochs: int = setting(20, at_least=1, needs=OF_STACKED)
    """Epochs of M2 on codes."""
    stacked_latent_dim: int = setting(10, at_least=1, needs=OF_STACKED)
    """Latent dimensions of M2 on codes."""
    stacked_hidden: tuple[int, ...] = setting((500,), at_least=1, needs=OF_STACKED)
    """Widths of the layers of M2 on codes, and of its classifier."""
    stacked_alpha: float = setting(1.0, above=0, needs=OF_STACKED)
    """Weight of the classification loss in M2 on codes."""
    learning_rate: float = setting(1e-3, above=0, needs=OF_ALL)
    """Highest step size of every optimizer, which falls to 0 by a cosine."""
    batch_size: int | None = setting(None, at_least=1, needs=OF_ALL)
    """Unlabelled examples in a training step. Default: 128, or a quarter of fewer than
    128."""

    def __post_init__(self) -> None:
        check_settings(self)


def compare_semi_supervised(
    dataset: Dataset,
    num_labels: int = 100,
    *,
    methods: Sequence[Method] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    split: Literal["test", "validation"] = "test",
    config: SemiSupervisedConfig | None = None,
    workdir: str | Path | None = None,
    on_result: Callable[[int, str, float], None] | None = None,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Classification errors with few labels, by several methods.

    Args:
      dataset: labelled examples; the other labels of its training split are not used.
      num_labels: labelled training examples, as many of each class.
      methods: names of methods; see this module.
      seeds: of the choice of labels and of all training.
      split: whose errors are returned; ``"validation"`` to choose settings by.
      config: networks and training of the methods.
      workdir: a folder for all runs, from which the same call continues.
      on_result: called with the seed, the name and the error of each result.
      progress: see `flaxvae.training.fit`.

    Returns:
      For each method's name one error per seed, the share of examples that are not
      classified correctly. ``m1`` has two, by a support vector machine on the labelled
      codes and by label spreading over all codes.

    Raises:
      InputError: no labels, no example in the split, or what `choose_labelled` refuses.
    """
    config = config or SemiSupervisedConfig()
    check_methods(config, methods)
    num_labels = as_integer("labels", num_labels, 1)
    if dataset.train.labels is None:
        raise InputError(f"dataset must have labels, got {dataset.name!r}")
    if not len(dataset.split(split)):
        raise InputError(f"split must hold an example, and {split} has none")
    if dataset.split(split).labels is None:
        raise InputError(f"split must have labels, and {split} has none")
    if len(np.unique(dataset.train.labels)) < 2:
        raise InputError("labels must be of two classes or more, got one class")
    if (config.batch_size or 1) > len(dataset.train):
        raise InputError(
            f"batch_size must be <= {len(dataset.train)}, the number of training "
            f"examples, got {config.batch_size}"
        )
    errors: dict[str, list[float]] = {}
    for seed in seeds:
        study = SemiSupervisedStudy(
            dataset,
            choose_labelled(dataset.train.labels, num_labels, seed=seed),
            config=config,
            split=split,
            seed=seed,
            workdir=None if workdir is None else Path(workdir) / f"seed={seed}",
            progress=progress,
        )
        for method in methods:
            for name, error in study.measure(method).items():
                errors.setdefault(name, []).append(error)
                if on_result is not None:
                    on_result(seed, name, error)
    return errors


def check_methods(config: SemiSupervisedConfig, methods: Sequence[Method]) -> None:
    """Raises `InputError` for no or an unknown method, or a setting of no method."""
    if isinstance(methods, str):
        raise InputError(f"methods must be a list of names, got {methods!r}")
    for method in methods:
        check_choice("method", method, METHODS)
    if not methods:
        raise InputError("methods must name one, got none")
    check_needs(config, methods=tuple(methods))


@dataclass(frozen=True)
class SemiSupervisedStudy:
    """The methods on one choice of labelled examples; models are trained when needed.

    Attributes:
      dataset: all examples.
      rows: numbers of the labelled training examples.
      config: networks and training.
      split: whose errors are measured.
      seed: of all training.
      workdir: a folder for the runs, or None.
      progress: see `flaxvae.training.fit`.
    """

    dataset: Dataset
    rows: np.ndarray
    config: SemiSupervisedConfig = field(default_factory=SemiSupervisedConfig)
    split: str = "test"
    seed: int = 0
    workdir: Path | None = None
    progress: bool = True

    def measure(self, method: Method) -> dict[str, float]:
        """The errors of a method by name, as shares of the split's examples."""
        if method == "classifier":
            classifier = self.classifier
            return {"classifier alone": self._error(classifier, self.dataset)}
        if method == "m1":
            return self._classify_codes()
        if method == "m2":
            return {"M2": self._error(self.m2, self.dataset)}
        return {"M1+M2": self._error(self.stacked, self.codes)}

    @property
    def num_classes(self) -> int:
        """Y."""
        return self.dataset.num_classes or 1

    @functools.cached_property
    def classifier(self) -> Trained:
        """M2's classifier, trained on the labelled examples alone."""
        few = self.dataset.train[self.rows]
        seen = self.dataset.preprocessing
        labelled = Dataset("labelled", few, few[:0], few[:0], preprocessing=seen)
        return fit(
            self._build_classifier(self.dataset, self.config.m2_hidden),
            labelled,
            objective=Classification(),
            epochs=CLASSIFIER_EPOCHS,
            batch_size=min(100, len(few)),
            engine=Engine.small(),
            learning_rate=1e-3,
            seed=self.seed,
            workdir=self._folder("classifier"),
            settings={"labelled": self.rows.tolist()},
            progress=False,
            on_interrupt="raise",
        )

    @functools.cached_property
    def m1(self) -> Trained:
        """The VAE of all training examples."""
        config = self.config
        shape, D = self.dataset.shape, config.m1_latent_dim
        return self._fit(
            "m1",
            build_vae(shape, D, hidden=config.m1_hidden),
            self.dataset,
            epochs=config.m1_epochs,
        )

    @functools.cached_property
    def codes(self) -> Dataset:
        """M1's posterior means as a table, with mean 0 and deviation 1."""
        key = evaluation_key(self.m1, seed=self.seed)
        z = {
            name: encode_means(self.m1, self.dataset.split(name), key=key)
            for name in ("train", "validation", "test")
        }
        mean, std = z["train"].mean(axis=0), z["train"].std(axis=0)
        scale = np.maximum(std, LEAST_DEVIATION)
        train, validation, test = (
            Split((each - mean) / scale, self.dataset.split(name).labels)
            for name, each in z.items()
        )
        return Dataset(f"codes of {self.dataset.name}", train, validation, test)

    @functools.cached_property
    def m2(self) -> Trained:
        """M2 on the examples."""
        config = self.config
        # At first by the labels alone: otherwise classes follow what is easy to
        # generate.
        return self._fit_m2(
            "m2",
            self._build_m2(self.dataset, config.m2_latent_dim, config.m2_hidden),
            self.dataset,
            epochs=config.m2_epochs,
            alpha=config.m2_alpha,
            feedback=warm_up(1.0, share=0.5),
        )

    @functools.cached_property
    def stacked(self) -> Trained:
        """M2 on the codes of M1."""
        config, codes = self.config, self.codes
        return self._fit_m2(
            "m1+m2",
            self._build_m2(codes, config.stacked_latent_dim, config.stacked_hidden),
            codes,
            epochs=config.stacked_epochs,
            alpha=config.stacked_alpha,
            feedback=1.0,
        )

    def _classify_codes(self) -> dict[str, float]:
        """Classifiers of M1's codes: of the labelled ones, and with the unlabelled."""
        from sklearn.semi_supervised import LabelSpreading
        from sklearn.svm import SVC

        train, other = self.codes.train, self.codes.split(self.split)
        labels = np.asarray(train.labels)
        machine = SVC(C=10.0).fit(train.x[self.rows], labels[self.rows])
        known = np.full(len(train), -1)
        known[self.rows] = labels[self.rows]
        spreading = LabelSpreading(
            kernel="knn", n_neighbors=NEIGHBOURS, alpha=0.9, max_iter=100, n_jobs=-1
        ).fit(train.x, known)
        return {
            "M1 + support vectors": 1 - machine.score(other.x, other.labels),
            "M1 + label spreading": 1 - spreading.score(other.x, other.labels),
        }

    def _build_m2(
        self, dataset: Dataset, latent_dim: int, hidden: tuple[int, ...]
    ) -> SemiSupervisedVAE:
        vae = build_vae(
            dataset.shape,
            latent_dim,
            hidden=hidden,
            conditional="concat",
            num_classes=self.num_classes,
        )
        return SemiSupervisedVAE(vae, self._build_classifier(dataset, hidden))

    def _build_classifier(
        self, dataset: Dataset, hidden: tuple[int, ...]
    ) -> Classifier:
        if dataset.is_table or self.config.m2_classifier == "mlp":
            return build_classifier("mlp", self.num_classes, hidden=hidden)
        return build_classifier("conv", self.num_classes)

    def _fit_m2(
        self,
        name: str,
        model: SemiSupervisedVAE,
        dataset: Dataset,
        *,
        epochs: int,
        alpha: float,
        feedback: float | Schedule,
    ) -> Trained:
        """Trains M2 on all examples, a few of them with labels."""
        few = dataset.train[self.rows]
        seen = dataset.preprocessing
        stored = seen.stored(few.x)
        if not (seen.dequantize and seen.has_draws(stored.dtype)):  # else M2 does it
            stored = np.asarray(seen.prepare(stored))
        labelled: dict[str, Any] = {"x": np.asarray(stored), "labels": few.labels}
        return self._fit(
            name,
            model,
            dataset,
            objective=M2(**labelled, alpha=alpha, feedback=feedback),
            epochs=epochs,
            settings={"labelled": self.rows.tolist()},
        )

    def _fit(
        self,
        name: str,
        model: nn.Module,
        dataset: Dataset,
        *,
        epochs: int,
        objective: Objective = DEFAULT_OBJECTIVE,
        settings: Mapping[str, object] | None = None,
    ) -> Trained:
        """Trains a model of all examples."""
        return fit(
            model,
            dataset,
            objective=objective,
            epochs=epochs,
            batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate,
            lr_schedule="cosine",
            seed=self.seed,
            workdir=self._folder(name),
            settings=settings,
            progress=self.progress,
            on_interrupt="raise",
        )

    def _folder(self, name: str) -> Path | None:
        return None if self.workdir is None else self.workdir / name

    def _error(self, trained: Trained, dataset: Dataset) -> float:
        """The share of the split's examples that are not classified correctly."""
        errors = find_errors(trained, dataset.split(self.split), seed=self.seed)
        return float(errors.mean())
