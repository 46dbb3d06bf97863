"""The settings of a model from the layers of a PyTorch program."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from flaxvae.checks import InputError
from flaxvae.interop.program import (
    Program,
    Shape,
    TorchLayer,
    one_or_all,
    refuse,
)
from flaxvae.nn.convnet import StagePadding, shrink
from flaxvae.nn.layers import BIASES

Slot = tuple[TorchLayer, TorchLayer | None]  # a layer and its normalization
STRIDES = (2, 1, 3, 4)  # that are tried, in this order


def infer_settings(
    program: Program, data_shape: Shape, stated: Mapping[str, object]
) -> dict[str, object]:
    """The fields of a config that the shapes of the tensors tell.

    Args:
      program: the layers in order.
      data_shape: shape of one example.
      stated: fields that the user or an architecture states; strides and padding are
        found among those that agree with them.

    Raises:
      InputError: a network that flaxvae's parts do not build.
    """
    inwards, outwards = _slots(program.encoder), _slots(program.decoder)
    _output, output_norm = outwards[-1]
    if output_norm is not None:
        refuse(f"a normalization of the outputs, {output_norm.name}")
    settings: dict[str, object] = {}
    if program.latent_dim is not None:
        settings["latent_dim"] = program.latent_dim
    convs = [slot for slot in inwards if slot[0].kernel]
    dense = [slot for slot in inwards if not slot[0].kernel]
    transposed = [slot for slot in outwards if slot[0].kernel]
    before = [slot for slot in outwards if not slot[0].kernel]
    settings["encoder"] = "conv" if convs else "mlp"
    settings["decoder"] = "conv" if transposed else "mlp"
    image = before.pop() if before else None  # of a multilayer perceptron the output
    is_map = image is None
    widths = tuple(layer.outputs for layer, _ in dense)
    settings["hidden"] = widths
    out_widths = tuple(layer.outputs for layer, _ in before)
    if out_widths != widths[::-1]:
        settings["decoder_hidden"] = out_widths
    filters = tuple(layer.outputs for layer, _ in convs)
    out_filters = tuple(layer.inputs for layer, _ in transposed)
    if convs:
        settings["filters"] = filters
        reader = dense[0][0] if dense else next(iter(program.heads), None)
        places = None if reader is None else reader.inputs // filters[-1]
        kernels = _kernels([layer for layer, _ in convs])
        settings["kernel_size"] = one_or_all(kernels)
        settings |= _find_steps("", data_shape, kernels, places, stated)
    if transposed:
        if out_filters != filters[::-1]:
            settings["decoder_filters" if convs else "filters"] = (
                out_filters if convs else out_filters[::-1]
            )
        kernels = _kernels([layer for layer, _ in transposed])
        if not convs or one_or_all(kernels[::-1]) != settings["kernel_size"]:
            settings["decoder_kernel_size"] = one_or_all(kernels)
        places = None if image is None else image[0].outputs // out_filters[0]
        mirrored = {**settings, **stated}
        own = {n: v for n, v in stated.items() if n.startswith("decoder_")}
        try:
            settings |= _find_steps("decoder_", data_shape, kernels, places, mirrored)
        except InputError:  # not the mirror of the encoder
            settings |= _find_steps("decoder_", data_shape, kernels, places, own)
    inner = [*convs, *transposed[:-1]]
    if is_map:
        *others, last = convs
        is_linear = last[1] is None and stated.get("feature_map") != "activated"
        if last[1] is not None or (is_linear and _kind_of(others) != "none"):
            settings["feature_map"] = "linear" if is_linear else "activated"
        if is_linear:
            inner = [*others, *transposed[:-1]]
    settings |= _biases(inwards, outwards)
    settings |= _normalizations(inner, [*dense, *before], image if transposed else None)
    return settings


def _slots(layers: Sequence[TorchLayer]) -> list[Slot]:
    slots: list[Slot] = []
    for layer in layers:
        if layer.kind == "norm":
            slots[-1] = (slots[-1][0], layer)
        else:
            slots.append((layer, None))
    return slots


def _kernels(layers: Sequence[TorchLayer]) -> tuple[int, ...]:
    for layer in layers:
        if len(set(layer.kernel)) > 1:
            refuse(f"a kernel that is not square, {layer.name} {layer.kernel}")
    return tuple(layer.kernel[0] for layer in layers)


def _find_steps(
    prefix: str,
    data_shape: Shape,
    kernels: tuple[int, ...],
    places: int | None,
    stated: Mapping[str, object],
) -> dict[str, object]:
    """Strides and padding that lead from the data to an image of ``places`` pixels.

    Where that number is unknown, as of a feature map, they are the usual ones.

    The decoder (``prefix`` "decoder_", ``kernels`` from the code outwards) passes
    through the sizes that its mirror would.
    """
    size = data_shape[:-1]
    if prefix:
        kernels = kernels[::-1]

    def fits(strides: tuple[int, ...], padding: StagePadding) -> bool:
        try:
            found = math.prod(shrink(size, kernels, strides, padding)[-1])
            return places is None or found == places
        except InputError:  # a kernel larger than the image
            return False

    known = {
        name: stated.get(prefix + name, stated.get(name))
        for name in ("strides", "padding")
    }
    for name in known:
        if prefix and isinstance(own := stated.get(prefix + name), tuple):
            known[name] = own[::-1]
    known_strides = cast(int | Sequence[int] | None, known["strides"])
    known_padding = cast(StagePadding | None, known["padding"])
    options = list(_options(kernels, known_strides, known_padding))
    found = [option for option in options if fits(*option)]
    if not found:
        side = "decoder" if prefix else "encoder"
        given = [name for name, value in known.items() if value is not None]
        raise InputError(
            "the data must be what the weights are for, or the strides of each stage "
            f"stated: no {'stated' if given else 'common'} strides and padding lead "
            f"from examples of shape {data_shape} to the {side}'s image of {places} "
            f"pixels, with kernels of {', '.join(map(str, kernels))}"
        )
    usual = [option for option in found if _is_usual(kernels, *option)]
    if places is None and len(set(kernels)) > 1:
        usual = []  # a last kernel as large as the image has another stride
    if not usual and len(found) > 1:
        listed = ", ".join(f"{one_or_all(s)} and {p}" for s, p in found[:4])
        what = "a feature map" if places is None else f"an image of {places} pixels"
        raise InputError(
            f"{prefix}strides and {prefix}padding must be stated, since several lead "
            f"from {data_shape} to {what}: {listed}; or one per stage"
        )
    strides, padding = (usual or found)[0]
    strides = strides[::-1] if prefix else strides
    chosen: dict[str, object] = {"strides": one_or_all(strides), "padding": padding}
    if not prefix:
        return chosen
    if isinstance(padding, tuple):
        chosen["padding"] = padding[::-1]
    mirrored = {n: stated.get(n) for n in chosen}
    mirrored = {n: v[::-1] if isinstance(v, tuple) else v for n, v in mirrored.items()}
    return {
        f"decoder_{name}": value
        for name, value in chosen.items()
        if value != mirrored[name]
    }


def _is_usual(
    kernels: Sequence[int], strides: Sequence[int], padding: StagePadding
) -> bool:
    return set(strides) == {2} and padding == (kernels[0] - 1) // 2


def _options(
    kernels: tuple[int, ...],
    strides: int | Sequence[int] | None,
    padding: StagePadding | None,
) -> Iterator[tuple[tuple[int, ...], StagePadding]]:
    """Strides of each stage and paddings, those that are stated or the usual ones."""
    n = len(kernels)
    if isinstance(strides, int):
        all_strides = [(strides,) * n]
    elif strides is not None:
        all_strides = [tuple(strides)] if len(strides) == n else []
    else:
        all_strides = [(s,) * n for s in STRIDES]
    paddings = [padding] if padding is not None else range(max(kernels) // 2 + 1)
    yield from itertools.product(all_strides, paddings)


def _normalizations(
    inner: Sequence[Slot], dense: Sequence[Slot], image: Slot | None
) -> dict[str, object]:
    """Kind and place of the normalizations, and the biases before them."""
    main = _kind_of(inner if image or inner else dense)
    if not inner:
        main = _kind_of(dense)
    settings: dict[str, object] = {"normalization": main}
    if inner and dense and (kind := _kind_of(dense)) != main:
        settings["dense_normalization"] = kind
    normalized = [slot for slot in [*inner, *dense] if slot[1] is not None]
    if image is not None and image[1] is not None:
        settings["before_reshape"] = "normalization"
        normalized.append(image)
        if _kind_of([image]) != main:
            refuse(f"a normalization of another kind, {image[1].name}")
    if any(norm is not None and norm.has_statistics for _, norm in normalized):
        settings["batch_norm"] = "torch"
    return settings


def _biases(inwards: Sequence[Slot], outwards: Sequence[Slot]) -> dict[str, object]:
    """Which layers before a batch normalization have a bias, in each network."""
    encoder, decoder = _bias_kinds(inwards), _bias_kinds(outwards)
    if not (encoder and decoder):
        refuse("biases before some of the batch normalizations only")
    if encoder == decoder == set(BIASES):
        return {}  # no batch normalization
    order = ("needed", "always", "dense")
    if both := encoder & decoder:
        return {"biases": min(both, key=order.index)}
    return {
        "biases": min(encoder, key=order.index),
        "decoder_biases": min(decoder, key=order.index),
    }


def _bias_kinds(slots: Sequence[Slot]) -> set[str]:
    """The values of ``biases`` with which a network has those of a program."""
    kinds: set[str] = set(BIASES)
    for layer, norm in slots:
        if norm is None or not norm.has_statistics:
            continue
        if layer.kernel:
            kinds &= {"always"} if layer.has_bias else {"needed", "dense"}
        else:
            kinds &= {"dense", "always"} if layer.has_bias else {"needed"}
    return kinds


def _kind_of(slots: Sequence[Slot]) -> str:
    """The normalization of layers, which must be the same for all."""
    kinds = set()
    for layer, norm in slots:
        if norm is None:
            kinds.add("none")
        elif norm.has_statistics:
            kinds.add("batch")
        else:
            kinds.add("group" if layer.kernel else "layer")
    if len(kinds) > 1:
        named = [norm.name for _, norm in slots if norm is not None]
        refuse(f"normalizations of some of the layers only, {', '.join(named)}")
    return kinds.pop() if kinds else "none"
