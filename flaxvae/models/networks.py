"""The networks of a model, chosen by name and mirrored."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from flaxvae.checks import (
    InputError,
    check_above,
    check_at_least,
    check_below,
    check_choice,
)
from flaxvae.nn import (
    ACTIVATIONS,
    DTYPES,
    MEAN_ACTIVATIONS,
    NORMALIZATIONS,
    RESAMPLINGS,
    SCALES,
    BernoulliHead,
    CategoricalHead,
    ContinuousBernoulliHead,
    ConvDecoder,
    ConvEncoder,
    DiscretizedLogisticHead,
    DiscretizedLogisticMixtureHead,
    LaplaceHead,
    MLPDecoder,
    MLPEncoder,
    NormalHead,
    ResNetDecoder,
    ResNetEncoder,
)


def build_networks(
    data_shape: Sequence[int],
    *,
    encoder: str | nn.Module,
    decoder: str | nn.Module | None,
    likelihood: str | nn.Module,
    settings: Mapping[str, Any],
    fixed: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The encoder, the decoder and the likelihood of a model.

    Args:
      data_shape: shape of one example.
      encoder: a key of `ENCODERS`, or a module.
      decoder: a key of `DECODERS`, a module, or None: see `build_vae`.
      likelihood: a key of `LIKELIHOODS`, or a module.
      settings: fields of these parts as a user gives them, None for the default; those
        named in `MIRRORED` are reversed for the decoder.
      fixed: fields that a model needs to have so, where a part has them.

    Raises:
      InputError: an unknown choice, a bad value, or a setting that no part has.
    """
    given = {
        name: tuple(value) if isinstance(value, list | np.ndarray) else value
        for name, value in settings.items()
        if value is not None
    }
    check_settings(given)
    more = dict(fixed or {})
    shape = tuple(data_shape)
    if decoder is None:
        decoder = encoder if isinstance(encoder, str) else "mlp"
    known: set[str] = set()
    if isinstance(likelihood, str):
        check_choice("likelihood", likelihood, LIKELIHOODS)
        known |= fields_of(LIKELIHOODS[likelihood])
        fields = {**given, **more, "event_ndim": len(shape)}
        likelihood = build_part(LIKELIHOODS[likelihood], fields)
    if isinstance(encoder, str):
        check_choice("encoder", encoder, ENCODERS)
        known |= fields_of(ENCODERS[encoder])
        encoder = build_part(ENCODERS[encoder], given | more)
    if isinstance(decoder, str):
        check_choice("decoder", decoder, DECODERS)
        known |= fields_of(DECODERS[decoder])
        mirrored = {
            name: value[::-1]
            if isinstance(value, Sequence) and name in MIRRORED
            else value
            for name, value in given.items()
        }
        feature_shape = getattr(likelihood, "feature_shape", lambda shape: shape)
        output_shape = {"output_shape": feature_shape(shape)}
        decoder = build_part(DECODERS[decoder], mirrored | more | output_shape)
    if unused := sorted(given.keys() - (known - FIXED)):
        names = sorted(known - FIXED)
        raise InputError(
            f"{unused[0]} must be left out for this model, got {given[unused[0]]}: its "
            f"parts have {', '.join(names) or 'no settings'}"
        )
    return encoder, decoder, likelihood


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
LIKELIHOODS: dict[str, type[Any]] = {
    "bernoulli": BernoulliHead,
    "continuous_bernoulli": ContinuousBernoulliHead,
    "normal": NormalHead,
    "laplace": LaplaceHead,
    "discretized_logistic": DiscretizedLogisticHead,
    "discretized_logistic_mixture": DiscretizedLogisticMixtureHead,
    "categorical": CategoricalHead,
}
FIXED = {"output_shape", "event_ndim", "film", "grid"}  # fields that follow from others
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


def fields_of(network: type[Any]) -> set[str]:
    """The names of a module's own fields."""
    names = {field.name for field in dataclasses.fields(network)}
    return names - {"parent", "name"}


def build_part(network: type[Any], settings: Mapping[str, Any]) -> nn.Module:
    """A module with those of the settings that it has."""
    names = fields_of(network)
    return network(**{name: settings[name] for name in names & settings.keys()})
