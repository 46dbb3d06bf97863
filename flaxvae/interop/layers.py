"""The layers of a model, in the order in which it applies them."""

import math
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn

from flaxvae.models.variables import variable_shapes
from flaxvae.nn import Conv, ConvTranspose

Shape = tuple[int, ...]
KINDS: dict[Any, str] = {
    nn.Dense: "dense",
    nn.Conv: "conv",
    Conv: "conv",
    nn.ConvTranspose: "conv_transpose",
    ConvTranspose: "conv_transpose",
    nn.BatchNorm: "norm",
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
    """

    path: tuple[str, ...]
    kind: str
    flattened: Shape | None = None
    unflattened: Shape | None = None


def find_layers(model: nn.Module, data_shape: Shape) -> tuple[list[Layer], Any]:
    """The layers of a model and the shapes of its variables; nothing is computed.

    Args:
      model: an unbound VAE.
      data_shape: shape of one example.

    Returns:
      The layers with parameters, and the tree of `jax.ShapeDtypeStruct`.
    """
    calls: list[tuple[Layer | None, Shape, Shape]] = []  # shapes of an example

    def watch(next_method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = next_method(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__":
            if kind := KINDS.get(type(module)):
                layer = Layer(module.path, kind)
                calls.append((layer, args[0].shape[1:], result.shape[1:]))
            elif module.path == ("decoder",):
                calls.append((None, result.shape[1:], result.shape[1:]))
        return result

    with nn.intercept_methods(watch):
        shapes = variable_shapes(model, data_shape)
    layers: list[Layer] = []
    image: Shape | None = data_shape  # the latest one, until it is flattened
    for layer, before, after in calls:
        if len(before) > 1:
            # The outputs of the last dense layer are an image from here on.
            last = layers[-1] if layers else None
            if last and last.kind == "dense" and image is None:
                layers[-1] = replace(last, unflattened=before)
            image = after
        elif layer and layer.kind == "dense":
            if image and len(image) > 1 and math.prod(image) == before[-1]:
                layer = replace(layer, flattened=image)
            image = None
        if layer:
            layers.append(layer)
    return layers, shapes
