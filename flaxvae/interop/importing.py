"""A trained model from the weights of a PyTorch program alone."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from flaxvae.checks import InputError, check_choice, show
from flaxvae.data.memory import as_dataset
from flaxvae.interop.architectures import ARCHITECTURES
from flaxvae.interop.infer import infer_settings
from flaxvae.interop.layers import find_layers
from flaxvae.interop.matching import (
    check_names,
    find_program,
    pair,
    without_prefix,
)
from flaxvae.interop.modules import read_modules
from flaxvae.interop.names import NamesLike, expand_architecture
from flaxvae.interop.program import Program
from flaxvae.interop.sequential import read_gaps
from flaxvae.interop.steps import read_steps
from flaxvae.interop.tensors import Weights, print_note, read_weights
from flaxvae.interop.weights import from_torch
from flaxvae.models import AutoencoderConfig, VAEConfig
from flaxvae.models.data_spec import DataSpec, as_shape
from flaxvae.nn.codes import CODE_ACTIVATIONS
from flaxvae.nn.layers import GROUPS
from flaxvae.objectives import ELBO, Objective
from flaxvae.objectives.reconstruction import autoencoder_objective
from flaxvae.training import Trained

Config = VAEConfig | AutoencoderConfig
ModelKind = Literal["vae", "autoencoder"]
CONFIGS: dict[ModelKind, type[VAEConfig] | type[AutoencoderConfig]] = {
    "vae": VAEConfig,
    "autoencoder": AutoencoderConfig,
}
# Fields about networks that no tensor shows.
NOT_IN_TENSORS = (
    "activation",
    "negative_slope",
    "before_reshape",
    "mean_activation",
    "code_activation",
)
# Normalizations without running statistics, which tensors do not distinguish.
EPSILON_NOTES = {
    "layer": "layer (LayerNorm, epsilon 1e-6; PyTorch's is 1e-5)",
    "group": f"group (GroupNorm of {GROUPS} groups, epsilon 1e-6; PyTorch's is 1e-5)",
}
SCALED = ("normal", "laplace", "discretized_logistic")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How weights become a model: its config, PyTorch's names, what was assumed."""

    config: Config
    program: Program | None
    notes: tuple[str, ...]


def infer_config(
    source: object,
    data_shape: int | Sequence[int],
    *,
    names: NamesLike = None,
    entry: str | None = None,
    kind: ModelKind | None = None,
    **settings: object,
) -> Config:
    """The settings of a model that has the layers of a PyTorch program.

    Widths, filters, kernels, normalizations, biases and the size of the code are read
    from the tensors, a ReLU before the reshape from numbers of an ``nn.Sequential``,
    activation, strides and padding from a module. What they do not show, such as the
    likelihood, is as the architecture's programs are usually printed, or flaxvae's
    default, unless it is stated; what was assumed is printed in one line.

    >>> import numpy as np
    >>> sizes = {"fc1": (9, 4), "fc21": (2, 9), "fc22": (2, 9), "fc3": (9, 2)}
    >>> sizes["fc4"] = (4, 9)
    >>> weights = {f"{n}.weight": np.ones(size) for n, size in sizes.items()}
    >>> weights |= {f"{n}.bias": np.zeros(size[0]) for n, size in sizes.items()}
    >>> infer_config(weights, (2, 2, 1)).describe_network((2, 2, 1))
    '4-9-2'

    Args:
      source: as in `from_torch`.
      data_shape: shape of one example, (H, W, C).
      names: as in `from_torch`; a dict may name the heads alone.
      entry: as in `from_torch`.
      kind: ``"vae"`` or ``"autoencoder"``; None: as the tensors say.
      **settings: fields of `VAEConfig` or `AutoencoderConfig`.

    Raises:
      InputError: as `from_torch`, or a setting that contradicts the tensors.
      NonFiniteError: as `from_torch`.
    """
    weights = read_weights(source, entry)
    plan = make_plan(weights, DataSpec(as_shape(data_shape)), names, kind, settings)
    print_note(weights.notes + plan.notes)
    return plan.config


