"""Reading tensors from files without executing pickled code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaxvae.checks import InputError


def read_tensors(source: Mapping[str, Any] | str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict as NumPy arrays.

    Args:
      source: a dict of tensors or arrays, or the path of a ``.safetensors`` or
        ``.pt`` / ``.pth`` file; the latter is read with ``weights_only=True``.

    Raises:
      InputError: the file does not exist, or holds something else than tensors.
    """
    if isinstance(source, Mapping):
        return {name: _as_array(value) for name, value in source.items()}
    path = Path(source)
    readers = {".safetensors": _read_safetensors, ".pt": _read_pt, ".pth": _read_pt}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"weights must be a file that ends in {', '.join(readers)}, got "
            f"{str(source)!r}"
        )
    if not path.is_file():
        raise InputError(f"weights must be a file, got {str(source)!r}")
    try:
        tensors = readers[path.suffix.lower()](path)
        return {name: _as_array(value) for name, value in tensors.items()}
    except ImportError as error:
        raise InputError(
            f"{error.name} must be installed to read {path.name}: "
            'pip install -e ".[torch]"'
        ) from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights must be a state dict of tensors and nothing else, got "
            f"{str(source)!r} ({reason})"
        ) from error


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_pt(path: Path) -> Mapping[str, Any]:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _as_array(value: Any) -> np.ndarray:
    """Converts any tensor, also one with a gradient or on an accelerator."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float()
    return np.asarray(value)
