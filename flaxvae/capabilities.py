"""What models, their parts and distributions declare about themselves.

A class declares a capability by a class variable, a field or a method with one of the
names below. Other modules and models may stand in the place of flaxvae's own, without a
base class: what they do not declare has the default stated here. This file is the only
one that reads declarations.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, Protocol, Self, runtime_checkable

import jax

from flaxvae.types import Block, PyTree

Support = Literal["binary", "unit", "real", "levels", "mixed"]


@dataclass(frozen=True)
class Traits:
    """Declarations, each a field with its default."""

    @classmethod
    def of(cls, thing: object) -> Self:
        """What an object declares, and the defaults of what it does not.

        >>> class Own:
        ...     support = "real"
        >>> LikelihoodTraits.of(Own()).support, LikelihoodTraits.of(Own()).levels
        ('real', None)
        """
        stated = {f.name: getattr(thing, f.name, f.default) for f in fields(cls)}
        return cls(**stated)


class Conditioner(Protocol):
    """A module from conditions ``(B,)`` or ``(B, C)`` to features ``(B, E)``."""

    def __call__(self, condition: jax.Array) -> jax.Array:
        """The features of each condition."""

    def example(self, count: int) -> jax.Array:
        """``count`` valid conditions."""


@dataclass(frozen=True)
class ModelTraits(Traits):
    """Of a model; each part that it does not have is None.

    Attributes:
      condition: the module of its conditions, if it is conditional.
      prior: the module of p(z), or the method of a model without one.
      posterior: the module of q(z|x).
      likelihood: the module of p(x|z).
      critic: the second player of FactorVAE.
      num_classes: of a classifier or a prior over codes, the number of classes.
      learns_labels: whether it is taught the labels of its examples: `bind` gives an
        objective the model with its ``labels``.
      trains_without_condition: whether it is conditional, but its training examples
        have no condition.
      handles_missing: whether it leaves out missing numbers (NaN) where its likelihood
        does.
      has_levels: whether it has several levels of latent variables, so that its codes
        are `flaxvae.distributions.levels.Codes`.
    """

    condition: Conditioner | None = None
    prior: object = None
    posterior: object = None
    likelihood: object = None
    critic: Callable[[jax.Array], jax.Array] | None = None
    num_classes: int | None = None
    learns_labels: bool = False
    trains_without_condition: bool = False
    handles_missing: bool = False
    has_levels: bool = False


@dataclass(frozen=True)
class LikelihoodTraits(Traits):
    """Of a module of p(x|z).

    Attributes:
      support: the values on which p(x|z) is defined: ``"binary"`` (0 and 1, where grey
        levels between them are customary), ``"unit"`` (from 0 to 1), ``"real"``,
        ``"levels"`` (0, 1/(L-1), ..., 1) or ``"mixed"`` (as ``columns`` says); None:
        not declared, and not checked.
      levels: L, of support ``"levels"``.
      columns: of support ``"mixed"``, as `flaxvae.distributions.mixed.Mixed` takes
        them.
      handles_missing: whether p(x|z) leaves out the numbers of x that are NaN.
    """

    support: Support | None = None
    levels: int | None = None
    columns: tuple[Block, ...] | None = None
    handles_missing: bool = False

    @property
    def is_probability(self) -> bool:
        """Whether p(x|z) is a probability of x, not a density."""
        return self.support in ("binary", "levels")

    def is_normalized_for(self, levels: int | None) -> bool:
        """Whether p(x|z) is normalized over data with so many levels, None: reals."""
        return self.support != "binary" or levels == 2


@dataclass(frozen=True)
class PriorTraits(Traits):
    """Of a module of p(z).

    Attributes:
      takes_condition: whether it is called with the features of the conditions.
      is_standard: whether p(z) is N(0, I); None: not declared, and not checked.
    """

    takes_condition: bool = False
    is_standard: bool | None = None


@dataclass(frozen=True)
class PosteriorTraits(Traits):
    """Of a module of q(z|x).

    Attributes:
      is_diagonal: whether q(z|x) is a normal distribution with independent components;
        None: not declared, and not checked.
    """

    is_diagonal: bool | None = None


@dataclass(frozen=True)
class ConditionTraits(Traits):
    """Of a module of conditions.

    Attributes:
      num_classes: Y, where conditions are classes.
      width: C, where they are vectors.
    """

    num_classes: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class DistributionTraits(Traits):
    """Of a distribution.

    Attributes:
      event_ndim: number of trailing axes that make one event.
      is_factorized: whether the components of an event are independent normal
        variables with the distribution's ``mean`` and ``log_var``, so that formulas per
        dimension apply.
      has_fast_density: whether a density at any point is about as cheap as a draw, so
        that N x M of them can be computed.
      has_levels: whether it is one of `flaxvae.distributions.levels.Codes`.
    """

    event_ndim: int = 1
    is_factorized: bool = False
    has_fast_density: bool = False
    has_levels: bool = False


@dataclass(frozen=True)
class CodeTraits(DistributionTraits):
    """Of the distributions of codes q(z|x).

    Attributes:
      mean: the codes to look at, ``(*batch, *event)``; None: there are none.
    """

    mean: jax.Array | None = None

    @property
    def are_vectors(self) -> bool:
        """Whether it is a batch ``(B,)`` of distributions over ``(D,)``."""
        has_batch = self.mean is not None and self.mean.ndim == 1 + self.event_ndim
        return has_batch and self.event_ndim == 1


@runtime_checkable
class Encodes(Protocol):
    """A model with codes."""

    def encode(self, x: jax.Array) -> object:
        """q(z|x) of a batch."""


@runtime_checkable
class Decodes(Protocol):
    """A model of p(x|z)."""

    def decode(self, z: jax.Array) -> object:
        """p(x|z) of codes."""


@runtime_checkable
class HasPrior(Protocol):
    """A model with p(z); an autoencoder and a VQ-VAE have none."""

    def prior(self) -> object:
        """p(z)."""


@runtime_checkable
class Conditional(Protocol):
    """A model that may be conditional; it is if it has the module ``condition``."""

    def given(self, condition: jax.Array) -> object:
        """The model under a condition for each example, ``(B,)`` or ``(B, C)``."""


@runtime_checkable
class HasInitAll(Protocol):
    """A model that lists its own parts."""

    def init_all(self, x: jax.Array) -> None:
        """Calls every part once, to initialize its variables."""


@runtime_checkable
class InitializedFromData(Protocol):
    """A model with data-dependent initialization."""

    def initialize_from_data(
        self, variables: PyTree, examples: Callable[[int], jax.Array]
    ) -> PyTree:
        """The variables, from ``(count) -> examples`` as the model sees them."""


@runtime_checkable
class PriorInitializedFromData(Protocol):
    """A module of p(z) with data-dependent initialization."""

    num_components: int

    def initialize_from_data(self, params: PyTree, examples: jax.Array) -> PyTree:
        """The parameters, from ``num_components`` examples."""


@runtime_checkable
class TakesCritic(Protocol):
    """A model with a place for a critic of codes."""

    critic: object


@runtime_checkable
class ShapesFeatures(Protocol):
    """A likelihood whose features are not of the data's own shape."""

    def feature_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the features for an example of ``data_shape``."""


@runtime_checkable
class SamplesWithDensity(Protocol):
    """A distribution whose density is cheaper, or only known, at its own draws."""

    def sample_and_log_prob(
        self, key: jax.Array, shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, jax.Array]:
        """Draws ``(*shape, *batch, *event)`` and log-densities ``(*shape, *batch)``."""
