"""Modules without weights, inferred from the numbers of an ``nn.Sequential``.

In ``Sequential(Linear, ReLU, Linear)`` the dense layers are 0 and 2: one module stands
between them. In an ``nn.ModuleList`` of layers there are no gaps, and nothing can be
inferred.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from flaxvae.checks import InputError
from flaxvae.interop.program import Program, TorchLayer


def read_gaps(program: Program, stated: Mapping[str, object]) -> dict[str, object]:
    """Settings that follow from modules without weights between the layers.

    Args:
      program: the layers in order.
      stated: fields that the user states: with ``strides``, further modules between
        convolutions are taken as dropout, not as pooling.

    Returns:
      ``before_reshape``, ``feature_map`` and whether ``code_activation`` is needed, as
      far as the numbers show.

    Raises:
      InputError: an activation before a normalization, none between two layers, or what
        may be pooling.
    """
    inferred: dict[str, object] = {}
    layers = [*program.encoder, *program.decoder]
    if program.is_autoencoder:
        layers = [*program.encoder, *program.heads, *program.decoder]
    outwards = {layer.name for layer in program.decoder}
    lists = _without_gaps([*layers, *program.heads])
    main = None  # the latest layer that is not a normalization
    for layer, following in pairwise(layers):
        main = layer if layer.kind != "norm" else main
        count = _count_between(layer, following, lists)
        if count is None or main is None:
            continue
        if following.kind == "norm":
            if count:
                _refuse(
                    f"{_modules(count)} between {layer.name} and its normalization "
                    f"{following.name}, such as an activation"
                )
            continue
        reshapes = bool(main.kernel) != bool(following.kernel)
        activations = count - reshapes
        crosses = main.name not in outwards and following.name in outwards
        if crosses and program.heads:
            inferred["code_activation"] = activations > 0
        elif crosses:
            inferred["feature_map"] = "activated" if activations > 0 else "linear"
        elif reshapes and main.name in outwards and layer is main:
            inferred["before_reshape"] = "activation" if activations > 0 else "none"
        elif activations < 1:
            _refuse(f"no activation between {layer.name} and {following.name}")
        elif activations > 1 and main.kind == "conv" and "strides" not in stated:
            raise InputError(
                f"strides must be stated for {_modules(count)} between {layer.name} "
                f"and {following.name}: one may be pooling, which flaxvae's networks "
                "do not have; dropout may be there"
            )
    return inferred


def _refuse(what: str) -> None:
    raise InputError(
        "weights must be of a network with an activation after each layer, and after "
        f"its normalization, got {what} (by the numbers of nn.Sequential): write its "
        "encoder and decoder as Linen modules"
    )


def _modules(count: int) -> str:
    return "a module" if count == 1 else f"{count} modules"


def _place(name: str) -> tuple[str, int]:
    """The container of a layer, and its number in it, or -1."""
    container, _, number = name.rpartition(".")
    return container, int(number) if number.isdecimal() else -1


def _without_gaps(layers: Sequence[TorchLayer]) -> set[str]:
    """Containers whose layers have all numbers in a row."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for layer in layers:
        container, number = _place(layer.name)
        numbers[container].add(number)
    return {
        container
        for container, found in numbers.items()
        if max(found) - min(found) < len(found)
    }


def _count_between(
    layer: TorchLayer, following: TorchLayer, lists: set[str]
) -> int | None:
    """The modules between two layers; None: their names do not show it."""
    (container, number), (other, end) = _place(layer.name), _place(following.name)
    if container != other or container in lists or not 0 <= number < end:
        return None
    return end - number - 1
