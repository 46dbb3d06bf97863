"""What layers a model has, in the order in which it uses them."""

import math
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn

from flaxvae.models import variable_shapes
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
      path: names of the modules that lead to it, such as ``("encoder", "conv_0")``.
      kind: ``"dense"``, ``"conv"``, ``"conv_transpose"`` or ``"norm"``.
      flattened: the image (H, W, C) whose pixels are a dense layer's inputs, or None.
      unflattened: the image (H, W, C) that its outputs become, or None.
    """

    path: tuple[str, ...]
    kind: str
    flattened: Shape | None = None
    unflattened: Shape | None = None


def find_layers(model: nn.Module, data_shape: Shape) -> tuple[list[Layer], Any]:
    """The layers of a VAE, and the shapes of its variables; nothing is computed.

    Args:
      model: the unbound VAE.
      data_shape: shape of one example.
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
    image: Shape | None = data_shape  # the newest one, until it is flattened
    for layer, before, after in calls:
        if len(before) == 3:
            # What a dense layer has just made is an image from here on.
            newest = layers[-1] if layers else None
            if newest and newest.kind == "dense" and image is None:
                layers[-1] = replace(newest, unflattened=before)
            image = after
        elif layer and layer.kind == "dense":
            if image and len(image) == 3 and math.prod(image) == before[-1]:
                layer = replace(layer, flattened=image)
            image = None
        if layer:
            layers.append(layer)
    return layers, shapes
