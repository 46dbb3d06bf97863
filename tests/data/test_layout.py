"""What the axes of arrays mean: series beside images and rows."""

import warnings

import numpy as np
import pandas
import pytest
import scipy.io

from flaxvae.checks import InputError
from flaxvae.data import DataConfig, binarize, from_arrays, load
from flaxvae.data import rows as rows_module
from flaxvae.data.layout import choose_layout
from flaxvae.data.rows import Rows

RNG = np.random.default_rng(0)


def unit(*shape):
    return RNG.random((12, *shape))


def real(*shape):
    return RNG.normal(5, 3, (12, *shape))


@pytest.mark.parametrize(
    ("x", "layout", "shape"),
    [
        (real(600, 1), None, (600, 1)),
        (unit(600, 1), None, (600, 1)),
        (real(2000, 2), None, (2000, 2)),
        (unit(100, 6), None, (100, 6)),
        (real(30, 14), None, (30, 14)),  # no image: values beyond [0, 1]
        (unit(30, 14), None, (30, 14, 1)),
        (unit(28, 28), None, (28, 28, 1)),
        (unit(8, 8), None, (8, 8, 1)),
        (unit(64, 64), None, (64, 64, 1)),
        (unit(600, 1), "images", (600, 1, 1)),
        ((255 * unit(600, 1)).astype(np.uint8), None, (600, 1, 1)),
        ((255 * unit(600, 1)).astype(np.uint8), "series", (600, 1)),
        ((9 * real(8, 8)).astype(np.int64), "series", (8, 8)),
        (real(28, 28), "series", (28, 28)),
        (real(50), "series", (50, 1)),
        (real(50), "rows", (50,)),
        (real(50), None, (50,)),
    ],
)
def test_layouts_are_guessed_or_stated(x, layout, shape):
    dataset = from_arrays(x, layout=layout, test=x)
    assert dataset.shape == shape
    assert dataset.layout == {1: "rows", 2: "series", 3: "images"}[len(shape)]
    is_guess = layout is None and len(shape) == 2
    assert len(dataset.notes) == is_guess
    if is_guess:
        assert "choose layout=images" in dataset.notes[0]
    if dataset.layout == "series":
        assert dataset.levels is None and dataset.train.x.dtype == np.float32
        np.testing.assert_allclose(
            dataset.test.x, x.reshape(12, *shape).astype(np.float32)
        )


