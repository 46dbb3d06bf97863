"""Damaged files: whatever is in them, a reader reads or raises `InputError`."""

import gzip
import resource
import time

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.io

from flaxvae.checks import InputError
from flaxvae.data import load
from flaxvae.data.binarized_mnist import read_amat
from flaxvae.data.idx import read_idx

FEW, MANY = 15, 1000  # damaged files for each reader; the latter in all 11,000
CPU_SECONDS, MEGABYTES = 1.0, 500  # that one file may take

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 3


def idx_bytes():
    sizes = b"".join(n.to_bytes(4, "big") for n in X.shape)
    return bytes([0, 0, 8, 3]) + sizes + X.tobytes()


def amat_bytes():
    return "\n".join(" ".join("01"[v % 2] for v in range(784)) for _ in "ab").encode()


def write_table(path):
    table = pyarrow.table({"a": [1.5, 2.0, None] * 9, "b": ["x", "y", "z"] * 9})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)


def read_table(path):
    return load(path, categorical=["b"], impute="mean")


def write_image(path):
    path.parent.mkdir()
    PIL.Image.fromarray(X[0]).save(path)
    PIL.Image.fromarray(X[1]).save(path.with_name("other.png"))


def read_folder(path):
    return load(path.parent, test_size=0, validation_size=0)


READERS = {
    "a.idx": (lambda p: p.write_bytes(idx_bytes()), lambda p: read_idx(p, 3)),
    "a.idx.gz": (
        lambda p: p.write_bytes(gzip.compress(idx_bytes())),
        lambda p: read_idx(p, 3),
    ),
    "a.amat": (lambda p: p.write_bytes(amat_bytes()), lambda p: read_amat(p, 2)),
    "a.amat.gz": (
        lambda p: p.write_bytes(gzip.compress(amat_bytes())),
        lambda p: read_amat(p, 2),
    ),
    "a.npy": (lambda p: np.save(p, X), load),
    "a.npz": (lambda p: np.savez_compressed(p, x=X, y=LABELS), load),
    "a.mat": (lambda p: scipy.io.savemat(p, {"X": X, "y": LABELS[:, None]}), load),
    "a.csv": (write_table, read_table),
    "a.parquet": (write_table, read_table),
    "images/a.png": (write_image, read_folder),
    "images/a.jpg": (write_image, read_folder),
}


def damage(content, rng):
    """Flips, cuts, inserts, repeats or blanks a few bytes."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(data) + 1))
        length = int(rng.integers(1, 1 + max(1, len(data) // 8)))
        match rng.integers(0, 6):
            case 0:
                if place < len(data):
                    data[place] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del data[place:]
            case 2:
                data[place:place] = rng.bytes(min(length, 64))
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 5:
                if place < len(data):
                    data[place] = int(rng.integers(0, 256))
    return bytes(data)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_only_input_errors_come_out_of_damaged_files(name, count, tmp_path):
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    read(path)
    rng = np.random.default_rng(1)
    refused = 0
    # A .mat file is read by a process of its own: half a second each.
    for i in range(count if name != "a.mat" else count // 10):
        damaged = damage(content, rng)
        path.write_bytes(damaged)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error), (i, str(error))
        except Exception as error:
            (tmp_path / "culprit").write_bytes(damaged)
            raise AssertionError(f"{tmp_path}/culprit, number {i}") from error
        assert time.process_time() - began < CPU_SECONDS, i
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MEGABYTES * 1024, i
    assert refused > count // 40
