"""Conversion of weights from PyTorch and back.

PyTorch keeps images as (C, H, W), the kernels of dense layers as (outputs, inputs) and
those of convolutions as (O, I, kh, kw); flaxvae as (H, W, C), (inputs, outputs) and
(kh, kw, I, O). The kernel of a transposed convolution is also flipped, and a dense
layer before or after a flattened image has its pixels in another order.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import MutableVariableDict, VariableDict

from flaxvae.checks import InputError
from flaxvae.interop.layers import Layer, find_layers
from flaxvae.interop.matching import match_names
from flaxvae.interop.names import Names, NamesLike, find_names
from flaxvae.interop.tensors import print_note, read_weights
from flaxvae.nn.convnet import ConvDecoder, ConvEncoder
from flaxvae.nn.layers import per_stage
from flaxvae.nn.resnet import ResNetDecoder, ResNetEncoder
from flaxvae.nn.window import make_window

if TYPE_CHECKING:
    import torch

COUNTER = "num_batches_tracked"  # in PyTorch's batch normalization only
STATISTICS = {"mean": "running_mean", "var": "running_var", "count": COUNTER}


def from_torch(
    source: object,
    model: nn.Module,
    data_shape: tuple[int, ...],
    *,
    names: NamesLike = None,
    entry: str | None = None,
) -> MutableVariableDict:
    """Converts the parameters and batch statistics of a PyTorch module.

    What is assumed (an entry of a checkpoint, a prefix, the order of the layers) is
    printed in one line; `infer_config` finds the model itself.

    >>> from flaxvae.models import build_vae
    >>> vae = build_vae((2, 2, 1), 2, hidden=(3,))
    >>> sizes = {"fc1": (3, 4), "fc21": (2, 3), "fc22": (2, 3), "fc3": (3, 2)}
    >>> sizes["fc4"] = (4, 3)
    >>> state_dict = {f"{n}.weight": np.ones(size) for n, size in sizes.items()}
    >>> state_dict |= {f"{n}.bias": np.zeros(size[0]) for n, size in sizes.items()}
    >>> variables = from_torch(state_dict, vae, (2, 2, 1), names="pytorch_examples")
    >>> variables["params"]["posterior"]["mean_and_log_var"]["kernel"].shape
    (3, 4)

    Args:
      source: a PyTorch module; its state dict, or a dict of arrays; a checkpoint with
        such a dict in it; or the path of a file of ``torch.save``, a safetensors or an
        npz file. Pickled code in a file is never executed.
      model: an unbound VAE or autoencoder.
      data_shape: shape of one example, (H, W, C).
      names: PyTorch's names of the layers: a key of `ARCHITECTURES`; a dict from
        flaxvae's names, such as ``"encoder.conv_0"``, to PyTorch's, or to a pair of
        names for the layers of the means and the log-variances; or None if the names
        are equal, or if shapes and names leave one order of the layers only.
      entry: the entry of a checkpoint that holds the tensors, where several do.

    Returns:
      The variables for ``model.apply``.

    Raises:
      InputError: the file cannot be read, or the tensors do not fit the model; the
        message lists all that are missing, surplus or of another shape.
      NonFiniteError: one of the tensors holds NaN or an infinite number.
    """
    weights = read_weights(source, entry)
    tensors = weights.tensors
    layers, shapes = find_layers(model, data_shape)
    torch_names, notes = match_names(names, layers, weights, tuple(data_shape))
    expected = _torch_shapes(layers, torch_names, shapes)
    _check_shapes(tensors, expected)
    variables: dict[tuple[str, ...], jax.Array] = {}
    zero = np.zeros((), np.float32)  # files of old versions count no batches
    for path, leaf in _leaves(shapes).items():
        layer, name = _owner(path, layers)
        parts = [tensors.get(n, zero) for n in _torch_names(path, layer, torch_names)]
        value = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if layer is not None and name == "kernel":
            value = _kernel_from_torch(value, layer)
        elif layer is not None and layer.unflattened and value.ndim == 1:
            value = _pixels_last(value, layer.unflattened)
        variables[path] = jnp.asarray(value, leaf.dtype).reshape(leaf.shape)
    print_note([*weights.notes, *notes])
    return flax.traverse_util.unflatten_dict(variables)


def to_torch(
    variables: VariableDict,
    model: nn.Module,
    data_shape: tuple[int, ...],
    *,
    names: NamesLike = None,
    like: object = None,
) -> "dict[str, torch.Tensor]":
    """Converts variables to a PyTorch state dict, the inverse of `from_torch`.

    Args:
      variables: the variables for ``model.apply``.
      model: an unbound VAE or autoencoder.
      data_shape: shape of one example, (H, W, C).
      names: as in `from_torch`; a key of `ARCHITECTURES` writes the names that its
        program usually prints, an ``nn.Sequential`` numbered with its activations.
      like: a source as of `from_torch`, whose names are to be written, without a
        prefix common to all.

    Returns:
      A dict of ``torch.Tensor`` for ``load_state_dict``. The batches that a batch
      normalization has seen are counted where it is PyTorch's (``batch_norm="torch"``);
      else the number is 0.

    Raises:
      InputError: the architecture has no names for a layer of the model, or it is a
        residual network.
    """
    import torch

    networks = [getattr(model, part, None) for part in ("encoder", "decoder")]
    if isinstance(names, str):
        for network in networks:
            if isinstance(network, ResNetEncoder | ResNetDecoder):
                raise InputError(
                    "names must be left out for a residual network, which no "
                    f"architecture has, got {names}"
                )
    if any(_pads_unequally(network, data_shape[:-1]) for network in networks):
        print_note(
            [
                "padding SAME adds one row more below than above, which nn.Conv2d does "
                "not: pad there by torch.nn.functional.pad, or train with padding=1"
            ]
        )
    layers, _ = find_layers(model, data_shape)
    if like is not None:
        weights = read_weights(like)
        torch_names, _ = match_names(names, layers, weights, tuple(data_shape))
    else:
        torch_names = find_names(names, layers, None)
    tensors: dict[str, torch.Tensor] = {}
    for path, leaf in _leaves(variables).items():
        layer, name = _owner(path, layers)
        value = np.asarray(leaf)
        if layer is not None and name == "kernel":
            value = _kernel_to_torch(value, layer)
        elif layer is not None and layer.unflattened and value.ndim == 1:
            value = _pixels_first(value, layer.unflattened)
        targets = _torch_names(path, layer, torch_names)
        parts = np.split(value, len(targets)) if len(targets) > 1 else [value]
        for target, part in zip(targets, parts, strict=True):
            tensors[target] = torch.from_numpy(np.array(part))
            if name == "count":
                tensors[target] = tensors[target].long()  # as in PyTorch
            elif name == "mean":
                counter = target.replace(STATISTICS["mean"], COUNTER)
                tensors.setdefault(counter, torch.tensor(0))
    return tensors


def _pads_unequally(network: object, size: tuple[int, ...]) -> bool:
    """Whether a convolution's padding is another one before than behind an axis."""
    if not isinstance(network, ConvEncoder | ConvDecoder):
        return False
    stages, n = len(network.filters), len(size)
    fields = (network.kernel_size, network.strides)
    kernels, strides = (per_stage("stages", field, stages) for field in fields)
    paddings = per_stage("padding", network.padding, stages)
    order = 1 if isinstance(network, ConvEncoder) else -1
    for k, s, p in list(zip(kernels, strides, paddings, strict=True))[::order]:
        window = make_window(size, (k,) * n, (s,) * n, p)
        if any(before != behind for before, behind in window.pads):
            return True
        size = window.output_size[:n]
    return False


