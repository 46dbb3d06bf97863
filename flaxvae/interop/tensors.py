"""The tensors of a PyTorch program as arrays, from any place where they are kept."""

import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, check_choice, list_names, show
from flaxvae.interop.files import Inert, read_file
from flaxvae.training import NonFiniteError

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, object]  # among other entries

# Entries of checkpoints that hold a model's tensors, the first that is there.
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "module")
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
COUNTERS = ("num_batches_tracked", "n_averaged")  # of batch normalizations, of averages
DEPTH = 3  # levels of a checkpoint that are searched


@dataclass(frozen=True)
class Weights:
    """The tensors of a program.

    Attributes:
      tensors: arrays of float32 (integers and Booleans as they were) by name, without
        the prefix.
      prefix: what all names began with, such as ``"module."``.
      notes: what was assumed: the entry of a checkpoint, the prefix, what was left out.
      modules: of a module, its submodules without weights, such as activations.
      convolutions: of a module, those in it by name.
    """

    tensors: dict[str, np.ndarray]
    prefix: str = ""
    notes: tuple[str, ...] = ()
    modules: "tuple[torch.nn.Module, ...]" = ()
    convolutions: "Mapping[str, torch.nn.Module]" = field(default_factory=dict)

    def shorten(self, name: str) -> str:
        """A name as the program prints it, without wrappers and prefix."""
        return _without_wrappers(name).removeprefix(self.prefix)


def read_weights(source: object, entry: str | None = None) -> Weights:
    """Reads the tensors of a program.

    Args:
      source: the path of a checkpoint; a module; a dict of tensors or arrays by name;
        or a dict with such a dict in it.
      entry: the entry of a checkpoint that holds the tensors, such as ``"ema"``.

    Raises:
      InputError: the source cannot be read or holds no tensors, or several entries fit.
      NonFiniteError: one of the numbers is NaN or infinite.
    """
    if isinstance(source, Weights):
        return source
    modules: list[torch.nn.Module] = []
    convolutions: dict[str, torch.nn.Module] = {}
    content: object
    if isinstance(source, str | os.PathLike):
        content, place = read_file(Path(source).expanduser()), repr(str(source))
    elif _is_module(source):
        content, place = source.state_dict(), f"the module {type(source).__name__}"
        modules = [
            m
            for m in source.modules()
            if not m.state_dict() or "Norm" in type(m).__name__
        ]
        convolutions = {
            name: m
            for name, m in source.named_modules()
            if type(m).__name__.startswith("Conv") and hasattr(m, "stride")
        }
    elif isinstance(source, Mapping):
        content, place = source, "a dict"
    else:
        raise InputError(
            "weights must be a path, a PyTorch module or a dict of tensors, got "
            f"{show(source)}"
        )
    state_dict, notes = _unwrap(content, entry, place)
    arrays = {
        name: _as_array(name, value)
        for name, value in state_dict.items()
        if isinstance(name, str) and _is_array(value)
    }
    if left_out := [name for name in state_dict if name not in arrays]:
        notes.append(f"left out what is not a tensor: {list_names(left_out, 5)}")
    prefix = _common_prefix(map(_without_wrappers, arrays))
    if whole := _common_prefix(arrays):
        notes.append(f"the prefix {whole!r} of all names left out")
    weights = Weights({}, prefix, tuple(notes), tuple(modules))
    named = {
        weights.shorten(name): value
        for name, value in arrays.items()
        if name not in COUNTERS
    }
    _check_finite(named)
    by_name = {weights.shorten(name): m for name, m in convolutions.items()}
    return replace(weights, tensors=named, convolutions=by_name)


def print_note(notes: Iterable[str]) -> None:
    """Prints what was assumed about weights, on one line."""
    if notes := list(notes):
        print(f"NOTE: {'; '.join(notes)}", file=sys.stderr)


def _is_module(value: object) -> "TypeGuard[torch.nn.Module]":
    torch = sys.modules.get("torch")  # a module cannot be there without it
    return torch is not None and isinstance(value, torch.nn.Module)


def _is_tensor(value: object) -> "TypeGuard[torch.Tensor]":
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_array(value: object) -> TypeGuard[ArrayLike]:
    if _is_tensor(value):
        return True
    if isinstance(value, Mapping | str | bytes | Inert) or value is None:
        return False
    if isinstance(value, int | float | complex | np.generic):
        return False
    if isinstance(value, list | tuple):
        try:
            return bool(np.asarray(value).dtype.kind in "biuf")
        except ValueError:  # of several lengths
            return False
    return isinstance(value, np.ndarray) or hasattr(value, "__array__")


