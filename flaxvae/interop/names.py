"""Names of a model's layers in PyTorch programs."""

import re
from collections.abc import Mapping, Sequence

from flaxvae.checks import InputError, check_choice
from flaxvae.interop.architectures import ARCHITECTURES, Architecture
from flaxvae.interop.layers import Layer
from flaxvae.interop.torch_names import PARTS, torch_names

# From the path of a layer in flaxvae to the name of PyTorch's layer, or to the names of
# the two layers whose outputs are its first and second half.
NamesLike = str | Mapping[str, str | Sequence[str]] | None  # as a user states them
Names = dict[tuple[str, ...], tuple[str, ...]]

HEAD = ("posterior", "mean_and_log_var")
KINDS = {"vae": "a VAE with a diagonal posterior", "autoencoder": "an autoencoder"}


def find_names(
    names: NamesLike,
    layers: Sequence[Layer],
    tensors: Sequence[str] | None,
) -> Names:
    """PyTorch's name or names of each layer.

    Args:
      names: a key of `ARCHITECTURES`, a dict from flaxvae's names to PyTorch's, or None
        if they are equal.
      layers: the layers of the model.
      tensors: names of PyTorch's tensors; None: as the architecture's program would
        print them.

    Raises:
      InputError: an unknown architecture or layer, or a different number of layers.
    """
    if names is None:
        names = {}
    if isinstance(names, str):
        check_choice("architecture", names, ARCHITECTURES)
        architecture = ARCHITECTURES[names]
        is_vae = any(layer.path == HEAD for layer in layers)
        if is_vae != (architecture.kind == "vae"):
            raise InputError(
                f"the model must be {KINDS[architecture.kind]} for the architecture "
                f"{names}"
            )
        if tensors is not None:
            return _match(architecture, layers, tensors)
        heads = tuple(pattern.split("|")[0] for pattern in architecture.heads)
        matched: Names = {HEAD: heads} if heads else {}
        for part, patterns in architecture.parts.items():
            used = [name for names in matched.values() for name in names]
            printed = torch_names(part, patterns, layers, used)
            matched |= {path: (name,) for path, name in printed.items()}
        return matched
    known = {".".join(layer.path): layer.path for layer in layers}
    for name in names:
        check_choice("layer", name, known)
    return {path: as_names(names.get(name, name)) for name, path in known.items()}


def as_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def _match(
    architecture: Architecture, layers: Sequence[Layer], tensors: Sequence[str]
) -> Names:
    """Pairs the layers of each part in order, normalizations separately."""
    unused = {name.rpartition(".")[0] for name in tensors}
    heads = [n for pattern in architecture.heads for n in _expand(pattern, unused)]
    matched: Names = {HEAD: tuple(heads)} if heads else {}
    norms = {
        t.removesuffix(".running_mean") for t in tensors if t.endswith(".running_mean")
    }
    for part, patterns in architecture.parts.items():
        theirs = [name for pattern in patterns for name in _expand(pattern, unused)]
        for is_norm in (False, True):
            ours = [
                layer.path
                for layer in layers
                if layer.path[0] in PARTS[part] and (layer.kind == "norm") == is_norm
            ]
            in_torch = [name for name in theirs if (name in norms) == is_norm]
            if len(ours) != len(in_torch):
                kind = "normalizations" if is_norm else "layers"
                raise InputError(
                    f"the {part}'s {kind} must be as many as the model's {len(ours)}, "
                    f"got {len(in_torch)}: {', '.join(in_torch) or 'none'}"
                )
            matched |= {a: (b,) for a, b in zip(ours, in_torch, strict=True)}
    return matched


def expand_architecture(name: str, tensors: Sequence[str]) -> dict[str, list[str]]:
    """The layers that an architecture names: of the heads, the encoder, the decoder."""
    architecture = ARCHITECTURES[name]
    unused = {tensor.rpartition(".")[0] for tensor in tensors}
    parts = {"heads": architecture.heads, **architecture.parts}
    return {
        part: [n for pattern in patterns for n in _expand(pattern, unused)]
        for part, patterns in parts.items()
    }


def _expand(pattern: str, unused: set[str]) -> list[str]:
    """The layers that a pattern names, in the order of their numbers.

    The first alternative counts that names layers; see `Architecture`. They are removed
    from ``unused``, so that a later pattern does not name them again.
    """
    alternatives = pattern.split("|")
    for alternative in filter(None, alternatives):
        match = re.compile(re.escape(alternative).replace(r"\*", r"(\d*)"))
        found = {
            name: m[m.lastindex or 0] for name in unused if (m := match.fullmatch(name))
        }
        if found:
            unused.difference_update(found)
            return sorted(
                found,
                key=lambda name: int(found[name] or 0) if "*" in alternative else 0,
            )
    is_needed = alternatives[-1] and "*" not in alternatives[0]
    return alternatives[:1] if is_needed else []  # then listed as missing