def _leaves(variables: VariableDict) -> dict[tuple[str, ...], jax.Array]:
    return flax.traverse_util.flatten_dict(dict(variables))


def _owner(path: tuple[str, ...], layers: list[Layer]) -> tuple[Layer | None, str]:
    """The layer that a variable belongs to, and the variable's name in it."""
    for layer in layers:
        if path[1:-1] == layer.path:
            return layer, path[-1]
    return None, path[-1]


def _torch_names(
    path: tuple[str, ...], layer: Layer | None, torch_names: Names
) -> list[str]:
    if layer is None:
        return [".".join(path[1:])]
    name = {"kernel": "weight", "scale": "weight"}.get(path[-1], path[-1])
    if path[0] == "batch_stats":
        name = STATISTICS[path[-1]]
    return [f"{prefix}.{name}" for prefix in torch_names[layer.path]]


def _torch_shapes(
    layers: list[Layer], torch_names: Names, shapes: VariableDict
) -> dict[str, tuple[int, ...]]:
    """The required shape of each of PyTorch's tensors."""
    expected = {}
    for path, leaf in _leaves(shapes).items():
        layer, name = _owner(path, layers)
        shape = leaf.shape
        if layer is not None and name == "kernel":
            shape = _kernel_to_torch(np.empty(shape, np.bool_), layer).shape
        targets = _torch_names(path, layer, torch_names)
        for target in targets:
            if len(targets) > 1:
                expected[target] = (shape[0] // len(targets), *shape[1:])
            else:
                expected[target] = shape
    return expected


def _check_shapes(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    found = {n: t.shape for n, t in tensors.items() if not n.endswith(COUNTER)}
    expected = {n: shape for n, shape in expected.items() if not n.endswith(COUNTER)}
    missing = [f"{n} {expected[n]}" for n in expected if n not in found]
    surplus = [f"{n} {found[n]}" for n in found if n not in expected]
    misshapen = [
        f"{n} {found[n]} in place of {expected[n]}"
        for n in expected
        if n in found and found[n] != expected[n]
    ]
    problems = [
        f"{kind}: {', '.join(listed)}"
        for kind, listed in (
            ("missing", missing),
            ("surplus", surplus),
            ("of another shape", misshapen),
        )
        if listed
    ]
    if problems:
        raise InputError(f"the tensors must be the model's; {'; '.join(problems)}")


def _kernel_from_torch(weight: np.ndarray, layer: Layer) -> np.ndarray:
    if layer.kind == "conv":
        return np.moveaxis(weight, (0, 1), (-1, -2))  # (kh, kw, I, O)
    if layer.kind == "conv_transpose":
        axes = tuple(range(weight.ndim - 2))
        return np.flip(np.moveaxis(weight, (0, 1), (-2, -1)), axes)  # (kh, kw, I, O)
    if layer.unflattened:
        weight = _pixels_last(weight, layer.unflattened)
    kernel = weight.T  # (inputs, outputs)
    return _pixels_last(kernel, layer.flattened) if layer.flattened else kernel


def _kernel_to_torch(kernel: np.ndarray, layer: Layer) -> np.ndarray:
    if layer.kind == "conv":
        return np.moveaxis(kernel, (-1, -2), (0, 1))  # (O, I, kh, kw)
    if layer.kind == "conv_transpose":
        axes = tuple(range(kernel.ndim - 2))
        return np.moveaxis(np.flip(kernel, axes), (-2, -1), (0, 1))  # (I, O, kh, kw)
    if layer.flattened:
        kernel = _pixels_first(kernel, layer.flattened)
    weight = kernel.T  # (outputs, inputs)
    return _pixels_first(weight, layer.unflattened) if layer.unflattened else weight


def _pixels_last(x: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """Reorders rows from (C, H, W) to (H, W, C); ``image`` is (H, W, C) or (T, C)."""
    *places, C = image
    rest = x.shape[1:]
    x = x.reshape(C, *places, *rest)
    return np.moveaxis(x, 0, len(places)).reshape(math.prod(image), *rest)


def _pixels_first(x: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_pixels_last`."""
    rest = x.shape[1:]
    x = np.moveaxis(x.reshape(*image, *rest), len(image) - 1, 0)
    return x.reshape(math.prod(image), *rest)
