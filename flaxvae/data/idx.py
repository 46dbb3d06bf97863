"""The IDX format of MNIST and its relatives."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from flaxvae.checks import InputError

UNSIGNED_BYTE = 0x08  # the only element type that image data sets use
MAX_BYTES = 1 << 30  # no image data set in IDX format is larger


def read_idx(path: Path, ndim: int, md5: str | None = None) -> np.ndarray:
    """Reads an array of bytes from an IDX file, gzipped or not.

    The format is two zero bytes, the element type, the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the elements.

    Args:
      path: the file; it is decompressed if it begins like a gzip file.
      ndim: number of dimensions expected: 3 for images, 1 for labels.
      md5: expected checksum of the decompressed file, hexadecimal, or None.

    Returns:
      A uint8 array.

    Raises:
      InputError: the file is unreadable, truncated, too long, of another type, or has
        another checksum.
    """
    content = _read_bytes(path)
    if len(content) < 4:
        raise InputError(
            f"{path} is truncated: {len(content)} bytes are not an IDX file"
        )
    magic = bytes([0, 0, UNSIGNED_BYTE, ndim])
    if content[:4] != magic:
        raise InputError(
            f"{path} is not an IDX file of {ndim}-dimensional bytes: it begins with "
            f"{content[:4].hex()}, expected {magic.hex()}"
        )
    header = 4 + 4 * ndim
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        raise InputError(
            f"{path} must hold {header + math.prod(shape)} bytes for shape "
            f"{tuple(shape)}, got {len(content)}"
        )
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise InputError(f"{path} must have the MD5 checksum {md5}, got {found}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path} must hold at most {MAX_BYTES} bytes, got more")
    return content
