"""The variational autoencoder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.capabilities import LikelihoodTraits, PriorTraits
from flaxvae.checks import InputError, check_boolean, check_choice
from flaxvae.distributions import Distribution
from flaxvae.models.data_spec import DataSpec, as_shape
from flaxvae.models.likelihood import build_part, fields_of
from flaxvae.models.networks import NetworkConfig, split_parts, without_none
from flaxvae.nn.conditions import (
    CONDITIONALS,
    EMBEDDING_SIZE,
    Condition,
    Conditioning,
)
from flaxvae.nn.critic import Critic
from flaxvae.nn.posteriors import POSTERIORS, Posterior
from flaxvae.nn.priors import PRIORS, Prior, PriorFlow
from flaxvae.settings import setting


class VAE(nn.Module):
    """A variational autoencoder composed of five interchangeable modules.

    The model itself draws no samples: that is done by the objective, which receives the
    key. ``vae.prior()`` calls the prior module and returns p(z). A conditional model
    also has a ``condition``; ``vae.given(c)`` is the model under the conditions c.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114; Rezende, Mohamed and Wierstra, "Stochastic Backpropagation and
    Approximate Inference in Deep Generative Models", 2014, arXiv 1401.4082.
    """

    handles_missing: ClassVar[bool] = True  # where the likelihood does

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    posterior: nn.Module  # features (B, F) -> q(z|x) over (D,)
    prior: nn.Module  # () -> p(z) over (D,)
    decoder: nn.Module  # z (..., D) -> array (..., H, W, C)
    likelihood: nn.Module  # array (..., H, W, C) -> p(x|z) over (H, W, C)
    critic: nn.Module | None = None  # codes (B, D) -> log-odds (B,), for FactorVAE
    condition: nn.Module | None = None  # c (B, ...) -> (B, E), input of both networks

    def encode(self, x: jax.Array) -> Distribution:
        """q(z|x) for a batch ``(B, H, W, C)``."""
        features = self.encoder(self.observed(x))
        return self.posterior(check_features(features, self.posterior))

    def observed(self, x: jax.Array) -> jax.Array:
        """The encoder's input: missing numbers (NaN) are 0, the mean of their column.

        Source: Mattei and Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
        Incomplete Data Sets", 2019, arXiv 1812.02633, section 3.3.
        """
        if not LikelihoodTraits.of(self.likelihood).handles_missing:
            return x
        return jnp.where(jnp.isnan(x), 0.0, x)

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z) for codes ``(..., D)``."""
        return self.likelihood(self.decoder(z))

    def given(self, c: jax.Array) -> "GivenVAE":
        """The model under a condition for each example, ``(B,)`` or ``(B, C)``.

        Raises:
          InputError: the model is not conditional.
        """
        if self.condition is None:
            raise InputError("the model must be conditional to be given conditions")
        return GivenVAE(self, self.condition(c))


def check_features(features: object, posterior: nn.Module) -> jax.Array:
    """What an encoder has returned, if flaxvae's posteriors can read it.

    Raises:
      InputError: not an array, or not ``(B, F)``.
    """
    rule = "encoder must return features (B, F)"
    if not hasattr(features, "shape"):
        raise InputError(f"{rule}, got a {type(features).__name__}")
    array = cast(jax.Array, features)
    if array.ndim != 2 and isinstance(posterior, tuple(POSTERIORS.values())):
        raise InputError(f"{rule}, got the shape {array.shape}")
    return array


