"""Whatever holds numbers as a NumPy array: tensors, sparse matrices, objects."""

import numbers
from typing import Protocol, TypeGuard

import numpy as np

from flaxvae.checks import InputError

MAX_DENSE_BYTES = 2**30  # of a sparse matrix, once its zeros are stored
NUMBERS, TEXT = "buif", "UST"  # NumPy's kinds


def as_array(values: object, name: str) -> np.ndarray:
    """Any array, tensor, or list of equally long lists, as a NumPy array.

    Tensors of PyTorch are detached and copied to the host; entries that are masked or
    None become NaN; sparse matrices are stored with their zeros; fields of a structured
    array become columns.

    Raises:
      InputError: lists of different lengths, arrays that cannot be read, a sparse
        matrix of more than `MAX_DENSE_BYTES`.
    """
    if _is_sparse(values):
        return _densify(values, name)
    try:
        array = np.asanyarray(_detach(values))
    except Exception as error:  # ragged lists, arrays of other libraries and devices
        reason = str(error).partition("\n")[0].partition(". The detected")[0]
        raise InputError(f"{name} must be an array of numbers: {reason}") from error
    if isinstance(array, np.ma.MaskedArray):
        array = _fill_masked(array, name)
    if isinstance(array, np.matrix):  # its sums and slices keep two axes
        array = np.asarray(array)
    if array.dtype.names is not None:
        array = _join_fields(array, name)
    if array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat", "float")):
        array = array.astype(np.float32)  # bfloat16 and float8 of JAX
    if array.dtype.kind == "V" and array.dtype.name.startswith(("int", "uint")):
        array = array.astype(np.int8 if array.dtype.name[0] == "i" else np.uint8)
    return _open_objects(array, name) if array.dtype.kind == "O" else array


class _Sparse(Protocol):
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def toarray(self) -> np.ndarray: ...


def _is_sparse(values: object) -> TypeGuard[_Sparse]:
    return hasattr(values, "toarray") and hasattr(values, "nnz")


def _detach(values: object) -> object:
    """Tensors of PyTorch, alone or in a list, as what NumPy reads."""
    if isinstance(values, list | tuple):
        if not any(hasattr(value, "detach") for value in values):
            return values
        return [_detach(value) for value in values]
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    if getattr(tensor, "is_sparse", False):
        tensor = tensor.to_dense()
    return tensor.float() if "bfloat16" in str(tensor.dtype) else tensor


def _densify(matrix: _Sparse, name: str) -> np.ndarray:
    size = int(np.prod(matrix.shape)) * np.dtype(matrix.dtype).itemsize
    if size > MAX_DENSE_BYTES:
        raise InputError(
            f"{name} must be a dense array, and the sparse matrix of shape "
            f"{tuple(matrix.shape)} would take {size / 1e9:.1f} GB: select columns"
        )
    return np.asarray(matrix.toarray())


def _fill_masked(array: np.ma.MaskedArray, name: str) -> np.ndarray:
    """Missing entries as NaN; rows only, since pixels cannot be missing."""
    missing = int(np.ma.count_masked(array))
    if missing and (array.ndim != 2 or array.dtype.kind not in NUMBERS):
        raise InputError(
            f"{name} must have no masked entries, other than in rows of numbers, got "
            f"{missing}"
        )
    if not missing:
        return np.asarray(array.data)
    return np.where(np.ma.getmaskarray(array), np.nan, array.data)


def _join_fields(array: np.ndarray, name: str) -> np.ndarray:
    """A structured array ``(N,)`` as rows ``(N, F)``."""
    fields = {field: array.dtype[field] for field in array.dtype.names or ()}
    bad = [f for f, kind in fields.items() if kind.kind not in NUMBERS or kind.shape]
    if array.ndim != 1 or bad or not fields:
        raise InputError(
            f"{name} must hold numbers, got a structured array with the fields "
            f"{', '.join(fields)}{'' if array.ndim == 1 else f' {array.shape}'}"
            f"{f', where {bad[0]} holds {fields[bad[0]]}' if bad else ''}"
        )
    return np.stack([array[field].astype(np.float64) for field in fields], axis=1)


def _open_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Numbers, or arrays of one shape, that are stored as Python objects."""
    values = array.ravel().tolist()
    if not values:
        return array
    if all(
        value is None or isinstance(value, numbers.Real) or type(value).__name__ == "NA"
        for value in values
    ):
        if array.ndim < 2:
            return array  # labels: None is said to be missing
        known = [float("nan") if _is_missing(value) else value for value in values]
        try:
            return np.array(known, np.float64).reshape(array.shape)
        except (OverflowError, TypeError, ValueError):
            return array
    if array.ndim == 1 and all(
        isinstance(value, list | tuple) or hasattr(value, "__array__")
        for value in values
    ):
        parts = [as_array(value, name) for value in values]
        shapes = sorted({part.shape for part in parts})
        if len(shapes) > 1:
            raise InputError(
                f"{name} must hold examples of one shape, got {shapes[0]} and "
                f"{shapes[1]}"
            )
        return np.stack(parts)
    return array


def _is_missing(value: object) -> bool:
    return not isinstance(value, numbers.Real)
