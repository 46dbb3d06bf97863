"""What the metrics of a trained model are computed from."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxvae.data import Dataset, Split
from flaxvae.evaluation.recognition import train_classifier
from flaxvae.latent.encode import encode_dataset
from flaxvae.latent.samplers import SamplerName
from flaxvae.settings import check_settings, setting
from flaxvae.training import Trained


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """How much is computed for each metric."""

    nll_samples: int | None = setting(None, at_least=1)
    """Importance samples for -log p(x) of each example. Default: 1000, of several
    levels 100."""
    num_examples: int | None = setting(None, at_least=2)
    """Random examples of the split for -log p(x), at most. Default: 1000, of several
    levels 100."""
    num_samples: int = setting(10_000, at_least=12)
    """Generated samples, at most as many as the split has examples to compare with."""
    sampler: SamplerName = "prior"
    """Codes of generated samples: the prior, a mixture fitted to codes, or examples'
    posteriors."""
    classifier_epochs: int = setting(5, at_least=1)
    """Epochs of the classifier of real examples."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a metric is computed from.

    Attributes:
      trained: the model.
      dataset: its data.
      name: of the split that is evaluated, which has examples.
      config: how much is computed.
      seed: of all draws; None: that of the run.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      stored_codes: of a VQ-VAE, the data set as numbers of entries under this seed,
        where it has been encoded.
      classifier_folder: a run's folder for the classifier of real examples, from which
        it is read again; None: it is not kept.
      progress: see `flaxvae.training.fit`.
    """

    trained: Trained
    dataset: Dataset
    name: str = "test"
    config: MeasureConfig = dataclasses.field(default_factory=MeasureConfig)
    seed: int | None = None
    code_prior: Trained | None = None
    stored_codes: Dataset | None = None
    classifier_folder: Path | None = None
    progress: bool = False

    @property
    def split(self) -> Split:
        """The examples that are evaluated."""
        return self.dataset.split(self.name)

    @property
    def tested(self) -> Dataset:
        """The data set with these examples as its test split."""
        return dataclasses.replace(self.dataset, test=self.split)

    @property
    def number(self) -> int:
        """The seed, as a number."""
        return self.trained.seed if self.seed is None else self.seed

    @functools.cached_property
    def few(self) -> Split:
        """Random examples of the split, for what takes many passes of each."""
        default = 100 if self.trained.has_levels else 1000
        most = default if (num := self.config.num_examples) is None else num
        if len(self.split) <= most:
            return self.split
        order = np.random.default_rng(self.number).permutation(len(self.split))
        return self.split[np.sort(order[:most])]

    @property
    def nll_samples(self) -> int:
        """K, the number of importance samples."""
        default = 100 if self.trained.has_levels else 1000
        return default if (num := self.config.nll_samples) is None else num

    @functools.cached_property
    def codes(self) -> Dataset:
        """Of a VQ-VAE, the data set as numbers of codebook entries."""
        return self.stored_codes or encode_dataset(
            self.trained, self.dataset, indices=True, seed=self.seed
        )

    @functools.cached_property
    def classifier(self) -> Trained:
        """A classifier of real examples."""
        return train_classifier(
            self.tested,
            epochs=self.config.classifier_epochs,
            seed=self.number,
            workdir=self.classifier_folder,
            progress=self.progress,
        )
