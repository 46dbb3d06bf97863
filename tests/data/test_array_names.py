"""What the names of arrays and folders say."""

import numpy as np
import pytest
import scipy.io

from flaxvae.checks import InputError
from flaxvae.data import load
from flaxvae.data.array_names import choose_arrays, find_split, read_array_name

X = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)
Y = np.arange(40) % 4


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", ["train", "Training", "TRAIN"]),
        ("validation", ["val", "valid", "Validation", "dev", "DEV"]),
        ("test", ["test", "Testing"]),
        (None, ["tr", "plane", "trains", "tests", "evaluation", ""]),
    ],
)
def test_words_of_splits(split, words):
    assert {find_split(word) for word in words} == {split}


@pytest.mark.parametrize(
    ("names", "split", "role"),
    [
        ("x_train train_x trainX Xtrain X_tr train_data data_train", "train", "x"),
        ("train-images TrainingImages x.train", "train", "x"),
        ("x_dev X_valid validation_images val_data imagesVal", "validation", "x"),
        ("testdata X_te test_features x_test_images", "test", "x"),
        ("y_tr train_labels labels_train trainY training_targets", "train", "y"),
        ("val_labels y_dev validLabels", "validation", "y"),
        ("x images Data FEATURES", None, "x"),
        ("y Labels targets", None, "y"),
        ("train Test", ..., None),
    ],
)
def test_a_split_word_and_a_role_word_in_any_order(names, split, role):
    for name in names.split():
        meaning = read_array_name(name)
        assert meaning.role == role, name
        assert split in (..., meaning.split), name


@pytest.mark.parametrize(
    "name",
    [
        "classnames",
        "tr",
        "te",
        "x1",
        "x_2",
        "dataset",
        "metadata",
        "xy",
        "train_z",
        "fea",
    ],
)
def test_other_names_say_nothing(name):
    assert read_array_name(name) is None


def test_the_usual_name_is_chosen_and_the_explicit_split():
    assert choose_arrays(["data", "x", "X"])["train", "x"] == "x"
    chosen = choose_arrays(["x", "x_train", "x_test"])
    assert chosen == {("train", "x"): "x_train", ("test", "x"): "x_test"}
    assert choose_arrays(["x", "test"]) == {("train", "x"): "x"}
    assert ("test", "x") in choose_arrays(["train", "test", "train_labels"])


def sizes(dataset):
    return len(dataset.train), len(dataset.validation), len(dataset.test)


def save(path, arrays):
    if path.suffix == ".mat":
        scipy.io.savemat(path, arrays)
    else:
        np.savez(path, **arrays)
    return path


OBJECTS = np.array([{"a": 1}], object)


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_what_is_not_needed_is_left_out_in_one_note(tmp_path, suffix):
    arrays = {
        "classnames": np.array(["a", "bc"], object),
        "train_data": X[:20],
        "val_data": X[20:25],
        "testdata": X[25:],
        "y_tr": Y[:20, None],
        "val_labels": Y[20:25, None] + 0,
        "labels_test": Y[25:, None],
        "other": np.arange(3),
    }
    dataset = load(save(tmp_path / f"a{suffix}", arrays))
    assert sizes(dataset) == (20, 5, 15)
    np.testing.assert_array_equal(dataset.test.labels, Y[25:])
    (note,) = dataset.notes
    assert "train_data (train x)" in note
    assert "left out classnames (" in note and "other" in note


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"q": X, "meta": OBJECTS}, (34, 2, 4)),
        ({"fea": X, "gnd": Y}, (34, 2, 4)),
        ({"x_test": X, "y_test": Y}, (34, 2, 4)),
        ({"x": X, "y": np.array(["a", "b"] * 20, object)}, (34, 2, 4)),
        ({"x_val": X, "x_test": X}, "must hold an array named x, .*got x_test, x_val"),
        ({"x": OBJECTS, "y": Y}, "cannot be read: x holds Python objects"),
        ({"a": OBJECTS}, "cannot be read: a holds Python objects"),
        ({"y": Y, "labels": Y}, "must hold an array named x, .*got labels, y"),
        ({}, "got no array"),
    ],
)
def test_files_without_the_usual_names(tmp_path, arrays, found):
    path = save(tmp_path / "a.npz", arrays)
    if not isinstance(found, str):
        dataset = load(path)
        assert sizes(dataset) == found
        assert dataset.notes
        return
    with pytest.raises(InputError, match=found) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_matlab_counts_images_in_the_last_axis(tmp_path):
    x = np.moveaxis(np.stack([X] * 3, -1), 0, -1)  # (H, W, C, N)
    dataset = load(save(tmp_path / "a.mat", {"X": x, "y": Y[:, None]}), test_size=0)
    assert dataset.shape == (6, 5, 3)
    assert "last axis" in dataset.notes[0]
