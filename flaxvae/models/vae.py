"""The variational autoencoder."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import (
    InputError,
    check_above,
    check_at_least,
    check_below,
    check_choice,
)
from flaxvae.distributions import Distribution
from flaxvae.nn import (
    ACTIVATIONS,
    DTYPES,
    FLOWS,
    MEAN_ACTIVATIONS,
    NORMALIZATIONS,
    RESAMPLINGS,
    SCALES,
    BernoulliHead,
    CategoricalHead,
    ContinuousBernoulliHead,
    ConvDecoder,
    ConvEncoder,
    Critic,
    DiagonalNormalHead,
    DiscretizedLogisticHead,
    DiscretizedLogisticMixtureHead,
    FlowPrior,
    FullNormalHead,
    IAFHead,
    LaplaceHead,
    MixturePrior,
    MLPDecoder,
    MLPEncoder,
    NormalHead,
    PlanarHead,
    RadialHead,
    ResNetDecoder,
    ResNetEncoder,
    StandardNormal,
    VampPrior,
)


class VAE(nn.Module):
    """A variational autoencoder put together from five interchangeable modules.

    It draws nothing: sampling belongs to the objective, which receives the key.
    ``vae.prior()`` calls the prior module and gives p(z).

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

    def encode(self, x: jax.Array) -> Distribution:
        """q(z|x) for a batch ``(B, H, W, C)``."""
        return self.posterior(self.encoder(x))

    def decode(self, z: jax.Array) -> Distribution:
        """p(x|z) for codes ``(..., D)``."""
        return self.likelihood(self.decoder(z))


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
        ``"flow"``, or your own module ``() -> p(z)``.
      posterior: ``"diagonal"``, ``"full"`` (a covariance for each example), ``"iaf"``,
        ``"planar"``, ``"radial"``, or your own module ``(B, F) -> q(z|x)``.
      prior_components: of a mixture (10) or a VampPrior (500).
      prior_flow: of the prior ``"flow"``: ``"coupling"`` or ``"autoregressive"``.
      prior_flows: its layers (4).
      posterior_flows: layers of the last three posteriors (2, 10, 10).
      critic: whether the model has a `Critic` of codes, or your own module ``(B, D) ->
        (B,)``, for the objective `factor`.
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
    given = {
        name: tuple(value) if isinstance(value, list | np.ndarray) else value
        for name, value in settings.items()
        if value is not None
    }
    check_settings(given)
    shape = tuple(data_shape)
    if decoder is None:
        decoder = encoder if isinstance(encoder, str) else "mlp"
    known: set[str] = set()
    if isinstance(likelihood, str):
        check_choice("likelihood", likelihood, LIKELIHOODS)
        known |= _fields(LIKELIHOODS[likelihood])
        fields = {**given, "event_ndim": len(shape)}
        likelihood = _build(LIKELIHOODS[likelihood], fields)
    if isinstance(encoder, str):
        check_choice("encoder", encoder, ENCODERS)
        known |= _fields(ENCODERS[encoder])
        encoder = _build(ENCODERS[encoder], given)
    if isinstance(decoder, str):
        check_choice("decoder", decoder, DECODERS)
        known |= _fields(DECODERS[decoder])
        mirrored = {
            name: value[::-1]
            if isinstance(value, Sequence) and name in MIRRORED
            else value
            for name, value in given.items()
        }
        feature_shape = getattr(likelihood, "feature_shape", lambda shape: shape)
        output_shape = {"output_shape": feature_shape(shape)}
        decoder = _build(DECODERS[decoder], mirrored | output_shape)
    if unused := sorted(given.keys() - known):
        names = sorted(known - {"output_shape", "event_ndim"})
        raise InputError(
            f"{unused[0]} must be left out for this model, got {given[unused[0]]}: its "
            f"parts have {', '.join(names) or 'no settings'}"
        )
    if prior == "vamp":
        if given.get("normalization") == "batch":
            raise InputError(
                "prior must not be vamp with batch normalization, whose statistics "
                "would mix pseudo-inputs and examples"
            )
        if posterior != "diagonal":
            raise InputError(
                f"posterior must be diagonal for the prior vamp, got {posterior}"
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
        known = _fields(choices[choice])
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
    return _build(choices[choice], {"latent_dim": latent_dim, **of_data, **settings})


def start_from(model: nn.Module, variables: Any, examples: Any) -> Any:
    """The variables of a model at step 0, with what begins as data.

    Args:
      model: an unbound model; a part of it with a method ``start`` takes examples.
      variables: its variables, ``params`` among them.
      examples: ``(count) -> examples`` as the model sees them, ``(count, ...)``.
    """
    prior: Any = getattr(model, "prior", None)
    if not hasattr(prior, "start"):
        return variables
    params = variables["params"]
    started = prior.start(params["prior"], examples(prior.num_components))
    return {**variables, "params": {**params, "prior": started}}


def variable_shapes(model: nn.Module, data_shape: Sequence[int]) -> Any:
    """Shapes and types of a VAE's variables for examples of ``data_shape``.

    Nothing is computed and no objective is needed: encoder, posterior, decoder,
    likelihood, prior and critic are each called once.
    """

    def reach(vae: Any, x: jax.Array) -> None:
        z = vae.encode(x).mean
        vae.decode(z)
        vae.prior()
        if getattr(vae, "critic", None) is not None:
            vae.critic(z)

    def init() -> Any:
        x = jnp.zeros((1, *data_shape))
        return model.init(jax.random.key(0), x, method=reach)

    return jax.eval_shape(init)


ENCODERS: dict[str, type[Any]] = {
    "mlp": MLPEncoder,
    "conv": ConvEncoder,
    "resnet": ResNetEncoder,
}
DECODERS: dict[str, type[Any]] = {
    "mlp": MLPDecoder,
    "conv": ConvDecoder,
    "resnet": ResNetDecoder,
}
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
}
SETTINGS_OF_PARTS = {  # arguments of `build_vae`: fields of priors and posteriors
    "prior_components": "num_components",
    "prior_flow": "flow",
    "prior_flows": "num_flows",
    "posterior_flows": "num_flows",
}
LIKELIHOODS: dict[str, type[Any]] = {
    "bernoulli": BernoulliHead,
    "continuous_bernoulli": ContinuousBernoulliHead,
    "normal": NormalHead,
    "laplace": LaplaceHead,
    "discretized_logistic": DiscretizedLogisticHead,
    "discretized_logistic_mixture": DiscretizedLogisticMixtureHead,
    "categorical": CategoricalHead,
}
MIRRORED = ("hidden", "filters", "kernel_size", "strides")  # a decoder's are reversed


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises `InputError` for a value that no network can have."""
    for name in (*MIRRORED, "num_residual_blocks", "bottleneck"):
        value = settings.get(name, ())
        for size in value if isinstance(value, Sequence) else (value,):
            check_at_least(name, size, 0 if name == "num_residual_blocks" else 1)
    for name, minimum in (("levels", 2), ("num_components", 1)):
        check_at_least(name, settings.get(name, minimum), minimum)
    if "init_scale" in settings:
        check_above("init_scale", settings["init_scale"], 0)
    if "dropout" in settings:
        check_at_least("dropout", settings["dropout"], 0)
        check_below("dropout", settings["dropout"], 1)
    for name, choices in (
        ("activation", ACTIVATIONS),
        ("normalization", NORMALIZATIONS),
        ("resampling", RESAMPLINGS),
        ("dtype", DTYPES),
        ("scale", SCALES),
        ("mean_activation", MEAN_ACTIVATIONS),
    ):
        if name in settings:
            check_choice(name, settings[name], choices)


def _fields(network: type[Any]) -> set[str]:
    names = {field.name for field in dataclasses.fields(network)}
    return names - {"parent", "name"}


def _build(network: type[Any], settings: Mapping[str, Any]) -> nn.Module:
    names = _fields(network)
    return network(**{name: settings[name] for name in names & settings.keys()})
