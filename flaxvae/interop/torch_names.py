"""The names of layers that a PyTorch program of an architecture would print."""

import itertools
from collections.abc import Sequence

from flaxvae.checks import InputError
from flaxvae.interop.layers import Layer

# The modules of a model that are a program's encoder: of an autoencoder, the layer of
# the code is the encoder's last.
PARTS = {"encoder": ("encoder", "code"), "decoder": ("decoder",)}

Group = list[Layer]  # a layer and, if it has one, its normalization


def torch_names(
    part: str, patterns: Sequence[str], layers: Sequence[Layer], used: Sequence[str]
) -> dict[tuple[str, ...], str]:
    """PyTorch's name of each layer of a part, by its path.

    Args:
      part: ``"encoder"`` or ``"decoder"``.
      patterns: those of an `Architecture`; the first of alternatives is printed.
      layers: the layers of the model.
      used: names of other layers.

    Raises:
      InputError: layers for which the architecture has no names.
    """
    groups = _group([layer for layer in layers if layer.path[0] in PARTS[part]])
    norms = [p for p in patterns if _first(p).split(".")[-1].startswith(_NORMS)]
    patterns = [pattern for pattern in patterns if pattern not in norms]
    norm = _first(norms[0]) if norms else None
    names: dict[tuple[str, ...], str] = {}
    for place, pattern in enumerate(patterns):
        count = _count(pattern, groups, patterns[place + 1 :])
        taken, groups = groups[:count], groups[count:]
        first = _first(pattern)
        if first.endswith(".*"):
            names |= _in_sequential(first.removesuffix("*"), taken)
        else:
            names |= _by_number(first, norm, taken, (*used, *names.values()))
    ours = [layer.path for layer in layers if layer.path[0] in PARTS[part]]
    unnamed = [path for path in ours if path not in names]
    if unnamed:
        raise InputError(
            "the model must be one that this architecture has names for: it has none "
            f"for {'.'.join(unnamed[0])}"
        )
    return names


_NORMS = ("bn", "norm", "dec_bn")  # as names of normalizations begin


def _first(pattern: str) -> str:
    return pattern.split("|")[0]


def _group(layers: Sequence[Layer]) -> list[Group]:
    groups: list[Group] = []
    for layer in layers:
        if layer.kind == "norm" and groups:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return groups


def _count(pattern: str, groups: Sequence[Group], later: Sequence[str]) -> int:
    """How many layers a pattern names: one, or for numbers a run of one kind."""
    kinds = [group[0].kind for group in groups]
    if "*" not in _first(pattern):
        is_needed = pattern.split("|")[-1] or len(set(kinds)) > 1 or not later
        return int(bool(kinds and is_needed))
    if not later:
        return len(groups)
    needed = sum("*" not in _first(p) and bool(p.split("|")[-1]) for p in later)
    is_conv = "conv" in pattern
    run = itertools.takewhile(lambda kind: (kind != "dense") == is_conv, kinds)
    return min(len(list(run)), len(groups) - needed)


def _in_sequential(prefix: str, groups: Sequence[Group]) -> dict[tuple[str, ...], str]:
    """Numbers within an ``nn.Sequential``, where other modules count too."""
    names = {}
    place = 0
    for i, group in enumerate(groups):
        reshapes = i > 0 and (group[0].kind == "dense") != (
            groups[i - 1][0].kind == "dense"
        )
        place += reshapes  # nn.Flatten or nn.Unflatten
        for layer in group:
            names[layer.path] = f"{prefix}{place}"
            place += 1
        place += group[0].num_following
    return names


def _by_number(
    pattern: str, norm: str | None, groups: Sequence[Group], used: Sequence[str]
) -> dict[tuple[str, ...], str]:
    """A name, or names with the next free numbers; normalizations have their own."""
    names: dict[tuple[str, ...], str] = {}
    for group in groups:
        for layer, form in zip(group, (pattern, norm or f"{pattern}.1"), strict=False):
            numbers = (form.replace("*", str(n)) for n in itertools.count(1))
            taken = {*used, *names.values()}
            names[layer.path] = next(
                name for name in numbers if name not in taken or "*" not in form
            )
    return names
