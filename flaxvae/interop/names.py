"""Names of a VAE's layers in PyTorch programs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flaxvae.checks import InputError, check_choice
from flaxvae.interop.layers import Layer

# From the path of a layer in flaxvae to the name of PyTorch's layer, or to the names of
# the two layers whose outputs are its first and second half.
Names = dict[tuple[str, ...], tuple[str, ...]]

HEAD = ("posterior", "mean_and_log_var")

# PyTorch's names, in order: the layers of the encoder, those of the means and the
# log-variances, the layers of the decoder. `*` stands for increasing numbers.
ARCHITECTURES: dict[str, dict[str, tuple[str, ...]]] = {
    "pytorch_examples": {  # github.com/pytorch/examples, vae
        "encoder": ("fc1",),
        "heads": ("fc21", "fc22"),
        "decoder": ("fc3", "fc4"),
    },
    "encoder_decoder": {
        "encoder": ("encoder.fc1",),
        "heads": ("encoder.fc21", "encoder.fc22"),
        "decoder": ("decoder.fc1", "decoder.fc2"),
    },
    "encoder_decoder_out": {
        "encoder": ("encoder.fc1",),
        "heads": ("encoder.fc_mean", "encoder.fc_log_var"),
        "decoder": ("decoder.fc1", "decoder.fc_out"),
    },
    "sequential": {
        "encoder": ("encoder_layers.*",),
        "heads": ("fc_mu", "fc_logvar"),
        "decoder": ("decoder.*",),
    },
    "sequential_conv": {
        "encoder": ("encoder_conv.*",),
        "heads": ("fc_mu", "fc_logvar"),
        "decoder": ("decoder_fc", "decoder_conv.*"),
    },
    "conv_layers": {
        "encoder": ("encoder.conv_layers.*",),
        "heads": ("encoder.fc_mu", "encoder.fc_logvar"),
        "decoder": ("decoder.fc", "decoder.conv_layers.*"),
    },
}


def find_names(
    names: str | Mapping[str, Any] | None,
    layers: Sequence[Layer],
    tensors: Sequence[str],
) -> Names:
    """PyTorch's name or names of each layer.

    Args:
      names: a key of `ARCHITECTURES`, a dict from flaxvae's names to PyTorch's, or None
        if they are equal.
      layers: the layers of the model.
      tensors: names of PyTorch's tensors.

    Raises:
      InputError: an unknown architecture or layer, or a different number of layers.
    """
    if names is None:
        names = {}
    if isinstance(names, str):
        check_choice("architecture", names, ARCHITECTURES)
        return _match(ARCHITECTURES[names], layers, tensors)
    known = {".".join(layer.path): layer.path for layer in layers}
    for name in names:
        check_choice("layer", name, known)
    return {path: _as_tuple(names.get(name, name)) for name, path in known.items()}


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _match(
    architecture: Mapping[str, tuple[str, ...]],
    layers: Sequence[Layer],
    tensors: Sequence[str],
) -> Names:
    """Pairs the layers of each part in order, normalizations separately."""
    matched: Names = {HEAD: architecture["heads"]}
    norms = {
        t.removesuffix(".running_mean") for t in tensors if t.endswith(".running_mean")
    }
    for part in ("encoder", "decoder"):
        theirs = [
            name for pattern in architecture[part] for name in _expand(pattern, tensors)
        ]
        for is_norm in (False, True):
            ours = [
                layer.path
                for layer in layers
                if layer.path[0] == part and (layer.kind == "norm") == is_norm
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


def _expand(pattern: str, tensors: Sequence[str]) -> list[str]:
    """The layers that match a pattern, in the order of their numbers."""
    if "*" not in pattern:
        return [pattern]
    match = re.compile(re.escape(pattern).replace(r"\*", r"(\d+)") + r"\.\w+")
    numbers = {int(m[1]) for name in tensors if (m := match.fullmatch(name))}
    return [pattern.replace("*", str(n)) for n in sorted(numbers)]
