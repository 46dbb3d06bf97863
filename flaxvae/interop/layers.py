"""The layers of a model, in the order in which it applies them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import flax.linen as nn
import jax
from flax.typing import VariableDict

from flaxvae.models.variables import variable_shapes
from flaxvae.nn import (
    Conv,
    ConvDecoder,
    ConvEncoder,
    ConvTranspose,
    ResNetDecoder,
)
from flaxvae.nn.batch_norm import BatchNorm
from flaxvae.nn.codes import CodeHead
from flaxvae.nn.dense import Dense
from flaxvae.nn.layers import Network

Shape = tuple[int, ...]
KINDS: dict[type[nn.Module], str] = {
    nn.Dense: "dense",
    Dense: "dense",
    nn.Conv: "conv",
    Conv: "conv",
    nn.ConvTranspose: "conv_transpose",
    ConvTranspose: "conv_transpose",
    nn.BatchNorm: "norm",
    BatchNorm: "norm",
    nn.GroupNorm: "norm",
    nn.LayerNorm: "norm",
}


@dataclass(frozen=True)
class Layer:
    """One layer with parameters.

    Attributes:
      path: names of the modules down to the layer, such as ``("encoder", "conv_0")``.
      kind: ``"dense"``, ``"conv"``, ``"conv_transpose"`` or ``"norm"``.
      flattened: shape (H, W, C) of the image, or (T, C) of the series, whose entries a
        dense layer reads, or None.
      unflattened: shape of the image or series that its outputs become, or None.
      num_following: modules without parameters that follow in PyTorch: an activation
        and dropout.
    """

    path: tuple[str, ...]
    kind: str
    flattened: Shape | None = None
    unflattened: Shape | None = None
    num_following: int = 0


def find_layers(
    model: nn.Module, data_shape: Shape
) -> tuple[list[Layer], VariableDict]:
    """The layers of a model and the shapes of its variables; nothing is computed.

    Args:
      model: an unbound VAE or autoencoder.
      data_shape: shape of one example.

    Returns:
      The layers with parameters, and the tree of `jax.ShapeDtypeStruct`.
    """
    calls: list[tuple[Layer | None, Shape, Shape]] = []  # shapes of an example
    seen: set[tuple[str, ...]] = set()  # a module may call that of its base class

    def watch(
        next_method: Callable[..., object],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        context: nn.module.InterceptorContext,
    ) -> object:
        result = next_method(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__":
            kind = KINDS.get(type(module))
            if kind and module.path not in seen:
                seen.add(module.path)
                layer = Layer(module.path, kind, num_following=_following(module))
                calls.append((layer, _shape(args[0]), _shape(result)))
            elif module.path == ("decoder",):
                calls.append((None, _shape(result), _shape(result)))
        return result

    with nn.intercept_methods(watch):
        shapes = variable_shapes(model, data_shape)
    layers: list[Layer] = []
    image: Shape | None = data_shape  # the latest one, until it is flattened
    for layer, before, after in calls:
        if len(before) > 1:
            if image is None:
                # The outputs of the last dense layer are an image from here on.
                place = len(layers)
                while place and layers[place - 1].kind == "norm":
                    place -= 1
                for i in range(max(place - 1, 0), len(layers)):
                    layers[i] = replace(layers[i], unflattened=before)
            image = after
        elif layer and layer.kind == "dense":
            if image and len(image) > 1 and math.prod(image) == before[-1]:
                layer = replace(layer, flattened=image)
            image = None
        if layer:
            layers.append(layer)
    return layers, shapes


def _shape(x: object) -> Shape:
    """The shape of an example of what a layer takes or returns, which is an array."""
    return cast(jax.Array, x).shape[1:]


def _following(module: nn.Module) -> int:
    """See `Layer.num_following`."""
    network = module.parent
    if isinstance(network, CodeHead):
        return int(network.activation != "none")
    is_last = module.name == "output"
    if isinstance(network, ConvDecoder | ResNetDecoder) and module.name == "image":
        is_last = network.before_reshape in (None, "none")
    if isinstance(network, ConvEncoder) and network.feature_map == "linear":
        is_last = module.name == f"conv_{len(network.filters) - 1}"
    if is_last or not isinstance(network, Network):
        return 0
    return 2 if network.dropout else 1
