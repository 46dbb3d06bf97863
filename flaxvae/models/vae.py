"""The variational autoencoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import InputError, check_at_least, check_choice
from flaxvae.distributions import Distribution
from flaxvae.models.networks import build_networks, build_part, fields_of
from flaxvae.nn import (
    EMBEDDING_SIZE,
    FLOWS,
    Condition,
    ConditionalNormal,
    Critic,
    DiagonalNormalHead,
    FlowPrior,
    FullNormalHead,
    IAFHead,
    MixturePrior,
    PlanarHead,
    RadialHead,
    StandardNormal,
    VampPrior,
)


class VAE(nn.Module):
    """A variational autoencoder put together from five interchangeable modules.

    It draws nothing: sampling belongs to the objective, which receives the key.
    ``vae.prior()`` calls the prior module and gives p(z). A conditional model has a
    ``condition`` too, and ``vae.given(c)`` is what it is under the conditions c.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2013, arXiv
    1312.6114; Rezende, Mohamed and Wierstra, "Stochastic Backpropagation and
    Approximate Inference in Deep Generative Models", 2014, arXiv 1401.4082.
    """

    encoder: nn.Module  # x (B, H, W, C) -> features (B, F)
    posterior: nn.Module  # features (B, F) -> q(z|x) over (D,)
    prior: nn.Module  # () -> p(z) over (D,)
    decoder: nn.Module  # z (..., D) -> array (..., H, W, C)
    likelihood: nn.Module  # array (..., H, W, C) -> p(x|z) over (H, W, C)
    critic: nn.Module | None = None  # codes (B, D) -> log-odds (B,), see `factor`
    condition: nn.Module | None = None  # c (B, ...) -> (B, E), which both networks take

    def encode(self, x: jax.Array) -> Distribution:
        """q(z|x) for a batch ``(B, H, W, C)``."""
        return self.posterior(self.encoder(x))

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


@dataclass(frozen=True)
class GivenVAE:
    """A conditional VAE under its conditions: to an objective, a VAE like any other.

    Source: Sohn, Lee and Yan, "Learning Structured Output Representation using Deep
    Conditional Generative Models", NIPS 2015.

    Attributes:
      vae: the bound model.
      condition: the features of the conditions, ``(B, E)``.
    """

    vae: Any
    condition: jax.Array

    def encode(self, x: jax.Array) -> Distribution:
        """q(z|x, c) for a batch ``(B, ...)``."""
        q: Distribution = self.vae.posterior(self.vae.encoder(x, self.condition))
        return q

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z, c) for codes ``(..., B, D)``."""
        shape = (*z.shape[:-1], self.condition.shape[-1])
        condition = jnp.broadcast_to(self.condition, shape)
        p: Distribution = self.vae.likelihood(self.vae.decoder(z, condition))
        return p

    def prior(self) -> Distribution:
        """p(z|c), batch shape ``(B,)``, or a p(z) that is the same for all."""
        prior: Any = self.vae.prior
        takes = getattr(prior, "takes_condition", False)
        p: Distribution = prior(self.condition) if takes else prior()
        return p

    @property
    def critic(self) -> Any:
        """The critic of codes, or None."""
        return self.vae.critic


