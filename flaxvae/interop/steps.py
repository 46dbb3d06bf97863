"""Strides and padding of a PyTorch program, from the convolutions of its module."""

from collections.abc import Mapping, Sequence

from flaxvae.interop.program import Program, Shape, TorchLayer, one_or_all, refuse
from flaxvae.nn.convnet import StagePadding, shrink

Steps = tuple[int, int | str]  # stride and padding of a convolution


def read_steps(
    program: Program, convolutions: Mapping[str, object], data_shape: Shape
) -> dict[str, object]:
    """The settings of strides and padding that a module's convolutions have.

    Args:
      program: the layers in order.
      convolutions: the module's by name; without them there are no settings.
      data_shape: shape of one example.

    Raises:
      InputError: a convolution that flaxvae's networks do not have.
    """
    settings: dict[str, object] = {}
    for prefix, layers in (("", program.encoder), ("decoder_", program.decoder)):
        kernels = [layer for layer in layers if layer.kernel]
        if not kernels or any(layer.name not in convolutions for layer in kernels):
            continue
        modules = [convolutions[layer.name] for layer in kernels]
        strides, padding = zip(*map(_read, kernels, modules), strict=True)
        settings[f"{prefix}strides"] = one_or_all(strides)
        settings[f"{prefix}padding"] = one_or_all(padding)
        if prefix:
            _check_sizes(kernels, modules, strides, padding, data_shape[:-1])
    return settings


def _read(layer: TorchLayer, module: object) -> Steps:
    """Stride and padding of a convolution, the same along each axis."""
    values = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
    for name, value in values.items():
        if not isinstance(value, str) and len(set(value)) > 1:
            refuse(f"{layer.name} with {name}={tuple(value)}")
    for name, usual in (("groups", 1), ("padding_mode", "zeros")):
        if (value := getattr(module, name)) != usual:
            refuse(f"{layer.name} with {name}={value}")
    if values["dilation"][0] != 1:
        refuse(f"{layer.name} with dilation={values['dilation'][0]}")
    padding = values["padding"]
    if isinstance(padding, str):
        return values["stride"][0], padding.upper()
    return values["stride"][0], padding[0]


def _check_sizes(
    layers: Sequence[TorchLayer],
    modules: Sequence[object],
    strides: Sequence[int],
    padding: Sequence[int | str],
    size: Shape,
) -> None:
    """Refuses a decoder that passes through other sizes than its mirror."""
    kernels = [layer.kernel[0] for layer in layers]
    pads: StagePadding = tuple(padding[::-1])
    sizes = shrink(size, kernels[::-1], strides[::-1], pads)[::-1]
    for i, (layer, module) in enumerate(zip(layers, modules, strict=True)):
        more, pad = getattr(module, "output_padding", (0,)), padding[i]
        if isinstance(pad, str):
            continue
        grown = tuple(
            (n - 1) * strides[i] - 2 * pad + kernels[i] + more[0] for n in sizes[i]
        )
        if grown != sizes[i + 1]:
            refuse(f"{layer.name} with output_padding={more[0]}")
