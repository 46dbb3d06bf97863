"""The layers of a PyTorch program, from its tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

import numpy as np

from flaxvae.checks import InputError, list_names

T = TypeVar("T")
Shape = tuple[int, ...]
TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
OWN_PARTS = ("likelihood.", "prior.", "critic.")  # of flaxvae's own models


@dataclass(frozen=True)
class TorchLayer:
    """A layer of PyTorch.

    Attributes:
      name: such as ``"encoder.fc1"``.
      kind: ``"dense"``, ``"conv"``, ``"conv_transpose"``, ``"norm"`` or, where its
        tensors are those of both, ``"either"`` of the convolutions.
      inputs: features, or channels; of a transposed convolution and where both are
        possible, as a transposed one is stored.
      outputs: likewise.
      kernel: rows and columns of a convolution's kernel.
      has_bias: whether it adds a bias.
      has_statistics: of a normalization, whether it has running statistics.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    kernel: Shape = ()
    has_bias: bool = True
    has_statistics: bool = False

    def on(self, side: str) -> "TorchLayer | None":
        """The layer as one of the encoder or the decoder, or None."""
        if self.kind == "either" and side == "encoder":
            return replace(self, kind="conv", inputs=self.outputs, outputs=self.inputs)
        if self.kind == "either":
            return replace(self, kind="conv_transpose")
        other = {"encoder": "conv_transpose", "decoder": "conv"}[side]
        return None if self.kind == other else self

    def describe(self) -> str:
        """Name and sizes, such as ``fc1 (784 to 400)``."""
        return f"{self.name} ({self.inputs} to {self.outputs})"


@dataclass(frozen=True)
class Program:
    """The layers of a program in the order in which it applies them.

    Attributes:
      encoder: layers and normalizations between the data and the heads.
      heads: of the means and the log-variances, one of both, one of a code, or none,
        where an autoencoder's code is the last feature map of its encoder.
      decoder: layers and normalizations from the code to the data.
      is_autoencoder: whether it has a code and no log-variances.
    """

    encoder: tuple[TorchLayer, ...]
    heads: tuple[TorchLayer, ...]
    decoder: tuple[TorchLayer, ...]
    is_autoencoder: bool = False

    @property
    def latent_dim(self) -> int | None:
        """D, the size of the code; None: that of a feature map depends on the data."""
        if not self.heads:
            return None
        is_both = len(self.heads) == 1 and not self.is_autoencoder
        return self.heads[0].outputs // (2 if is_both else 1)

    def describe(self) -> str:
        """The names in order, such as ``fc1; fc21 (means), fc22 (...); fc3, fc4``."""
        names = [layer.name for layer in self.heads]
        if not names:
            heads = "(code: the feature map)"
        elif self.is_autoencoder:
            heads = f"{names[0]} (code)"
        elif len(names) == 1:
            heads = f"{names[0]} (means, then log-variances)"
        else:
            heads = f"{names[0]} (means), {names[1]} (log-variances)"
        sides = (", ".join(n.name for n in s) for s in (self.encoder, self.decoder))
        encoder, decoder = sides
        return "; ".join(part for part in (encoder, heads, decoder) if part)


def torch_layers(tensors: Mapping[str, np.ndarray]) -> dict[str, TorchLayer]:
    """The layers that tensors belong to.

    Raises:
      InputError: a tensor of another kind of layer.
    """
    groups: dict[str, dict[str, np.ndarray]] = {}
    is_own = any(n.startswith(("posterior.", "code.")) for n in tensors)
    for name, tensor in tensors.items():
        if not (is_own and name.startswith(OWN_PARTS)):
            layer, _, leaf = name.rpartition(".")
            groups.setdefault(layer, {})[leaf] = tensor
    layers = {name: _as_layer(name, group) for name, group in groups.items()}
    unknown = [
        f"{name}.{leaf}" if name else leaf
        for name, layer in layers.items()
        if layer is None
        for leaf in groups[name]
    ]
    if unknown:
        raise InputError(
            "weights must be those of dense layers, convolutions and normalizations, "
            f"got {list_names(unknown, 5)}"
        )
    return {name: layer for name, layer in layers.items() if layer is not None}


def _as_layer(name: str, group: Mapping[str, np.ndarray]) -> TorchLayer | None:
    weight = group.get("weight")
    if not name or weight is None or not group.keys() <= TENSORS:
        return None
    bias, is_norm = group.get("bias"), "running_mean" in group
    if weight.ndim == 1 and bias is None:  # the slopes of nn.PReLU
        return None
    if weight.ndim == 1:
        return TorchLayer(
            name, "norm", len(weight), len(weight), has_statistics=is_norm
        )
    if is_norm or not 2 <= weight.ndim <= 4:
        return None
    first, second, *kernel = weight.shape
    if weight.ndim == 2:
        return TorchLayer(name, "dense", second, first, (), bias is not None)
    kind, inputs, outputs = "either", first, second  # (I, O, kh, kw) transposed
    if bias is not None and first != second:
        kind = "conv" if len(bias) == first else "conv_transpose"
    if kind == "conv":
        inputs, outputs = second, first  # (O, I, kh, kw)
    return TorchLayer(name, kind, inputs, outputs, tuple(kernel), bias is not None)


def refuse(what: str) -> NoReturn:
    """Raises `InputError` for a network that flaxvae's parts cannot build."""
    raise InputError(
        f"weights must be of a network that flaxvae's parts can build, got {what}: "
        "write its encoder and decoder as Linen modules"
    )


def one_or_all(values: Sequence[T]) -> T | tuple[T, ...]:
    """The value of all stages, or one per stage where they differ."""
    return values[0] if len(set(values)) == 1 else tuple(values)
