"""Tables from .csv and .parquet files."""

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from flaxvae.checks import InputError
from flaxvae.data import load

ROWS = {
    "height": [1.0, 2.0, 3.0, 4.0] * 10,
    "count": [10, 20, 30, 40] * 10,
    "kind": ["a", "b", "a", "c"] * 10,
    "class": ["yes", "no"] * 20,
}
OPTIONS = {"label_column": "class", "categorical": ["kind"]}


def write(path, **changes):
    table = pyarrow.table(ROWS | changes)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_become_numbers_with_names(tmp_path, suffix):
    dataset = load(write(tmp_path / f"a{suffix}"), **OPTIONS)
    assert dataset.columns == ("height", "count", "kind=a", "kind=b", "kind=c")
    assert dataset.shape == (5,)
    assert dataset.class_names == ("no", "yes")
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [34, 2, 4]
    for split in splits:
        height, count, a, b, c = split.x.T
        np.testing.assert_array_equal(count, 10 * height)
        np.testing.assert_array_equal(a, np.isin(height, (1, 3)))
        np.testing.assert_array_equal(a + b + c, 1)
        np.testing.assert_array_equal(split.labels, height % 2)


def test_a_table_without_labels(tmp_path):
    path = write(tmp_path / "a.csv", kind=[0] * 40, **{"class": [True, False] * 20})
    dataset = load(path)
    assert dataset.train.labels is None
    assert dataset.shape == (4,)


@pytest.mark.parametrize(("method", "value"), [("mean", 22.0), ("median", 3.0)])
def test_gaps_are_filled_with_the_training_splits_mean_or_median(
    tmp_path, method, value
):
    heights = [1.0, 3.0, None, 80.0, 4.0] * 8
    path = write(tmp_path / "a.csv", height=heights)
    dataset = load(path, **OPTIONS, impute=method, test_size=5, validation_size=5)
    x = dataset.train.x[:, 0]
    known = {1.0, 3.0, 4.0, 80.0}
    filled = [v for v in x if v not in known] if method == "mean" else []
    expected = np.mean([v for v in x if v in known])
    if method == "mean":
        np.testing.assert_allclose(filled, expected, rtol=1e-6)
        assert expected == pytest.approx(value, rel=0.5)
    every = np.concatenate([dataset.train.x, dataset.validation.x, dataset.test.x])
    assert np.isfinite(every).all()
    # The statistics know the training split only, gaps filled.
    np.testing.assert_allclose(
        dataset.preprocessing.standardization.mean[0], x.mean(), rtol=1e-5
    )


def test_a_missing_category_is_a_category(tmp_path):
    path = write(tmp_path / "a.csv", kind=["a", None] * 20)
    dataset = load(path, **OPTIONS, impute="mean")
    # An empty text and a missing one are the same in this format.
    assert len(dataset.columns) == 4
    assert dataset.train.x[:, 2:].sum(1).min() == 1


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {},
            {},
            r"column 'kind' of .* must hold numbers, got 'a': list it in categorical",
        ),
        ({}, {"label_column": "klass"}, "unknown label_column 'klass'.*mean class"),
        ({}, {"categorical": ["knd"]}, "unknown categorical 'knd'.*mean kind"),
        ({"height": [1.0, None] * 20}, OPTIONS, "got 20 missing: .*impute=mean"),
        ({"height": [1.0, np.inf] * 20}, OPTIONS, "finite numbers, got infinity"),
        ({"height": pyarrow.nulls(40)}, OPTIONS, "got only missing values"),
        ({}, OPTIONS | {"impute": "maen"}, "unknown impute 'maen'.*mean mean"),
        ({"class": ["a", None] * 20}, OPTIONS, "must have a label in each row, got 20"),
    ],
)
def test_bad_tables_are_refused(tmp_path, changes, options, message):
    path = write(tmp_path / "a.parquet", **changes)
    with pytest.raises(InputError, match=message) as error:
        load(path, **options)
    assert "\n" not in str(error.value)


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    for content, message in [
        ("", "cannot be read"),
        ("a,b\n", "must hold rows of numbers, got none|only missing values"),
        ("a,b\n1,2\n3\n", "cannot be read.*column"),
        ("a,a\n1,2\n", "a name for each column, got a twice"),
    ]:
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            load(path)
    path = write(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"a.parquet cannot be read"):
        load(path)


def test_options_of_tables_are_for_tables():
    for name, value in [
        ("label_column", "a"),
        ("categorical", ["a"]),
        ("impute", "mean"),
    ]:
        with pytest.raises(InputError, match=f"{name} must be left out for 'digits'"):
            load("digits", **{name: value})


def test_a_name_or_a_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,\xa1\n1,2\n3,4\n")
    with pytest.raises(InputError, match=r"a\.csv cannot be read: .*utf-?8"):
        load(tmp_path / "a.csv")
    text = pyarrow.array([b"ash", b"\xa1"]).cast(pyarrow.string(), safe=False)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"tree": text, "n": [1, 2]}), path)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        load(path, categorical=("tree",))


def test_suffixes_in_any_case(tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.table({"a": [1.0, 2.0] * 9}), tmp_path / "A.PARQUET"
    )
    (tmp_path / "A.CSV").write_text("a\n" + "1\n2\n" * 9)
    for name in ("A.PARQUET", "A.CSV"):
        assert load(tmp_path / name, test_size=0, validation_size=0).shape == (1,)
