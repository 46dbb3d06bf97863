"""Arrays from files: what is read, how it is interpreted, what is refused."""

import io
import pickle

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from flaxvae.checks import InputError
from flaxvae.data import load

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4


def save(path, **arrays):
    if path.suffix == ".npy":
        np.save(path, arrays["x"])
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"X": arrays["x"], "y": arrays["y"][:, None]})
    else:
        np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_every_file_format_gives_the_same_images(tmp_path, suffix):
    dataset = load(save(tmp_path / f"mine{suffix}", x=GREY, y=LABELS))
    assert dataset.name == "mine"
    assert dataset.shape == (6, 5, 1)
    assert dataset.preprocessing.max_value == 255
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [34, 2, 4]
    every = np.concatenate([split.x for split in splits])
    assert sorted(map(bytes, every)) == sorted(map(bytes, GREY[..., None]))
    if suffix != ".npy":
        assert dataset.class_names == ("0", "1", "2", "3")
        of = {bytes(x): y for x, y in zip(GREY, LABELS, strict=True)}
        for split in splits:
            for x, label in zip(split.x, split.labels, strict=True):
                assert of[bytes(x)] == label


def test_splits_depend_on_the_seed_and_hold_each_class(tmp_path):
    path = save(tmp_path / "a.npz", x=GREY, y=np.sort(LABELS))
    first, again, other = (load(path, split_seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.x, other.test.x)
    assert sorted(first.test.labels) == [0, 1, 2, 3]


def test_splits_in_a_file_are_kept(tmp_path):
    path = save(
        tmp_path / "a.npz",
        train_images=GREY[:20],
        train_labels=LABELS[:20],
        val_images=GREY[20:25],
        val_labels=LABELS[20:25],
        test_images=GREY[25:],
        test_labels=LABELS[25:],
    )
    dataset = load(path)
    np.testing.assert_array_equal(dataset.train.x[..., 0], GREY[:20])
    np.testing.assert_array_equal(dataset.validation.x[..., 0], GREY[20:25])
    np.testing.assert_array_equal(dataset.test.labels, LABELS[25:])


@pytest.mark.parametrize(
    ("x", "max_value", "dtype"),
    [
        (GREY > 100, 1, np.uint8),
        ((GREY > 100).astype(np.int64), 1, np.uint8),
        (GREY.astype(np.int32), 255, np.uint8),
        (GREY.astype(np.int32) * 200, 65535, np.uint16),
        (GREY / 255.0, 1, np.float32),
    ],
)
def test_the_type_says_which_integer_means_one(tmp_path, x, max_value, dtype):
    dataset = load(save(tmp_path / "a.npy", x=x))
    assert dataset.preprocessing.max_value == max_value
    assert dataset.train.x.dtype == dtype


def test_text_labels_are_named_classes(tmp_path):
    names = np.array(["cat", "dog"])[LABELS % 2]
    dataset = load(save(tmp_path / "a.npz", images=GREY, labels=names))
    assert dataset.class_names == ("cat", "dog")


def test_rows_are_standardized_by_the_training_split(tmp_path):
    x = RNG.normal(5.0, [1.0, 10.0, 0.0], (200, 3))
    x[:, 2] = x[:, 0] > 5  # zeros and ones stay
    dataset = load(save(tmp_path / "a.npy", x=x))
    assert dataset.shape == (3,)
    seen = dataset.preprocessing.prepare(dataset.train.x)
    np.testing.assert_allclose(np.mean(seen[:, :2], 0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(seen[:, :2], 0), 1, rtol=1e-5)
    np.testing.assert_array_equal(seen[:, 2], dataset.train.x[:, 2])
    back = dataset.preprocessing.inverse(seen)
    np.testing.assert_allclose(back, dataset.train.x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", {"x": np.array([{}, []], object)}, "Python objects"),
        ("a.npy", {"x": np.array(["a", "b"])}, "must hold numbers, got <U1"),
        ("a.npy", {"x": GREY + 1j}, "must hold numbers, got complex128"),
        ("a.npy", {"x": GREY[0, 0]}, "images .* or rows .*, got the shape"),
        ("a.npy", {"x": GREY[:0]}, r"must hold an example, got the shape \(0, 6, 5\)"),
        ("a.npy", {"x": np.zeros((9, 3, 8, 8))}, r"transpose \(N, C, H, W\)"),
        ("a.npy", {"x": GREY.astype(int) - 300}, "0 to 255, or to 65535, got -"),
        ("a.npz", {"q": GREY, "r": GREY}, "array named x, .*, got q, r"),
        (
            "a.npz",
            {"x": GREY, "y": LABELS[1:]},
            "train labels of .* must be one for each of 40, got 39",
        ),
        (
            "a.npz",
            {"x": GREY, "y": np.ones((40, 2))},
            "one number or text for each example",
        ),
        (
            "a.npz",
            {"x": GREY, "x_test": GREY[:, 1:]},
            r"x of test of .* must have the type and shape of the training examples",
        ),
        (
            "a.npz",
            {"x": GREY, "y": LABELS, "x_test": GREY},
            "labels for test too, or for no split",
        ),
        ("a.mat", {"x": GREY[:0], "y": LABELS}, "must hold an example"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as error:
        load(save(tmp_path / name, **content))
    assert "\n" not in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_pickles_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([Trap()], object))
    with pytest.raises(InputError, match="holds Python objects, which are not read"):
        load(path)


@pytest.mark.parametrize("name", ["A.NPY", "A.NPZ", "A.MAT", "a.Npz"])
def test_suffixes_in_any_case(tmp_path, name):
    path = tmp_path / name
    plain = save(tmp_path / f"plain{path.suffix.lower()}", x=GREY, y=LABELS)
    plain.rename(path)
    dataset = load(path, test_size=0, validation_size=0)
    np.testing.assert_array_equal(dataset.train.x[..., 0], GREY)
    assert dataset.notes == ()


def as_bytes(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


NPY = as_bytes(lambda file: np.save(file, GREY))
NPZ = as_bytes(lambda file: np.savez(file, x=GREY))
MAT = as_bytes(lambda file: scipy.io.savemat(file, {"x": GREY}))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.npy", NPZ, ".npz"),
        ("a.npz", NPY, ".npy"),
        ("a", NPY, ".npy"),
        ("a.bin", NPZ, ".npz"),
        ("a.csv", MAT, ".mat"),
    ],
)
def test_a_wrong_suffix_is_noted(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    dataset = load(tmp_path / name, test_size=0, validation_size=0)
    np.testing.assert_array_equal(dataset.train.x[..., 0], GREY)
    assert dataset.notes == (
        f"{name} is read as {kind}, which it is by its first bytes",
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.npy", b"", "cannot be read: it is empty"),
        ("a.npy", pickle.dumps([1]), "cannot be read: it is pickled Python objects"),
        ("a.npz", b"\x89PNG\r\n", "cannot be read: it is a PNG image"),
        ("a.npy", b"<!DOCTYPE html>", "cannot be read: it is an HTML page"),
        ("a.npy", b"version https://git-lfs", "it is a pointer of Git LFS"),
        ("a.npy", b"\0\1\2", "it is of an unknown format"),
        ("a.mat", b"\x89HDF\r\n", "it is an HDF5 file"),
        ("a.csv", b"<html>", "it is an HTML page"),
        ("a.png", b"\x89PNG", "must be a folder of images or .*that is a PNG image"),
        ("a.doc", b"a b", "must be a folder of images or .*a file that is text"),
    ],
)
def test_first_bytes_give_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    if name == "a.csv":
        (tmp_path / name).write_bytes(content + b"\n1,2\n")
    with pytest.raises(InputError, match=reason) as error:
        load(tmp_path / name)
    assert "\n" not in str(error.value)


COLOURS = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "order"), [(GREY, "C"), (GREY, "F"), (COLOURS, "C"), (COLOURS, "F")]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_rows_are_shown_as_images(tmp_path, images, order, suffix):
    rows = np.stack([image.ravel(order) for image in images])
    path = save(tmp_path / f"a{suffix}", x=rows, y=LABELS)
    options = {"test_size": 0, "validation_size": 0, "image_order": order}
    dataset = load(path, image_shape=images.shape[1:], **options)
    expected = images.reshape(40, 6, 5, -1)
    np.testing.assert_array_equal(dataset.train.x, expected)
    assert dataset.levels == 256


def test_columns_of_a_table_are_shown_as_images(tmp_path):
    rows = GREY.reshape(40, 30)
    header = ",".join(["label", *(f"pixel{i}" for i in range(30))])
    table = np.column_stack([LABELS, rows])
    np.savetxt(
        tmp_path / "a.csv", table, "%d", delimiter=",", header=header, comments=""
    )
    options = {"label_column": "label", "test_size": 0, "validation_size": 0}
    dataset = load(tmp_path / "a.csv", image_shape=(6, 5), **options)
    np.testing.assert_array_equal(dataset.train.x[..., 0], GREY)
    np.testing.assert_array_equal(dataset.train.labels, LABELS)
    assert dataset.columns is None
    assert dataset.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (28, 28)}, r"rows of 28 x 28 = 784 numbers, or .*\(40, 64\)"),
        ({"image_shape": (2, 2, 2, 8)}, "height, width and perhaps channels"),
        ({"image_shape": (0, 8)}, "image_shape must be >= 1, got 0"),
        ({"image_order": "F"}, "image_order must be left out without image_shape"),
        ({"image_size": 8}, "image_size must be left out .*not a folder of images"),
    ],
)
def test_options_of_images_that_do_not_fit(tmp_path, options, message):
    path = save(tmp_path / "a.npy", x=np.zeros((40, 64), np.uint8))
    with pytest.raises(InputError, match=message):
        load(path, **options)
    assert "image_shape=8,8" in load(path).notes[0]