@dataclass(frozen=True, eq=False)
class GivenVAE:
    """A conditional VAE under its conditions, which objectives see as a plain VAE.

    Source: Sohn, Lee and Yan, "Learning Structured Output Representation using Deep
    Conditional Generative Models", NIPS 2015.

    Attributes:
      vae: the bound model.
      condition: the features of the conditions, ``(B, E)``.
    """

    vae: VAE
    condition: jax.Array

    def encode(self, x: jax.Array) -> Distribution:
        """q(z|x, c) for a batch ``(B, ...)``."""
        features = self.vae.encoder(self.vae.observed(x), self.condition)
        features = check_features(features, self.vae.posterior)
        q: Distribution = self.vae.posterior(features)
        return q

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z, c) for codes ``(..., B, D)``."""
        shape = (*z.shape[:-1], self.condition.shape[-1])
        condition = jnp.broadcast_to(self.condition, shape)
        p: Distribution = self.vae.likelihood(self.vae.decoder(z, condition))
        return p

    def prior(self) -> Distribution:
        """p(z|c) with batch shape ``(B,)``, or a p(z) that ignores the condition."""
        prior = self.vae.prior
        takes = PriorTraits.of(prior).takes_condition
        p: Distribution = prior(self.condition) if takes else prior()
        return p

    @property
    def critic(self) -> nn.Module | None:
        """The critic of codes, or None."""
        return self.vae.critic


@dataclass(frozen=True, kw_only=True)
class VAEConfig(NetworkConfig):
    """A variational autoencoder as settings.

    Example:
      >>> config = VAEConfig(latent_dim=3, encoder="conv", prior="mixture")
      >>> config.describe_network((28, 28, 1))
      'conv 32-64, z 3'

    Raises:
      InputError: a value out of range, or a field that none of the parts has.
    """

    latent_dim: int = setting(2, at_least=1)
    """Number of latent dimensions."""
    prior: Prior = "normal"
    """Prior p(z): N(0, I), mixture of normals, VampPrior (arXiv 1705.07120), flow
    (1605.08803), or for conditional models a normal for each condition."""
    prior_components: int | None = setting(
        None, at_least=1, part="prior", field="num_components"
    )
    """Components of the mixture (10), pseudo-inputs of the VampPrior (500)."""
    prior_flow: PriorFlow | None = dataclasses.field(
        default=None, metadata={"part": "prior", "field": "flow"}
    )
    """Layers of the flow: affine coupling, or masked autoregressive (coupling)."""
    prior_flows: int | None = setting(None, at_least=1, part="prior", field="num_flows")
    """Number of layers of the flow (4)."""
    posterior: Posterior = "diagonal"
    """Posterior q(z|x): normal with a diagonal or a full covariance, or flows (arXiv
    1606.04934, 1505.05770)."""
    posterior_flows: int | None = setting(
        None, at_least=1, part="posterior", field="num_flows"
    )
    """Layers of the flows: iaf (2), planar and radial (10)."""
    conditional: bool = False
    """Condition the model on each example's class or vector (arXiv 1406.5298)."""
    conditioning: Conditioning | None = setting(None, needs={"conditional": True})
    """Conditions join the networks' inputs (concat), join them through an embedding, or
    scale and shift layers (film) (concat)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in ("prior", "posterior"):
            self._settings_of(part, getattr(self, part), fields_of(self._kind_of(part)))
        if self.prior == "conditional" and not self.conditional:
            raise InputError(
                "prior must not be conditional for a model without conditions"
            )
        if self.prior == "vamp" and "batch" in (
            self.normalization,
            self.dense_normalization,
        ):
            raise InputError(
                "prior must not be vamp with batch normalization, whose statistics "
                "would mix pseudo-inputs and examples"
            )

    def build(
        self,
        dataset: object,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: nn.Module | None = None,
        prior: nn.Module | None = None,
        posterior: nn.Module | None = None,
        critic: nn.Module | None = None,
    ) -> VAE:
        """The model for a data set.

        Args:
          dataset: a `flaxvae.data.Dataset`, whose shape, levels and classes or
            conditions determine the model.
          encoder: your own module in place of the named one; see `build_vae`.
          decoder: likewise.
          likelihood: likewise.
          prior: likewise.
          posterior: likewise.
          critic: a classifier of codes ``(B, D) -> (B,)`` for FactorVAE.

        Raises:
          InputError: settings that do not suit the data or your own modules.
        """
        data = DataSpec.of(dataset)
        condition = self._build_condition(data)
        encoder, decoder, likelihood = self.build_networks(
            data,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
            film=self.conditioning == "film",
        )
        return VAE(
            encoder=encoder,
            posterior=self._build_part("posterior", posterior, data),
            prior=self._build_part("prior", prior, data),
            decoder=decoder,
            likelihood=likelihood,
            critic=critic,
            condition=condition,
        )

    def describe_network(self, data_shape: int | Sequence[int]) -> str:
        """Pixels, widths and code, such as ``784-400-20`` or ``conv 32-64, z 20``."""
        return self._describe(DataSpec(as_shape(data_shape)), self.latent_dim)

    def _build_condition(self, data: DataSpec) -> Condition | None:
        if not self.conditional:
            return None
        num_classes, width = data.num_classes, data.condition_width
        if (num_classes is None) == (width is None):
            raise InputError(
                "a conditional model must have num_classes or condition_width, got "
                f"{num_classes} and {width}"
            )
        if self.prior == "vamp" and width is not None:
            raise InputError(
                "prior must not be vamp where conditions are vectors, which its "
                "pseudo-inputs would need too"
            )
        size = EMBEDDING_SIZE if self.conditioning in ("embedding", "film") else None
        return Condition(num_classes, width, size)

    def _build_part(
        self, part: str, module: nn.Module | None, data: DataSpec
    ) -> nn.Module:
        """The prior or the posterior."""
        if module is not None:
            self._settings_of(part, type(module).__name__, ())
            return module
        kind = self._kind_of(part)
        return build_part(
            kind,
            {
                "latent_dim": self.latent_dim,
                "data_shape": data.shape,
                "bounded": not data.is_real,
                **self._settings_of(part, getattr(self, part), fields_of(kind)),
            },
        )

    def _kind_of(self, part: str) -> type[nn.Module]:
        return PRIORS[self.prior] if part == "prior" else POSTERIORS[self.posterior]


def build_vae(
    data_shape: int | Sequence[int],
    latent_dim: int = 2,
    *,
    encoder: str | nn.Module | None = None,
    decoder: str | nn.Module | None = None,
    likelihood: str | nn.Module | None = None,
    prior: str | nn.Module | None = None,
    posterior: str | nn.Module | None = None,
    critic: bool | nn.Module = False,
    conditional: str | None = None,
    num_classes: int | None = None,
    condition_width: int | None = None,
    **settings: Any,
) -> VAE:
    """Builds a VAE for examples of one shape; the short form of `VAEConfig`.

    >>> vae = build_vae((28, 28, 1), latent_dim=3, encoder="conv", hidden=(256,))
    >>> vae.decoder.filters
    (64, 32)
    >>> type(build_vae((7,)).likelihood).__name__
    'NormalHead'

    Args:
      data_shape: shape of one example, ``(H, W, C)``, ``(T, F)``, ``(F,)`` or F.
      latent_dim: D, the number of latent dimensions, >= 1.
      encoder: ``"mlp"``, ``"conv"``, ``"resnet"``, or your own module
        ``(B, H, W, C) -> (B, F)``.
      decoder: the same kinds, or your own module ``(..., D) -> (..., H, W, C)``, whose
        output is the likelihood's input; None: the kind of the encoder, or an MLP after
        your own.
      likelihood: ``"bernoulli"``, ``"continuous_bernoulli"``, ``"normal"``,
        ``"laplace"``, ``"discretized_logistic"``, ``"discretized_logistic_mixture"``,
        ``"categorical"``, or your own module ``(..., H, W, C) -> p(x|z)``; if its input
        is not of the data's shape, its method ``feature_shape`` returns that shape.
        None: bernoulli for images, normal for series and rows. The likelihood
        ``"mixed"`` of a table with categories needs `VAEConfig.build`, which sees the
        data set.
      prior: ``"normal"`` (standard), ``"mixture"`` of normals (learned), ``"vamp"``,
        ``"flow"``, for conditional models ``"conditional"`` (a normal, its moments
        learned for each condition), or your own module ``() -> p(z)``.
      posterior: ``"diagonal"``, ``"full"`` (covariance), ``"iaf"``, ``"planar"``,
        ``"radial"``, or your own module ``(B, F) -> q(z|x)``.
      critic: whether the model has a `Critic` of codes, or your own module ``(B, D) ->
        (B,)``, for FactorVAE.
      conditional: how conditions enter both networks: ``"concat"``, ``"embedding"`` or
        ``"film"``, see `VAEConfig`; None: not conditional. Your own networks take the
        condition as a second argument ``(..., E)``.
      num_classes: if conditions are classes, their number.
      condition_width: if conditions are vectors, their length.
      **settings: other fields of `VAEConfig`; None means the default.

    Returns:
      An unbound `VAE`.

    Raises:
      InputError: a size below 1, an unknown choice, or a setting that none of the
        parts has.
    """
    if not isinstance(critic, nn.Module):
        check_boolean("critic", critic)
    names, modules = split_parts(
        {
            "encoder": encoder,
            "decoder": decoder,
            "likelihood": likelihood,
            "prior": prior,
            "posterior": posterior,
            "critic": Critic() if critic is True else critic or None,
        }
    )
    if conditional is not None:
        check_choice("conditional", conditional, CONDITIONALS)
        names |= {"conditional": True, "conditioning": conditional}
    config = VAEConfig(latent_dim=latent_dim, **names, **without_none(settings))
    data = DataSpec(
        as_shape(data_shape), num_classes=num_classes, condition_width=condition_width
    )
    return config.build(data, **modules)