@pytest.mark.parametrize(
    ("x", "choices", "message"),
    [
        (real(28, 28), {}, "floats in 0 to 1, got .*choose layout=series"),
        (real(1, 600), {}, r"layout=series, after transposing \(N, F, T\) by \(0, 2"),
        (
            (9 * real(8, 8)).astype(int) - 90,
            {},
            "0 to 255, or to 65535, got -.*choose layout=series",
        ),
        (real(50), {"layout": "images"}, "must be images .* for layout=images, got"),
        (real(50, 2), {"layout": "rows"}, r"must be rows \(N, F\) for layout=rows"),
        (unit(8, 8, 1), {"layout": "series"}, r"must be series \(N, T, F\), or"),
        (real(50, 2), {"layout": "row"}, "unknown layout 'row'"),
        (real(50, 2), {"max_value": 3}, "max_value must be left out for series"),
        (real(50, 2), {"dequantize": True}, "dequantize is for images"),
        (
            real(50, 2),
            {"standardized": False, "binarize": "threshold"},
            "binarize must be none for 'arrays', which does not hold grey levels",
        ),
        (
            np.where(unit(50, 2) < 0.01, np.nan, 1.0),
            {},
            "must hold finite numbers, got NaN or infinity in",
        ),
        (np.full((12, 50, 2), np.inf), {}, "must hold finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(x, choices, message):
    with pytest.raises(InputError, match=message) as error:
        from_arrays(x, **choices)
    assert "\n" not in str(error.value)


def test_named_sets_and_tables_know_their_layout():
    with pytest.raises(InputError, match="layout must be images for 'digits', got"):
        load("digits", layout="series")
    with pytest.raises(InputError, match="categorical must be left out for layout="):
        DataConfig(layout="series", categorical=("a",))
    frame = pandas.DataFrame(real(50))
    dataset = from_arrays(frame, layout="series")
    assert dataset.shape == (50, 1) and dataset.columns is None
    with pytest.raises(InputError, match="layout must be rows for 'arrays'"):
        from_arrays(frame, layout="images")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_every_file_format_gives_the_same_series(tmp_path, suffix):
    path, x, y = tmp_path / f"mine{suffix}", real(40, 3), np.arange(12) % 2
    if suffix == ".npy":
        np.save(path, x)
    elif suffix == ".mat":
        scipy.io.savemat(path, {"X": x, "y": y[:, None]})
    else:
        np.savez(path, x=x, y=y)
    dataset = load(path, test_size=3, validation_size=2)
    assert dataset.shape == (40, 3) and len(dataset.notes) == 1
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [7, 2, 3]
    if suffix != ".npy":
        assert dataset.class_names == ("0", "1")
        of = {bytes(a): b for a, b in zip(x.astype(np.float32), y, strict=True)}
        assert all(
            of[bytes(a)] == b
            for split in splits
            for a, b in zip(split.x, split.labels, strict=True)
        )


def test_large_files_stay_on_disk(tmp_path, monkeypatch):
    path, x = tmp_path / "large.npy", real(40, 3)
    np.save(path, x)
    small = load(path)
    monkeypatch.setattr(rows_module, "LAZY_BYTES", 100)
    large = load(path)
    assert isinstance(large.train.x, Rows) and large.notes == small.notes
    np.testing.assert_array_equal(np.asarray(large.train.x), small.train.x)
    moments = [d.preprocessing.standardization for d in (small, large)]
    np.testing.assert_allclose(moments[0].mean, moments[1].mean, rtol=1e-6)


def test_each_feature_is_standardized_over_examples_and_time():
    x = RNG.normal([5.0, -3e4, 0.0, 7.5], [1.0, 50.0, 0.0, 0.0], (60, 30, 4))
    x[..., 2] = x[..., 0] > 5  # zeros and ones stay
    dataset = from_arrays(x)
    prepare, inverse = (
        dataset.preprocessing.prepare,
        dataset.preprocessing.inverse,
    )
    seen = np.asarray(prepare(dataset.train.x))
    moments = dataset.preprocessing.standardization
    train = dataset.train.x.astype(np.float64)
    np.testing.assert_allclose(moments.mean[[0, 1, 3]], train.mean((0, 1))[[0, 1, 3]])
    np.testing.assert_allclose(seen[..., :2].mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(seen[..., :2].std((0, 1)), 1, rtol=1e-4)
    np.testing.assert_array_equal(seen[..., 2], dataset.train.x[..., 2])
    np.testing.assert_array_equal(seen[..., 3], 0)  # a constant is centred
    np.testing.assert_allclose(inverse(seen), dataset.train.x, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="x must have 4 numbers in its last axis"):
        prepare(dataset.train.x[..., :1])
    raw = from_arrays(x, standardized=False)
    assert raw.preprocessing.standardization is None
    np.testing.assert_allclose(raw.preprocessing.prepare(x), x, rtol=1e-6)


def test_series_with_conditions():
    conditions = RNG.normal(size=(12, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = from_arrays(real(40, 3), conditions=conditions)
    assert dataset.train.condition.shape == (len(dataset.train), 2)
    with pytest.raises(InputError, match="binarize must be none"):
        binarize(dataset, "dynamic")


@pytest.mark.parametrize(
    ("shape", "largest", "layout"),
    [
        ((3, 8, 2), 1.0, "series"),  # four times as many steps as features
        ((3, 7, 2), 1.0, "images"),
        ((3, 7, 2), 1.5, "series"),  # images lie in [0, 1]
        ((3, 4, 2), 1.5, "series"),
        ((3, 3, 2), 1.5, "images"),
        ((3, 64, 16), 1.0, "series"),
        ((3, 68, 17), 1.5, "images"),
    ],
)
def test_the_limits_between_series_and_images(shape, largest, layout):
    x = np.linspace(0.0, largest, int(np.prod(shape))).reshape(shape)
    assert choose_layout(x, "x")[0] == layout