def build_vae(
    data_shape: Sequence[int],
    latent_dim: int = 2,
    *,
    encoder: str | nn.Module = "mlp",
    decoder: str | nn.Module | None = None,
    likelihood: str | nn.Module = "bernoulli",
    prior: str | nn.Module = "normal",
    posterior: str | nn.Module = "diagonal",
    prior_components: int | None = None,
    prior_flow: str | None = None,
    prior_flows: int | None = None,
    posterior_flows: int | None = None,
    critic: bool | nn.Module = False,
    conditional: str | None = None,
    num_classes: int | None = None,
    condition_width: int | None = None,
    **settings: Any,
) -> VAE:
    """Builds a VAE from parts that are chosen independently.

    Args:
      data_shape: shape of one example, ``(H, W, C)``.
      latent_dim: D, the number of latent dimensions, >= 1.
      encoder: ``"mlp"``, ``"conv"``, ``"resnet"``, or your own module
        ``(B, H, W, C) -> (B, F)``.
      decoder: the same kinds, or your own module ``(..., D) -> (..., H, W, C)``, whose
        output the likelihood takes; None: the kind of the encoder, or an MLP after your
        own.
      likelihood: ``"bernoulli"``, ``"continuous_bernoulli"``, ``"normal"``,
        ``"laplace"``, ``"discretized_logistic"``, ``"discretized_logistic_mixture"``,
        ``"categorical"``, or your own module ``(..., H, W, C) -> p(x|z)``; if that
        takes another array than one of the data's shape, its method ``feature_shape``
        says which.
      prior: ``"normal"`` (standard), ``"mixture"`` of normals (learned), ``"vamp"``,
        ``"flow"``, for conditional models ``"conditional"`` (a normal, its moments
        learned for each condition), or your own module ``() -> p(z)``.
      posterior: ``"diagonal"``, ``"full"`` (a covariance for each example), ``"iaf"``,
        ``"planar"``, ``"radial"``, or your own module ``(B, F) -> q(z|x)``.
      prior_components: of a mixture (10) or a VampPrior (500).
      prior_flow: of the prior ``"flow"``: ``"coupling"`` or ``"autoregressive"``.
      prior_flows: its layers (4).
      posterior_flows: layers of the last three posteriors (2, 10, 10).
      critic: whether the model has a `Critic` of codes, or your own module ``(B, D) ->
        (B,)``, for the objective `factor`.
      conditional: how both networks learn of a condition: ``"concat"``: the one-hot
        class, or the vector, joins their inputs; ``"embedding"``: a learned linear map
        of it does; ``"film"``: that map scales and shifts each layer; None: no
        condition. Networks of your own take it as a second argument ``(..., E)``.
      num_classes: where conditions are classes.
      condition_width: where conditions are vectors, their length.
      **settings: fields of the networks, written for the encoder: ``hidden``,
        ``activation``, ``negative_slope``, ``normalization``, ``dropout``, ``dtype``;
        for images also ``filters``, ``kernel_size``, ``strides``, ``padding``; for
        residual networks also ``num_residual_blocks``, ``bottleneck``,
        ``resampling``. The decoder is the mirror: widths and stages are reversed. The
        normal, Laplace and discretized logistic likelihoods have ``scale``,
        ``init_scale``, ``mean_activation``; see `LocationScaleHead`. The last three
        likelihoods have ``levels``, the mixture also ``num_components``. None means the
        default.

    Returns:
      An unbound `VAE`.

    Raises:
      InputError: a size below 1, an unknown choice, or a setting that none of the
        parts has.
    """
    check_at_least("latent_dim", latent_dim, 1)
    condition = None
    if conditional is not None:
        check_choice("conditional", conditional, CONDITIONALS)
        if (num_classes is None) == (condition_width is None):
            raise InputError(
                "a conditional model must have num_classes or condition_width, got "
                f"{num_classes} and {condition_width}"
            )
        size = None if conditional == "concat" else EMBEDDING_SIZE
        condition = Condition(num_classes, condition_width, size)
    elif prior == "conditional":
        raise InputError("prior must not be conditional for a model without conditions")
    shape = tuple(data_shape)
    encoder, decoder, likelihood = build_networks(
        shape,
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood,
        settings=settings,
        fixed={"film": conditional == "film"},
    )
    if prior == "vamp":
        if settings.get("normalization") == "batch":
            raise InputError(
                "prior must not be vamp with batch normalization, whose statistics "
                "would mix pseudo-inputs and examples"
            )
        if condition_width is not None:
            raise InputError(
                "prior must not be vamp where conditions are vectors, of which its "
                "pseudo-inputs would need some"
            )
    wanted = {
        "prior_components": prior_components,
        "prior_flow": prior_flow,
        "prior_flows": prior_flows,
    }
    of_data = {"data_shape": shape, "bounded": len(shape) > 1}
    prior = _choose("prior", prior, PRIORS, wanted, latent_dim, of_data)
    wanted = {"posterior_flows": posterior_flows}
    posterior = _choose("posterior", posterior, POSTERIORS, wanted, latent_dim, {})
    return VAE(
        encoder=encoder,
        posterior=posterior,
        prior=prior,
        decoder=decoder,
        likelihood=likelihood,
        critic=Critic() if critic is True else critic or None,
        condition=condition,
    )


def _choose(
    kind: str,
    choice: str | nn.Module,
    choices: Mapping[str, type[Any]],
    wanted: Mapping[str, Any],
    latent_dim: int,
    of_data: Mapping[str, Any],
) -> nn.Module:
    """A prior or a posterior with those of the ``wanted`` settings that it has."""
    known: set[str] = set()
    if isinstance(choice, str):
        check_choice(kind, choice, choices)
        known = fields_of(choices[choice])
    settings: dict[str, Any] = {}
    for name, value in wanted.items():
        if value is None:
            continue
        if SETTINGS_OF_PARTS[name] not in known:
            raise InputError(
                f"{name} must be left out for the {kind} {choice}, got {value}"
            )
        if name == "prior_flow":
            check_choice(name, value, FLOWS)
        else:
            check_at_least(name, value, 1)
        settings[SETTINGS_OF_PARTS[name]] = value
    if not isinstance(choice, str):
        return choice
    return build_part(
        choices[choice], {"latent_dim": latent_dim, **of_data, **settings}
    )


POSTERIORS: dict[str, type[Any]] = {
    "diagonal": DiagonalNormalHead,
    "full": FullNormalHead,
    "iaf": IAFHead,
    "planar": PlanarHead,
    "radial": RadialHead,
}
PRIORS: dict[str, type[Any]] = {
    "normal": StandardNormal,
    "mixture": MixturePrior,
    "vamp": VampPrior,
    "flow": FlowPrior,
    "conditional": ConditionalNormal,
}
CONDITIONALS = ("concat", "embedding", "film")
SETTINGS_OF_PARTS = {  # arguments of `build_vae`: fields of priors and posteriors
    "prior_components": "num_components",
    "prior_flow": "flow",
    "prior_flows": "num_flows",
    "posterior_flows": "num_flows",
}
