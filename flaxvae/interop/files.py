"""Weight files, recognized by their first bytes; no pickled code is executed."""

import contextlib
import io
import json
import math
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, cast

import ml_dtypes
import numpy as np

from flaxvae.checks import InputError

ADVICE = "save it by torch.save(model.state_dict(), path)"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before PyTorch 1.6
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # names of modules
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npz")  # customary
HEADER_LIMIT = 100_000_000  # bytes of a safetensors header, as in its specification
SAFETENSORS: dict[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
FOREIGN = {  # first bytes of files that hold something else: what they are
    b"\x89HDF": "an HDF5 file, as of Keras: only PyTorch's weights are read",
    b"\x93NUMPY": "a single array: save named arrays by numpy.savez",
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed by gzip: decompress it",
    b"BZh": "compressed by bzip2: decompress it",
    b"\xfd7zXZ": "compressed by xz: decompress it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: decompress it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
}


def read_file(path: Path) -> object:
    """What a weight file holds: a dict of tensors, or a checkpoint around one.

    Read are PyTorch's files, safetensors, NumPy's npz, and the index of a checkpoint in
    several such files; the name of the file does not matter.

    Raises:
      InputError: the file does not exist, is damaged or holds something else.
      OSError: it cannot be read.
    """
    if not path.is_file():
        kind = ""
        if path.is_dir():
            files = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
            kind = ", which is a folder" + (f": name {files[0]} in it" if files else "")
        raise InputError(f"weights must be a file, got {str(path)!r}{kind}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            return _read(file, start, path)
    except InputError as error:
        raise InputError(
            f"weights must be a state dict of tensors, got {str(path)!r} ({error})"
        ) from error


def _read(file: BinaryIO, start: bytes, path: Path) -> object:
    if not start:
        raise InputError("an empty file")
    for magic, kind in FOREIGN.items():
        if start.startswith(magic):
            raise InputError(kind)
    if start.startswith(b"PK"):
        return _read_zip(file, path.stat().st_size)
    if start.startswith(LEGACY):
        return _read_torch(file, _globals_of(file, 4))
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        raise InputError(f"a pickle, which is not read since it can run code: {ADVICE}")
    if start[257:262] == b"ustar":
        raise InputError("a tar archive: unpack it")
    (length,) = struct.unpack("<Q", start[:8].ljust(8, b"\xff"))
    if start[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        return _read_safetensors(file, length, path.stat().st_size)
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise InputError("a web page: download the file itself")
    if text.startswith((b"{", b"[")):
        return _read_index(file, path)
    if start[4:8] == b"TFL3":
        raise InputError("a TensorFlow Lite model: only PyTorch's weights are read")
    if start[:1] == b"\x08":  # the first field of these protocol buffers, a version
        raise InputError("an ONNX or TensorFlow model: only PyTorch's weights are read")
    raise InputError("neither a PyTorch nor a safetensors nor an npz file")


def _read_zip(file: BinaryIO, size: int) -> object:
    """A checkpoint of PyTorch, or NumPy's npz."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            damaged = archive.testzip() if size < 2**28 else None
            pickles = [n for n in names if n.split("/")[1:] == ["data.pkl"]]
            data = archive.read(pickles[0]) if len(pickles) == 1 else b""
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError("cut off or damaged: download or copy it again") from error
    if damaged is not None:
        raise InputError(f"damaged at {damaged}: download or copy it again")
    if any(n.endswith(("/constants.pkl", "/code/")) or "/code/" in n for n in names):
        raise InputError(
            "a TorchScript archive: load it by torch.jit.load and save its weights "
            "by torch.save(model.state_dict(), path)"
        )
    if data:
        return _read_torch(file, _globals_of(io.BytesIO(data), 1))
    if names and all(n.endswith(".npy") for n in names):
        return _read_npz(file)
    if "model.weights.h5" in names:
        raise InputError("a Keras model: only PyTorch's weights are read")
    raise InputError("a ZIP archive without a checkpoint in it")


def _read_npz(file: BinaryIO) -> dict[str, np.ndarray]:
    file.seek(0)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except ValueError as error:
        raise InputError(
            "an npz file with damaged arrays, or with Python objects, which are not "
            "read since they can run code"
        ) from error


def _read_safetensors(file: BinaryIO, length: int, size: int) -> dict[str, np.ndarray]:
    """Tensors by the header, a JSON object of types, shapes and places."""
    if length > min(HEADER_LIMIT, size - 8):
        raise InputError("a safetensors file that is cut off, or its header damaged")
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        data = file.read()
        return {name: _slice(entry, data) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f": {error.args[0]}" if isinstance(error, InputError) else ""
        raise InputError(
            f"a safetensors file whose header is damaged, or that is cut off{reason}"
        ) from error


class _Entry(TypedDict):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def _slice(entry: _Entry, data: bytes) -> np.ndarray:
    if entry["dtype"] not in SAFETENSORS:
        raise InputError(f"numbers of type {entry['dtype']}")
    dtype, shape = np.dtype(SAFETENSORS[entry["dtype"]]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    count = math.prod(shape)
    if not 0 <= start <= end <= len(data) or end - start != count * dtype.itemsize:
        raise InputError("a tensor that the file does not hold")
    return np.frombuffer(data, dtype, count, start).reshape(shape)


def _read_index(file: BinaryIO, path: Path) -> dict[str, object]:
    """The tensors of all files that ``*.index.json`` names, which lie beside it."""
    try:
        files = json.loads(file.read())["weight_map"]
        shards = sorted(set(files.values()))
        is_plain = all(Path(name).name == name for name in shards)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("a text file in JSON that names no weights") from error
    if not (is_plain and shards):
        raise InputError("an index of files that are not beside it")
    tensors: dict[str, object] = {}
    for name in shards:
        if path.with_name(name) == path or not path.with_name(name).is_file():
            raise InputError(f"an index of a file that is missing: {name}")
        tensors |= cast(dict[str, object], read_file(path.with_name(name)))
    return tensors


def _read_torch(file: BinaryIO, names: Iterable[str]) -> object:
    """A file of ``torch.save``; what is not a tensor or plain data becomes inert."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            'torch must be installed to read it: pip install -e ".[torch]"'
        ) from error

    def load(dicts: Iterable[str]) -> object:
        inert: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
            (_Dict if n in dicts else Inert, n) for n in names
        ]
        file.seek(0)
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")
            if inert:
                stack.enter_context(torch.serialization.safe_globals(inert))
            return torch.load(file, map_location="cpu", weights_only=True)

    try:
        try:
            content = load([name for name in names if "dict" in name.lower()])
        except pickle.UnpicklingError:  # entries were added to one of the others
            content = load([name for name in names if not name.startswith("numpy")])
    except Exception as error:  # of many kinds, with advice that is not ours
        kinds = [n for n in names if not n.startswith(("torch.", "collections."))]
        also = f"it holds {', '.join(kinds[:4])}; " if kinds else "damaged, or "
        raise InputError(
            f"{also}not a file of tensors and plain values: {ADVICE}"
        ) from error
    is_object = isinstance(content, OrderedDict) and "_modules" in vars(content)
    if isinstance(content, Inert) or is_object:
        raise InputError(f"a pickled object, such as a whole model: {ADVICE}")
    return content


def _globals_of(file: BinaryIO, pickles: int) -> list[str]:
    """The functions and classes that pickles in a row name; nothing is executed."""
    found: dict[str, None] = {}
    try:
        for _ in range(pickles):
            for code, value, _ in pickletools.genops(file):
                if code.name == "GLOBAL":
                    module, name = str(value).split(" ", 1)
                    found[f"{PYTHON_2.get(module, module)}.{name}"] = None
    except Exception as error:  # of many kinds
        raise InputError("cut off or damaged: download or copy it again") from error
    return list(found)


class Inert:
    """Stands for an object of a class that is not read: nothing is called."""

    def __new__(cls, *args: object) -> "Inert":
        """An object without content."""
        del args
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        """Ignores what the class would have been called with."""

    def __setstate__(self, state: object) -> None:
        """Ignores the content."""


class _Dict:
    """Stands for a dict of a class that is not read: a plain one."""

    def __new__(cls, *args: object) -> Any:
        """An empty dict, to which the entries are added."""
        return OrderedDict()
