"""What a picture of a run is drawn from."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import jax
import numpy as np

from flaxvae.capabilities import CodeTraits, ModelTraits, PriorTraits
from flaxvae.data import Dataset, Split
from flaxvae.distributions import Normal
from flaxvae.distributions.divergences import has_kl_per_dimension, kl_per_dimension
from flaxvae.latent import panels
from flaxvae.latent.encode import encode_dataset, encode_means
from flaxvae.latent.keys import draw_key
from flaxvae.latent.over_training import FOLDER, Snapshot, read_snapshots
from flaxvae.latent.paths import rank_dimensions
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
    def posteriors(self) -> Normal | None:
        """q(z|x) of the test split, where it has independent normal components."""
        if self.trained.has_levels:
            return None
        test = self.dataset.test
        q = self.trained.encode(test.x, test.condition)
        codes = CodeTraits.of(q)
        if not codes.is_factorized or not codes.are_vectors:
            return None
        return cast(Normal, q)

    @functools.cached_property
    def kl_per_dimension(self) -> np.ndarray | None:
        """Mean KL of each dimension over the test split, ``(D,)``, where it has parts.

        The prior of a conditional model depends on the condition, and has none here.
        """
        q, p = self.posteriors, self.trained.prior
        if q is None or not has_kl_per_dimension(q, p):
            return None
        return np.asarray(mean_kl_per_dimension(q, cast(Normal, p)))

    @functools.cached_property
    def aggregate_std(self) -> np.ndarray:
        """Standard deviation of codes of examples drawn at random, ``(D,)``."""
        variance = self.means.var(axis=0)
        if self.posteriors is not None:
            variance = variance + np.asarray(self.posteriors.std**2).mean(axis=0)
        return np.sqrt(variance)

    @functools.cached_property
    def ranked_dims(self) -> np.ndarray:
        """Latent dimensions by their KL or else by their spread, largest first."""
        kl = self.kl_per_dimension
        return np.asarray(rank_dimensions(self.means.std(axis=0) if kl is None else kl))

    def repeat_condition(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """The condition of the first example shown, for codes of this shape."""
        condition = self.shown.condition if self.trained.is_conditional else None
        if condition is None:
            return None
        first = np.asarray(condition)[0]
        return np.broadcast_to(first, (*shape, *first.shape))

    @property
    def has_normal_prior(self) -> bool:
        """Whether p(z) is known to be N(0, I)."""
        prior = ModelTraits.of(self.trained.model).prior
        return PriorTraits.of(prior).is_standard is True

    @functools.cached_property
    def snapshots(self) -> list[Snapshot]:
        """Latent space after the epochs of its training that were kept."""
        workdir = self.trained.workdir
        return [] if workdir is None else read_snapshots(workdir / FOLDER)

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


@jax.jit
def mean_kl_per_dimension(q: Normal, p: Normal) -> jax.Array:
    """`kl_per_dimension`, the mean over examples, ``(D,)``."""
    return kl_per_dimension(q, p).mean(axis=0)


Picture = Callable[[Context], "Figure | None"]
"""From a context to a figure, or to None where the picture does not apply."""