def import_torch(
    source: object,
    data: object,
    *,
    names: NamesLike = None,
    entry: str | None = None,
    kind: ModelKind | None = None,
    **settings: object,
) -> Trained:
    """The weights of a PyTorch program as a trained model, for `flaxvae.save`.

    Args:
      source: as in `from_torch`.
      data: the data set that the model is of, or arrays as `flaxvae.fit` takes them.
      names: as in `infer_config`.
      entry: as in `infer_config`.
      kind: as in `infer_config`.
      **settings: as in `infer_config`.

    Raises:
      InputError: as `infer_config`.
      NonFiniteError: as `infer_config`.
    """
    dataset = as_dataset(data)
    weights = read_weights(source, entry)
    plan = make_plan(weights, DataSpec.of(dataset), names, kind, settings)
    model = plan.config.build(dataset)
    quiet = dataclasses.replace(weights, prefix="", notes=())
    if plan.program is not None:
        layers, _ = find_layers(model, dataset.shape)
        names = {
            ".".join(path): theirs
            for path, theirs in pair(plan.program, layers).items()
        }
    variables = from_torch(quiet, model, dataset.shape, names=names)
    print_note(weights.notes + plan.notes)
    objective: Objective = ELBO()
    if isinstance(plan.config, AutoencoderConfig):
        objective = autoencoder_objective(plan.config)
    return Trained(
        model=model,
        variables=variables,
        data_shape=dataset.shape,
        preprocessing=dataset.preprocessing,
        template=dataset.without_examples(),
        objective=objective,
    )


def make_plan(
    weights: Weights,
    data: DataSpec,
    names: NamesLike,
    kind: ModelKind | None,
    stated: Mapping[str, object],
) -> Plan:
    """The config that tensors and stated fields describe together."""
    check_names(names)
    if kind is not None:
        check_choice("kind", kind, CONFIGS)
    names = without_prefix(names, weights)
    stated = {name: value for name, value in stated.items() if value is not None}
    try:
        if stated.get("encoder") == "resnet" and not isinstance(names, str):
            raise InputError("residual networks are not found by their layers")
        if "glu" in (stated.get("activation"), stated.get("decoder_activation")):
            raise InputError(
                "activation must not be glu where widths are read from the tensors, "
                "which it halves: state hidden too"
            )
        program = find_program(names, weights, data.shape)
    except InputError:
        if not stated.keys() & {"encoder", "hidden", "filters"}:
            raise
        is_code = any(name.startswith("code.") for name in weights.tensors)
        kind = kind or ("autoencoder" if is_code else "vae")
        return Plan(_make(kind, stated), None, ())
    found_kind: ModelKind = "autoencoder" if program.is_autoencoder else "vae"
    if kind not in (None, found_kind):
        raise InputError(
            f"kind must be {found_kind}, as in the weights ({program.describe()}), got "
            f"{kind}"
        )
    architecture = names if isinstance(names, str) else _recognize(program, weights)
    usual: dict[str, object] = {}
    if architecture:
        usual |= ARCHITECTURES[architecture].settings
    usual |= read_modules(weights.modules, is_stated="activation" in stated)
    steps = read_steps(program, weights.convolutions, data.shape)
    _check_stated(steps, stated, program)
    inferred = read_gaps(program, {**steps, **stated})
    if inferred.pop("code_activation", False):
        activation = stated.get("activation", usual.get("activation", "relu"))
        is_known = activation in CODE_ACTIVATIONS
        inferred["code_activation"] = activation if is_known else "relu"
    usual |= inferred
    found = infer_settings(program, data.shape, {**inferred, **steps, **stated})
    _check_stated(found, stated, program)
    assumed = {
        name: value
        for name, value in usual.items()
        if name in NOT_IN_TENSORS and name not in {**found, **stated}
    }
    activation = stated.get("activation", usual.get("activation", "relu"))
    if "leaky_relu" not in (activation, stated.get("decoder_activation")):
        assumed.pop("negative_slope", None)
    if found["decoder"] != "conv" or not program.heads:
        assumed.pop("before_reshape", None)
    if not program.heads and "feature_map" not in {**found, **stated}:
        assumed["feature_map"] = inferred.get("feature_map", "linear")
    has_parameter = any(name.startswith("likelihood.") for name in weights.tensors)
    likelihood = stated.get("likelihood", "normal" if data.is_real else None)
    if likelihood in SCALED and not has_parameter and "scale" not in stated:
        assumed["scale"] = "fixed"  # a program's loss has no parameter
    fields = {f.name for f in dataclasses.fields(CONFIGS[found_kind])}
    if unknown := stated.keys() - fields:
        raise InputError(
            f"{min(unknown)} must be left out for the kind {found_kind}, got "
            f"{show(stated[min(unknown)])}"
        )
    config = _make(found_kind, {**assumed, **_short(found), **stated})
    return Plan(
        config, program, (_describe(program, config, data, {**steps, **stated}, found),)
    )


