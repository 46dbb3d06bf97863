"""What a picture of a run is drawn from."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from flaxvae.data import Dataset, Split
from flaxvae.latent import panels
from flaxvae.latent.encode import encode_dataset, encode_means
from flaxvae.latent.keys import draw_key
from flaxvae.latent.samplers import SamplerName, choose_sampler
from flaxvae.training import Trained
from flaxvae.training.keys import Stream
from flaxvae.training.trained import Sampler

if TYPE_CHECKING:
    from flaxvae.latent.figures.style import Figure


@dataclass(frozen=True)
class Context:
    """What a picture is drawn from, see `flaxvae.latent.draw`."""

    trained: Trained
    dataset: Dataset
    title: str
    sampler: SamplerName = "prior"
    manifold_dims: Sequence[int] | None = None
    other: Trained | None = None
    code_prior: Trained | None = None
    codes: Dataset | None = None
    seed: int | None = None

    @property
    def key(self) -> jax.Array:
        """The key of samples in pictures."""
        return draw_key(self.trained, Stream.FIGURES, seed=self.seed)

    @functools.cached_property
    def shown(self) -> Split:
        """The ten test examples that pictures show."""
        test = self.dataset.test
        return test[np.array(panels.choose_examples(test))]

    @functools.cached_property
    def means(self) -> np.ndarray:
        """Posterior means of the test split, ``(N, D)``."""
        return encode_means(self.trained, self.dataset.test)

    @functools.cached_property
    def source(self) -> Sampler | None:
        """The sampler of codes; None: the model's prior."""
        x, seed = self.dataset.train.x, self.seed
        return choose_sampler(self.trained, self.sampler, x, seed=seed)

    @functools.cached_property
    def indices(self) -> Dataset:
        """The data set as numbers of codebook entries."""
        if self.codes is not None:
            return self.codes
        return encode_dataset(self.trained, self.dataset, indices=True, seed=self.seed)


Picture = Callable[[Context], "Figure | None"]
"""From a context to a figure, or to None where the picture does not apply."""
