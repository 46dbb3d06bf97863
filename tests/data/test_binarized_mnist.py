"""A small version of Larochelle's split."""

import gzip

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import binarized_mnist, load

SIZES = {"train": 6, "valid": 3, "test": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(binarized_mnist, "FILES", SIZES)
    rng = np.random.default_rng(0)
    for split, count in SIZES.items():
        rows = rng.integers(0, 2, (count, 784))
        text = "\n".join(" ".join(map(str, row)) for row in rows) + "\n"
        path = tmp_path / "a" / f"binarized_mnist_{split}.amat"
        path.parent.mkdir(exist_ok=True)
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
        np.save(tmp_path / f"{split}.npy", rows)
    return tmp_path / "a"


def test_the_three_splits_are_the_files(folder):
    dataset = load("binarized_mnist", data_dir=folder)
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        x = getattr(dataset, split).x
        rows = np.load(folder.parent / f"{name}.npy")
        np.testing.assert_array_equal(x.reshape(-1, 784), rows)
    assert dataset.levels == 2
    assert dataset.preprocessing.max_value == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 1 0\n", "must hold 2 lines of 784 zeros and ones, got 3 characters"),
        (b"0 2 " * 784 + b"\n", "zeros and ones"),
        (gzip.compress(b"0 1 " * 784, mtime=0)[:20], "damaged gzip file"),
    ],
    ids=["short", "other digits", "cut"],
)
def test_damaged_files_are_refused(folder, content, message):
    (folder / "binarized_mnist_test.amat.gz").unlink()
    (folder / "binarized_mnist_test.amat").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load("binarized_mnist", data_dir=folder)


def test_without_a_folder_it_says_what_is_missing(folder, tmp_path):
    with pytest.raises(InputError, match="can no longer be downloaded, got None"):
        load("binarized_mnist")
    (folder / "binarized_mnist_valid.amat.gz").unlink()
    with pytest.raises(InputError, match=r"without binarized_mnist_valid\.amat"):
        load("binarized_mnist", data_dir=folder)


def test_other_names_of_splits(folder):
    for old, new in (("valid.amat.gz", "VAL.AMAT.GZ"), ("train.amat", "training.amat")):
        for path in folder.glob(f"*{old}*"):
            path.rename(folder / path.name.replace(old, new))
    dataset = load("binarized_mnist", data_dir=folder)
    assert (len(dataset.train), len(dataset.validation)) == (6, 3)
