"""PyTorch's names of the layers of a model: stated, equal to ours, or found."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flaxvae.checks import InputError, check_choice, show
from flaxvae.interop.architectures import ARCHITECTURES
from flaxvae.interop.layers import Layer
from flaxvae.interop.names import (
    HEAD,
    Names,
    NamesLike,
    as_names,
    expand_architecture,
    find_names,
)
from flaxvae.interop.order import guess_program
from flaxvae.interop.program import Program, Shape
from flaxvae.interop.tensors import Weights

CODE = ("code", "code")  # the layer of an autoencoder's code
HEADS = {".".join(HEAD): HEAD, ".".join(CODE): CODE}
OWN = re.compile(
    r"(?P<side>encoder|decoder)\.(?P<kind>conv|hidden|image|output)(_(?P<number>\d+))?"
    r"(?P<norm>_norm)?"
)
KINDS = ("conv", "hidden", "image", "output")  # in the encoder in this order


def read_names(text: str) -> str | dict[str, str | Sequence[str]]:
    """The key of an architecture, or the dict in a JSON file.

    Raises:
      InputError: neither, or a file that is not such a dict.
    """
    if not text.lower().endswith(".json") and not Path(text).expanduser().is_file():
        check_choice("names", text, ARCHITECTURES)
        return text

    def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"names must name a layer once, got {twice} twice")
        return found

    try:
        names = json.loads(
            Path(text).expanduser().read_text(encoding="utf-8"),
            object_pairs_hook=without_duplicates,
        )
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"names must be a JSON file, got {text!r} ({reason})"
        ) from error
    check_names(names)
    return dict(names)


def check_names(names: object) -> None:
    """Raises `InputError` unless names are a dict from our layers to PyTorch's."""
    if names is None or isinstance(names, str):
        return
    if not isinstance(names, Mapping) or not names:
        raise InputError(
            "names must be a dict from flaxvae's layers to PyTorch's, such as "
            f'{{"encoder.hidden_0": "fc1"}}, got {show(names)}'
        )
    seen: dict[str, str] = {}
    for ours, theirs in names.items():
        is_text = isinstance(ours, str)
        several = theirs if isinstance(theirs, list | tuple) else [theirs]
        if not is_text or not all(isinstance(n, str) and n for n in several):
            raise InputError(
                f"names must be texts, got {show(theirs)} for {show(ours)}"
            )
        if (len(several) > 1 and ours != ".".join(HEAD)) or not 1 <= len(several) <= 2:
            raise InputError(
                f"names must be one text per layer, and two of {'.'.join(HEAD)}, got "
                f"{show(theirs)} for {ours}"
            )
        for name in several:
            if name in seen:
                raise InputError(
                    f"names must name each of PyTorch's layers once, got {name} for "
                    f"{seen[name]} and {ours}"
                )
            seen[name] = ours


def match_names(
    names: NamesLike, layers: Sequence[Layer], weights: Weights, data_shape: Shape
) -> tuple[Names, tuple[str, ...]]:
    """PyTorch's names of a model's layers, and what was assumed.

    Raises:
      InputError: names that are not of these layers, or several or no assignments fit.
    """
    check_names(names)
    tensors = list(weights.tensors)
    names = without_prefix(names, weights)
    if isinstance(names, str) or (names and not is_of_heads(names)):
        return find_names(names, layers, tensors), ()
    if names is None and _are_own(layers, tensors):
        return find_names(None, layers, tensors), ()
    program = find_program(names, weights, data_shape)
    return pair(program, layers), (program.describe(),)


def without_prefix(names: NamesLike, weights: Weights) -> NamesLike:
    """Names of tensors whose common prefix was left out, without it too."""
    if names is None or isinstance(names, str):
        return names
    return {
        ours: tuple(weights.shorten(name) for name in as_names(theirs))
        for ours, theirs in names.items()
    }


def is_of_heads(names: Mapping[str, object]) -> bool:
    """Whether a dict names the layers of the code only; the others are to be found."""
    return names.keys() <= HEADS.keys()


def find_program(names: NamesLike, weights: Weights, data_shape: Shape) -> Program:
    """The layers of a program in order; see `guess_program`."""
    tensors = weights.tensors
    if names is None:
        own = [name for name in HEADS if f"{name}.weight" in tensors]
        return guess_program(tensors, data_shape, own)
    if isinstance(names, str):
        check_choice("architecture", names, ARCHITECTURES)
        order = expand_architecture(names, list(tensors))
        heads = order.pop("heads")
        return guess_program(tensors, data_shape, heads, order)
    heads = [n for ours in HEADS for n in as_names(names.get(ours, ()))]
    if is_of_heads(names):
        return guess_program(tensors, data_shape, heads)
    order = {"encoder": [], "decoder": []}
    for ours in sorted((n for n in names if n not in HEADS), key=_place):
        match = OWN.fullmatch(ours)
        if match is None:
            raise InputError(
                f"unknown layer {ours!r}: choose from {', '.join(HEADS)}, "
                "encoder.conv_0, encoder.conv_0_norm, ..., encoder.hidden_0, ..., "
                "decoder.hidden_0, ..., decoder.image, decoder.conv_0, ..., "
                "decoder.output"
            )
        order[match["side"]] += as_names(names[ours])
    return guess_program(tensors, data_shape, heads, order)


def _place(ours: str) -> tuple[int, ...]:
    """The order of our names: dense layers precede the image in a decoder."""
    match = OWN.fullmatch(ours)
    if match is None:
        return ()
    kind = KINDS.index(match["kind"])
    if match["side"] == "decoder":
        kind = ("hidden", "image", "conv", "output").index(match["kind"])
    return kind, int(match["number"] or 0), int(bool(match["norm"]))


def _are_own(layers: Sequence[Layer], tensors: Sequence[str]) -> bool:
    """Whether tensors have flaxvae's names, those of most layers."""
    found = {name.rpartition(".")[0] for name in tensors}
    ours = {".".join(layer.path) for layer in layers}
    return 2 * len(ours & found) >= len(ours) or bool(found & HEADS.keys())


def pair(program: Program, layers: Sequence[Layer]) -> Names:
    """The layers of a program by the paths of a model's layers, in their order."""
    kind = CODE if program.is_autoencoder else HEAD
    has_head = any(layer.path == kind for layer in layers)
    is_other = any(layer.path in {HEAD, CODE} - {kind} for layer in layers)
    if has_head != bool(program.heads) or is_other:
        has = "an autoencoder" if program.is_autoencoder else "a VAE"
        raise InputError(
            f"the model must be {has} as the weights are ({program.describe()})"
            + ("" if program.is_autoencoder else ", with a diagonal posterior")
        )
    paired: Names = {}
    if program.heads:
        paired[kind] = tuple(layer.name for layer in program.heads)
    for side, theirs in (("encoder", program.encoder), ("decoder", program.decoder)):
        ours = [layer.path for layer in layers if layer.path[0] == side]
        if len(ours) != len(theirs):
            listed = ", ".join(layer.name for layer in theirs)
            raise InputError(
                f"the {side}'s layers must be as many as the model's {len(ours)}, got "
                f"{len(theirs)}: {listed or 'none'}"
            )
        paired |= {a: (b.name,) for a, b in zip(ours, theirs, strict=True)}
    return paired
