"""The schema of a table: rows of numbers and back, for this and for other tables."""

import datetime
import json

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, from_arrays, load
from flaxvae.data.cells import arrow_type, from_numbers, numbers
from flaxvae.data.schema import TableSchema
from flaxvae.data.schema_inference import infer_schema
from flaxvae.data.tables import read_like
from tests.data.people import make_people

DAY = datetime.date(2024, 5, 17)
TABLE = pyarrow.table(
    {
        "h": [1.5, None, 2.5, 3.25] * 10,
        "n": [1, 2, 3, 9] * 10,
        "flag": [True, False, None, True] * 10,
        "c": ["x", None, "y", "x"] * 10,
        "yn": ["yes", "no", "no", "yes"] * 10,
        "day": [DAY, DAY, DAY, DAY + datetime.timedelta(400)] * 10,
        "time": pyarrow.array([1, 2, 3, 10**15] * 10, pyarrow.timestamp("us", "UTC")),
        "small": pyarrow.array([0.5, 0.25, 1.0, 4.0] * 10, pyarrow.float32()),
    }
)


@pytest.mark.parametrize(
    ("kind", "value", "number"),
    [
        ("date32", datetime.date(1970, 1, 4), 3.0),  # days
        ("date64", datetime.date(1970, 1, 4), 3.0),
        ("timestamp[s]", datetime.datetime(1970, 1, 1, 0, 1, 30), 90.0),  # seconds
        ("timestamp[ms]", datetime.datetime(1970, 1, 1, 0, 1, 30), 90.0),
        ("timestamp[us]", datetime.datetime(1970, 1, 1, 0, 1, 30), 90.0),
        ("duration[ns]", datetime.timedelta(minutes=2), 120.0),
        ("time32[ms]", datetime.time(0, 0, 4), 4.0),
    ],
)
def test_dates_are_days_and_times_are_seconds(kind, value, number):
    column = pyarrow.chunked_array([[value, None]], arrow_type(kind))
    found = numbers(column, "column 't'")
    np.testing.assert_array_equal(found, [number, np.nan])
    back = from_numbers(found, np.isnan(found), kind)
    assert back.to_pylist() == [value, None] and back.type == column.type


def test_rows_come_back_as_the_tables_own():
    schema = infer_schema(TABLE, impute="mask")
    x, labels = schema.encode(TABLE)
    assert labels is None
    assert x.shape == (40, schema.num_features) == (40, len(schema.feature_names))
    assert schema.feature_names[:5] == (
        "h",
        "h is missing",
        "n",
        "flag",
        "flag is missing",
    )
    kinds = [column.kind for column in schema.columns]
    assert kinds == [
        "real", "integer", "binary", "category", "binary", "real", "real", "real"
    ]  # fmt: skip
    assert schema.decode(x).equals(TABLE)
    again = TableSchema.from_description(json.loads(json.dumps(schema.describe())))
    assert again == schema


def test_rows_of_a_model_become_values_that_the_table_has():
    schema = infer_schema(TABLE, impute="mask")
    x = np.random.default_rng(0).normal(size=(200, schema.num_features)) * 1e5
    made = schema.decode(x)
    assert made.schema.equals(TABLE.schema)
    assert set(made["c"].to_pylist()) <= {"x", "y", None}
    assert set(made["yn"].to_pylist()) == {"yes", "no"}
    assert set(made["n"].to_pylist()) <= set(range(1, 10))
    assert made["h"].null_count and made["flag"].null_count
    np.testing.assert_array_equal(schema.snap(schema.snap(x)), schema.snap(x))


@pytest.mark.parametrize("label", [["a", "b"], [3, 7], [True, False], [0.5, 1.5]])
def test_labels_come_back_as_the_tables_own(label):
    table = pyarrow.table({"a": np.arange(40.0) / 3, "y": label * 20})
    dataset = from_arrays(table, label_column="y", test_size=0, validation_size=0)
    schema = dataset.preprocessing.schema
    x, labels = schema.encode(table)
    np.testing.assert_array_equal(labels, dataset.train.labels)
    assert schema.decode(x, labels).equals(table)
    with pytest.raises(InputError, match="labels must be in 0 to 1, got 2 to 2"):
        schema.decode(x[:1], [2])