def test_missing_numbers_of_rows_are_filled(tmp_path):
    x = RNG.normal(size=(40, 3))
    x[::5, 1] = np.nan
    path = save(tmp_path / "a.npy", x=x)
    with pytest.raises(InputError, match="fill what is missing by impute=mean"):
        load(path)
    options = {"test_size": 0, "validation_size": 0, "standardized": False}
    filled = load(path, impute="median", **options).train.x
    np.testing.assert_allclose(filled[::5, 1], np.nanmedian(x[:, 1]), rtol=1e-6)
    with pytest.raises(InputError, match="impute must be left out"):
        load(save(tmp_path / "b.npy", x=GREY), impute="mean")


def test_sparse_matrices_of_matlab(tmp_path):
    x = scipy.sparse.random(40, 6, 0.3, "csc", rng=0)
    scipy.io.savemat(tmp_path / "a.mat", {"x": x})
    dataset = load(tmp_path / "a.mat", test_size=0, validation_size=0)
    np.testing.assert_allclose(dataset.train.x, x.toarray(), rtol=1e-6)
    huge = scipy.sparse.csc_matrix((10**6, 10**6))
    scipy.io.savemat(tmp_path / "a.mat", {"x": huge})
    with pytest.raises(InputError, match="x holds a sparse matrix too large"):
        load(tmp_path / "a.mat")