def _unwrap(
    content: object, entry: str | None, place: str
) -> tuple[Tensors, list[str]]:
    """The dict of tensors in a checkpoint, and what was assumed."""
    if _is_module(content):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        kind = "a tensor" if _is_array(content) else show(content)
        raise InputError(
            f"weights must be a dict of tensors by name, got {place}, which holds "
            f"{kind}: save it by torch.save(model.state_dict(), path)"
        )
    found = dict(_find_dicts(content))
    if entry is not None:
        if not found:
            raise InputError(
                f"entry must be left out for {place}, which has no entries of tensors"
            )
        check_choice("entry", entry, found)
        return found[entry], []
    if _holds_tensors(content) and _is_named(content):
        return content, []
    if len(found) == 1:
        ((name, state_dict),) = found.items()
        return state_dict, [f"tensors of the entry {name!r}"]
    if _holds_tensors(content) and not found:
        return content, []
    if not found:
        raise InputError(
            f"weights must hold tensors, got {place} with {list_names(content, 5)}: "
            "save it by torch.save(model.state_dict(), path)"
        )
    standard = [name for name in ENTRIES if name in found]
    if standard:
        others = [name for name in found if name != standard[0]]
        note = f"tensors of the entry {standard[0]!r}, not of {list_names(others, 5)}"
        return found[standard[0]], [note]
    parts = {name.split(".")[-1].lower()[:3] for name in found}
    if {"enc", "dec"} <= parts:
        joined = {
            f"{name}.{key}": value
            for name, state_dict in found.items()
            for key, value in state_dict.items()
        }
        return joined, [f"the entries {list_names(found, 5)} together"]
    raise InputError(
        f"entry must say which of the entries holds the weights, got {place} with "
        f"{', '.join(found)}"
    )


def _find_dicts(
    content: Mapping[object, object], depth: int = DEPTH
) -> Iterator[tuple[str, Tensors]]:
    """Pairs of a name and a dict of tensors, of all dicts within a checkpoint."""
    for name, value in content.items():
        if _is_module(value):
            value = value.state_dict()
        if not isinstance(name, str) or not isinstance(value, Mapping):
            continue
        if name.lower().startswith(("optim", "sched", "lr_sched")):
            continue
        if _holds_tensors(value):
            yield name, value
        elif depth > 1:
            for inner, tensors in _find_dicts(value, depth - 1):
                yield f"{name}.{inner}", tensors


def _holds_tensors(content: Mapping[object, object]) -> bool:
    """Whether some of the values are tensors with axes, all under names."""
    return all(isinstance(name, str) for name in content) and any(
        _is_array(value) and np.ndim(value) > 0 for value in content.values()
    )


def _is_named(content: Mapping[object, object]) -> bool:
    """Whether names are those of a module's tensors, ``layer.weight``."""
    return any(str(name).endswith((".weight", ".bias")) for name in content)


def _as_array(name: str, value: ArrayLike) -> np.ndarray:
    """Any tensor, also sparse, quantized or on an accelerator, as an array."""
    if _is_tensor(value):
        value = _dense(name, value)
    array = np.asarray(value)
    if array.dtype.kind == "c":
        raise InputError(f"weights must be real numbers, got complex ones in {name}")
    if array.dtype.kind in "biu":
        return array
    if array.dtype.kind in "OSUMm":
        raise InputError(f"weights must be numbers, got {array.dtype} in {name}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _dense(name: str, tensor: "torch.Tensor") -> np.ndarray:
    try:
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if str(tensor.layout) != "torch.strided":
            tensor = tensor.to_dense()
        tensor = tensor.resolve_conj().resolve_neg().cpu()
        if tensor.is_complex():
            raise InputError(
                f"weights must be real numbers, got complex ones in {name}"
            )
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"weights must be tensors with values, got {name} "
            f"({type(tensor).__name__} on {tensor.device})"
        ) from error


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _common_prefix(tensors: Iterable[str]) -> str:
    """The parts with which all names of layers begin, such as ``module.model.``."""
    names = [name.split(".")[:-2] for name in tensors if name not in COUNTERS]
    common = itertools.takewhile(
        lambda parts: len(set(parts)) == 1, zip(*names, strict=False)
    )
    return "".join(f"{parts[0]}." for parts in common)


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    bad = {n: int((~np.isfinite(t)).sum()) for n, t in tensors.items()}
    bad = {name: count for name, count in bad.items() if count}
    if bad:
        name, count = next(iter(bad.items()))
        total = math.prod(tensors[name].shape)
        more = f", and {len(bad) - 1} more of the tensors" if len(bad) > 1 else ""
        raise NonFiniteError(
            f"the weights are not finite: {count:,} of {total:,} numbers in {name}"
            f"{more}"
        )