def test_a_run_stores_the_schema():
    dataset = from_arrays(make_people(300), impute="mask")
    described = json.loads(json.dumps(dataset.describe()))
    again = Preprocessing.from_description(described)
    assert again.schema == dataset.preprocessing.schema
    assert again.blocks(19) == dataset.preprocessing.blocks(19)
    x = dataset.test.x
    stored = again.stored(x)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, dataset.preprocessing.stored(x))
    np.testing.assert_allclose(again.inverse(again.prepare(x)), x, rtol=1e-4)


def people(**changes):
    columns = {
        "h": [170.5, 160.25, 180.0, 175.5] * 10,
        "w": [60.5, 70.25, 80.0, 65.5] * 10,
        "c": ["x", "y"] * 20,
    }
    return pandas.DataFrame(columns | changes)


@pytest.fixture
def schema():
    return from_arrays(people()).preprocessing.schema


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "pandas", "polars", "arrow"])
def test_another_table_is_read_by_its_names(schema, kind, tmp_path):
    frame = people(h=np.array([220.5, 210.25, 230.0, 225.5] * 10))
    frame = frame[["w", "c", "h"]].assign(more=1)
    expected = frame[["h", "w"]].to_numpy()
    path = tmp_path / f"a.{kind}"
    if kind in ("csv", "tsv"):
        frame.to_csv(path, sep="," if kind == "csv" else "\t")
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        to = {"polars": polars.DataFrame, "arrow": pyarrow.table}
        path = to.get(kind, pandas.DataFrame)(frame.to_dict("list"))
    x, labels, notes = read_like(path, schema)
    np.testing.assert_array_equal(x[:, :2], expected)
    np.testing.assert_array_equal(x[:, 2:], [[1, 0], [0, 1]] * 20)
    assert labels is None
    assert "column not used: more" in notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": ["y", "z"] * 20}, "column 'c'.*got 'z': choose from 'x', 'y'"),
        ({"c": ["x", "zoe"] * 20}, "column 'c'.*got 'zoe'"),
        ({"c": ["x", None] * 20}, "column 'c'.* no missing value, got 20"),
        ({"h": ["a", "b"] * 20}, "column 'h'.* must hold numbers, got 'a'"),
        ({"h": [1.0, None] * 20}, "column 'h'.* must have no missing value, got 20"),
        ({"h": [DAY] * 40}, "column 'h'.* must hold numbers, got"),
        ({"h": [1.0, np.inf] * 20}, "finite numbers, got infinity"),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_a_table_that_does_not_fit_is_refused(
    schema, changes, message, as_file, tmp_path
):
    source = people(**changes)
    if as_file:
        source.to_csv(tmp_path / "a.csv", index=False)
        source = tmp_path / "a.csv"
    with pytest.raises(InputError, match=message) as error:
        read_like(source, schema)
    assert "\n" not in str(error.value)


def test_a_table_without_a_column_is_refused(schema):
    with pytest.raises(InputError, match="must have the columns h, w, c: w is missing"):
        read_like(people().drop(columns="w"), schema)


@pytest.mark.parametrize("value", [-9, "-9.0", "none"])
def test_what_a_run_takes_for_missing_is_missing_in_new_tables(value, tmp_path):
    frame = people(c=["x", None] * 20)
    options = {"impute": "mask", "missing_values": [-9, "none"]}
    schema = from_arrays(frame, **options).preprocessing.schema
    assert TableSchema.from_description(schema.describe()) == schema
    column = "c" if value == "none" else "h"
    people(**({"c": "x"} | {column: value})).to_csv(tmp_path / "a.csv", index=False)
    x, _, _ = read_like(tmp_path / "a.csv", schema)
    if value == "none":
        np.testing.assert_array_equal(x[:, 2:], [[0, 1]] * 40)
    else:
        assert np.isnan(x[:, 0]).all()
    # Another text is not a missing category.
    with pytest.raises(InputError, match="got 'zoe': choose from 'x'"):
        read_like(people(c="zoe"), schema)