def _make(kind: ModelKind, settings: Mapping[str, object]) -> Config:
    make: Callable[..., Config] = CONFIGS[kind]
    return make(**settings)


def _recognize(program: Program, weights: Weights) -> str | None:
    """The architecture whose names are exactly those of the program."""
    parts = {
        "heads": () if program.is_autoencoder else program.heads,
        "encoder": program.encoder + (program.heads * program.is_autoencoder),
        "decoder": program.decoder,
    }
    wanted = {part: {layer.name for layer in layers} for part, layers in parts.items()}
    for name in ARCHITECTURES:
        expanded = expand_architecture(name, list(weights.tensors))
        if wanted == {part: set(found) for part, found in expanded.items()}:
            return name
    return None


def _check_stated(
    found: Mapping[str, object], stated: Mapping[str, object], program: Program
) -> None:
    """Raises `InputError` for a stated field that the tensors contradict."""
    known = dict(found)
    for name in ("biases", "decoder_biases"):
        if name in stated and "biases" not in found:
            raise InputError(
                f"{name} must be left out for weights without batch normalization, got "
                f"{stated[name]}"
            )
    if (
        "before_reshape" not in found
        and stated.get("before_reshape") == "normalization"
    ):
        known["before_reshape"] = "activation or none"
    for name, value in known.items():
        given = stated.get(name, value)
        if name == "batch_norm":
            continue  # of the statistics to come
        same = _as_tuple(given) == _as_tuple(value)
        if isinstance(value, int) and isinstance(given, tuple | list):
            same = set(given) == {value}
        if not same:
            raise InputError(
                f"{name} must be {_text(value)}, as in the weights "
                f"({program.describe()}), got {_text(given)}"
            )


def _as_tuple(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "empty"
    return str(value)


def _short(found: Mapping[str, object]) -> dict[str, object]:
    """Without fields that are as they are where they are not stated."""
    kept = dict(found)
    if kept["decoder"] == kept["encoder"]:
        del kept["decoder"]
    if kept["encoder"] == "conv" and not kept["hidden"]:
        del kept["hidden"]
    if kept.get("biases") == "needed":
        del kept["biases"]
    return kept


def _describe(
    program: Program,
    config: Config,
    data: DataSpec,
    stated: Mapping[str, object],
    found: Mapping[str, object],
) -> str:
    """What was read from the weights, and what was assumed, in a few words."""
    kind = "an autoencoder" if program.is_autoencoder else "a VAE"
    network = config.describe_network(data.shape)
    values = config.resolve(data)
    likelihood = config.likelihood or ("normal" if data.is_real else "bernoulli")
    if program.is_autoencoder:
        likelihood = config.likelihood or "normal"
    assumed: dict[str, object] = {"activation": config.activation}
    if config.normalization in EPSILON_NOTES:
        assumed["normalization"] = EPSILON_NOTES[config.normalization]
    if "leaky_relu" in (config.activation, config.decoder_activation):
        assumed["negative_slope"] = str(config.negative_slope or 0.01)
    for name in ("strides", "padding", "decoder_strides", "decoder_padding"):
        if name in found:
            pooling = " (no pooling)" if name == "strides" else ""
            assumed[name] = _text(found[name]) + pooling
    if isinstance(config, AutoencoderConfig) and not program.heads:
        if "feature_map" not in found:
            assumed["feature_map"] = str(config.feature_map)
    elif found["decoder"] == "conv" and "before_reshape" not in found:
        assumed["before_reshape"] = config.before_reshape or "none"
    if isinstance(config, AutoencoderConfig) and program.heads:
        assumed["code_activation"] = config.code_activation or "none"
    assumed["likelihood"] = likelihood
    if likelihood in SCALED and "scale" in values:
        assumed["scale"] = values["scale"]
        if values["scale"] == "fixed":
            assumed["init_scale"] = f"{values.get('init_scale', 1.0):.4g}"
    if mean_activation := values.get("mean_activation"):
        assumed["mean_activation"] = mean_activation
    listed = [
        f"{name}={value}" for name, value in assumed.items() if name not in stated
    ]
    more = f"; assumed: {', '.join(listed)}" if listed else ""
    return f"read as {kind}, {network}: {program.describe()}{more}"