def test_an_empty_column_of_classes_has_no_labels():
    schema = from_arrays(people(), label_column="c").preprocessing.schema
    assert read_like(people(c=None), schema)[1] is None


def test_gaps_are_filled_as_in_training():
    heights = [170.0, None, 180.0, 172.0] * 10
    dataset = from_arrays(people(h=heights), impute="mean", test_size=0)
    schema = dataset.preprocessing.schema
    x, _, _ = read_like(people(h=[None, 1.0] * 20, w=[2.0, None] * 20), schema)
    mean = np.nanmean(dataset.train.x, axis=0)
    np.testing.assert_allclose(x[0], [mean[0], 2.0, 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(x[1], [1.0, mean[1], 0.0, 1.0], rtol=1e-6)


def test_categories_are_the_same_in_other_types(tmp_path):
    frame = pandas.DataFrame({"a": [1.5, 2.5, 3.0, 4.0] * 10, "c": [1, 2] * 20})
    schema = from_arrays(frame, categorical=["c"]).preprocessing.schema
    expected = [[1, 0], [0, 1]] * 20
    frame.assign(c=[1.0, 2.0] * 20).to_csv(tmp_path / "a.csv", index=False)
    for source in (tmp_path / "a.csv", frame.assign(c=["1", "2"] * 20)):
        np.testing.assert_array_equal(read_like(source, schema)[0][:, 1:], expected)


@pytest.mark.parametrize("kind", ["times", "hexadecimal", "codes"])
def test_a_category_is_read_again_as_the_file_has_it(kind, tmp_path):
    texts = {
        "times": ["2024-01-01 12:00:00", "2024-06-01 00:30:00"],
        "hexadecimal": ["0x1F", "0xA0"],
        "codes": ["01234", "1234"],
    }[kind]
    lines = [f"{i % 7},{texts[i % 2]}" for i in range(40)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["a,c", *lines]))
    for options in ({"categorical": ["c"]}, {"label_column": "c"}):
        data = load(path, **options, validation_size=0, test_size=0)
        new = load(path, like=data).test
        np.testing.assert_array_equal(new.x, data.train.x)
        assert data.train.labels is None or (new.labels == data.train.labels).all()
        assert data.class_names is None or len(data.class_names) == 2
    if kind == "codes":
        assert load(path, categorical=["c"]).columns == ("a", "c=01234", "c=1234")


def test_times_with_and_without_a_zone_are_not_mixed():
    days = pandas.date_range("2020-01-01 12:00", periods=40, freq="36h")
    frame = pandas.DataFrame({"t": days, "a": np.arange(40.0) % 7})
    aware = frame.assign(t=days.tz_localize("America/New_York"))
    for old, new, message in (
        (frame, aware, "hold times without a zone, got times with a zone"),
        (aware, frame, "hold times with a zone, got times without a zone"),
    ):
        schema = from_arrays(old).preprocessing.schema
        read_like(old, schema)
        with pytest.raises(InputError, match=message):
            read_like(new, schema)


def test_times_are_numbers_with_a_note_and_come_back(tmp_path):
    days = pandas.date_range("2020-01-01", periods=50, freq="36h")
    frame = pandas.DataFrame({"t": days, "a": np.arange(50.0) % 7})
    frame.to_csv(tmp_path / "a.csv", index=False)
    for dataset in (load(tmp_path / "a.csv"), from_arrays(frame)):
        assert any("'t' holds timestamp" in note for note in dataset.notes)
        schema = dataset.preprocessing.schema
        made = schema.decode(
            dataset.preprocessing.inverse(
                dataset.preprocessing.prepare(dataset.train.x)
            )
        )
        gap = made["t"].to_numpy() - schema.decode(dataset.train.x)["t"].to_numpy()
        assert abs(gap).max() < np.timedelta64(10, "s")
