"""Tables from .csv and .parquet files."""

import gzip

import numpy as np
import pandas
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from flaxvae.checks import InputError
from flaxvae.data import from_arrays, load

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


@pytest.mark.parametrize("method", ["mean", "median"])
@pytest.mark.parametrize("weights", [[1, 2, 3], [0, 1, 0], [2, 1, 1]])
def test_gaps_of_weighted_rows_are_filled_as_if_rows_were_repeated(method, weights):
    heights = np.array([[1.0, 5.0], [7.0, np.nan], [80.0, 6.0]] * 8)
    heights[:6, 1] = np.nan
    weights = np.array(weights * 8)
    options = {"impute": method, "validation_size": 0, "test_size": 0}
    found = from_arrays(heights, weights=weights, **options).train.x
    rows = np.repeat(heights[:, 1], weights)
    if np.isnan(rows).all():  # rows of weight 0 alone have values
        rows = heights[:, 1]
    known = {"mean": np.nanmean, "median": np.nanmedian}[method](rows)
    np.testing.assert_allclose(found[np.isnan(heights)], known, rtol=1e-6)


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
            {"kind": [f"name {i}" for i in range(40)]},
            {"label_column": "class"},
            r"column 'kind' of .* 40 different texts such as 'name 0': list it in cat",
        ),
        ({"kind": [[1]] * 40}, {}, r"column 'kind' .* got list<.*drop_columns"),
        ({"kind": [{"a": 1}] * 40}, {}, r"column 'kind' .* got struct<.*drop_columns"),
        ({"kind": [b"a"] * 40}, {}, r"column 'kind' .* got binary.*drop_columns"),
        (
            {"kind": [f"{i + 1},234" for i in range(40)]},
            {},
            "without thousands",
        ),
        ({}, {"separator": ";"}, "separator must be left out for .* not a text file"),
        (
            {},
            {"label_column": "class", "categorical": ["class"]},
            "categorical must hold columns of the examples, got 'class'",
        ),
        ({}, {"drop_columns": ["knd"]}, "unknown drop_columns 'knd'.*mean kind"),
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
        ("drop_columns", ["a"]),
        ("missing_values", ["-1"]),
        ("separator", ";"),
        ("header", "no"),
        ("decimal", ","),
        ("encoding", "latin-1"),
        ("label_column", "a"),
        ("categorical", ["a"]),
        ("impute", "mean"),
    ]:
        with pytest.raises(InputError, match=f"{name} must be left out for 'digits'"):
            load("digits", **{name: value})


def test_a_text_of_a_parquet_file_that_is_not_utf8_is_refused(tmp_path):
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


NUMBERS = np.random.default_rng(0).normal(size=(60, 3)).round(4)
LINES = [",".join(map(str, row)) for row in NUMBERS]
HEADED = "\n".join(["a,b,c", *LINES])


def as_bytes(text):
    return text.encode()


READ = {  # name of the file, its bytes, options, a note
    "plain": ("a.csv", as_bytes(HEADED), {}, None),
    "capitals": ("A.CSV", as_bytes(HEADED), {}, None),
    "windows": ("a.csv", as_bytes(HEADED.replace("\n", "\r\n")), {}, None),
    "mac": ("a.csv", as_bytes(HEADED.replace("\n", "\r")), {}, None),
    "bom": ("a.csv", HEADED.encode("utf-8-sig"), {}, None),
    "utf16": ("a.csv", HEADED.encode("utf-16"), {}, None),
    "gzip": ("a.csv.gz", gzip.compress(as_bytes(HEADED)), {}, None),
    "blank lines": ("a.csv", as_bytes("\n" + HEADED.replace("\n", "\n\n")), {}, None),
    "quotes": ("a.csv", as_bytes('"a","b","c"\n' + "\n".join(LINES)), {}, None),
    "spaces around": ("a.csv", as_bytes(HEADED.replace(",", " , ")), {}, None),
    "tabs": ("a.tsv", as_bytes(HEADED.replace(",", "\t")), {}, "separated by tabs"),
    "pipes": ("a.csv", as_bytes(HEADED.replace(",", "|")), {}, "separated by |"),
    "stated": ("a.csv", as_bytes(HEADED.replace(",", "~")), {"separator": "~"}, None),
    "semicolons": (
        "a.csv", as_bytes(HEADED.replace(",", ";")), {}, "separated by semicolons",
    ),
    "columns of text": (
        "a.txt", as_bytes(HEADED.replace(",", "   ")), {}, "separated by spaces",
    ),
    "savetxt": (
        "a.txt", as_bytes("# " + HEADED.replace(",", " ")), {}, "separated by spaces",
    ),
    "excel": ("a.csv", as_bytes("sep=;\n" + HEADED.replace(",", ";")), {}, None),
    "decimal commas": (
        "a.csv",
        as_bytes(HEADED.replace(",", ";").replace(".", ",")),
        {},
        "comma stands before decimals",
    ),
    "separators at the end": (
        "a.csv", as_bytes(HEADED.replace("\n", ",\n") + ","), {}, "no values",
    ),
    "separators below": (
        "a.csv", as_bytes("a,b,c\n" + ",\n".join(LINES) + ","), {}, "no values",
    ),
    "index of pandas": (
        "a.csv",
        as_bytes(pandas.DataFrame(NUMBERS, columns=list("abc")).to_csv()),
        {},
        "numbers the rows",
    ),
    "index of a selection": (
        "a.csv",
        as_bytes(
            ",a,b,c\n" + "\n".join(f"{7 * i % 60},{r}" for i, r in enumerate(LINES))
        ),
        {},
        "numbers the rows",
    ),
    "names of rows, of R": (
        "a.csv",
        as_bytes("a,b,c\n" + "\n".join(f"r{i},{r}" for i, r in enumerate(LINES))),
        {},
        "numbers the rows",
    ),
    "dropped": (
        "a.csv",
        as_bytes("a,b,c,n\n" + "\n".join(f"{r},n{i}" for i, r in enumerate(LINES))),
        {"drop_columns": "n"},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_text_is_read_as_it_is_written(case, tmp_path):
    name, content, options, note = READ[case]
    (tmp_path / name).write_bytes(content)
    dataset = load(tmp_path / name, **options, test_size=0, validation_size=0)
    assert dataset.columns == ("a", "b", "c")
    np.testing.assert_allclose(dataset.train.x, NUMBERS, rtol=1e-6)
    assert bool(dataset.notes) == (note is not None)
    assert note is None or note in dataset.notes[-1]
    assert dataset.name == "a" or case == "capitals"


def test_a_first_line_of_numbers_is_a_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(LINES))
    dataset = load(path, test_size=0, validation_size=0)
    assert dataset.columns == ("column 1", "column 2", "column 3")
    assert dataset.train.x.shape == (60, 3) and "first line" in dataset.notes[0]
    assert len(load(path, test_size=0, validation_size=0, header="yes").train) == 59
    path.write_text(HEADED)
    with pytest.raises(InputError, match="different texts such as 'a'"):
        load(path, header="no")


def test_numbers_beside_names_are_names(tmp_path):
    """As of ``pandas.DataFrame(x)`` with a named column."""
    path = tmp_path / "a.csv"
    path.write_text(
        "0,1,2,y\n" + "".join(f"{v},{i % 3}\n" for i, v in enumerate(LINES))
    )
    dataset = load(path, label_column="y", test_size=0, validation_size=0)
    assert dataset.columns == ("0", "1", "2") and len(dataset.train) == 60
    assert any("though it holds numbers" in note for note in dataset.notes)
    for first in ("unknown,0.5,2", "1,A5,44", "3,M,12", "2020-01-01,10,20"):
        path.write_text("\n".join([first, *LINES]))  # a text in a row of numbers
        with pytest.raises(InputError, match=r"different texts|column 1"):
            load(path)
    path.write_text("7,missing,12\n" + "\n".join(LINES))
    options = {"missing_values": ["missing"], "test_size": 0, "validation_size": 0}
    assert load(path, impute="mean", **options).train.x.shape == (61, 3)


def test_columns_without_a_name_are_read_again(tmp_path):
    frame = pandas.DataFrame({"a": NUMBERS[:30, 0]})
    path = tmp_path / "a.csv"
    pandas.concat([frame, frame]).to_csv(path)  # an index with numbers twice
    data = load(path, test_size=0, validation_size=0)
    assert data.columns == ("column 1", "a")
    np.testing.assert_allclose(load(path, like=data).test.x, data.train.x, rtol=1e-6)


def test_thousands_beside_decimal_commas_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("price;people\n" + "0,5;1.000\n1,5;12.037\n" * 20)
    with pytest.raises(InputError, match=r"'people' of .* without a mark of"):
        load(path)
    left = load(path, drop_columns=["people"], test_size=0, validation_size=0)
    assert left.columns == ("price",)
    assert len(load(path, categorical=["people"]).columns) == 3
    np.testing.assert_array_equal(load(path, like=left).test.x, left.train.x)
    path.write_text("price;people\n" + "0,5;1.25\n1,5;2.037\n" * 20)
    assert load(path, test_size=0, validation_size=0).train.x[0].tolist() == [0.5, 1.25]


def test_what_is_missing(tmp_path):
    path = tmp_path / "a.csv"
    cells = ["1.5", "NA", "", "nan", "-999", "2.5"] * 10
    path.write_text(
        "a,c\n"
        + "\n".join(
            f"{v},{w}"
            for v, w in zip(cells, ["x", "y", "", "NA", "x", "y"] * 10, strict=True)
        )
    )
    options = {"missing_values": [-999], "test_size": 0, "validation_size": 0}
    dataset = load(path, impute="mask", **options)
    assert dataset.columns == ("a", "a is missing", "c=x", "c=y", "c=(missing)")
    assert np.isnan(dataset.train.x[:, 0]).sum() == 40 == dataset.train.x[:, 1].sum()
    assert dataset.train.x[:, 4].sum() == 20
    for cells in ("-999.0,1.5\n2.5,3.5\n", "-999,0;1,5\n2,5;3,5\n"):
        mark = ";" if ";" in cells else ","
        path.write_text(f"a{mark}b\n" + cells * 20)
        assert np.isnan(load(path, impute="mask", **options).train.x[:, 0]).sum() == 20
    path.write_text("a,b\n" + "1,?\n2,3.5\n" * 20)
    assert "'?' in column 'b' is a missing value" in load(path, impute="mean").notes
    path.write_text("a,b\n" + "1,?\n2,3.5\n3,-999.0\n" * 20)
    assert np.isnan(load(path, impute="mask", **options).train.x[:, 1]).sum() == 40
    path.write_text("a\n" + "1.5\n\n2.5\n" * 20 + "\n\n")  # no other column
    dataset = load(path, impute="mask", test_size=0, validation_size=0)
    assert dataset.train.x.shape == (60, 2) and np.isnan(dataset.train.x).sum() == 20
    for spaced in ("a\n\n" + "1.5\n2.5\n" * 20, "a\r\r\n" + "1.5\r\r\n2.5\r\r\n" * 20):
        path.write_bytes(spaced.encode())
        assert len(load(path, test_size=0, validation_size=0).train) == 40
    frame = pandas.DataFrame({"a": [1.5, 2.5] * 20, "c": [3, 10] * 20})
    frame["c"] = frame["c"].astype("category")
    names = from_arrays(frame, missing_values=["-999"]).columns
    assert names == from_arrays(frame).columns == ("a", "c=3", "c=10")
    path.write_text("a,label\n" + "1,p\n2,\n" * 20)
    with pytest.raises(InputError, match="must have a label in each row, got 20"):
        load(path, label_column="label")


def test_text_that_is_not_utf8_is_read_with_a_note(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,c\n" + "1,café\n2,thé\n".encode("latin-1") * 20)
    dataset = load(path)
    assert dataset.columns == ("a", "c=café", "c=thé") and "cp1252" in dataset.notes[0]
    assert not any("cp1252" in note for note in load(path, encoding="latin-1").notes)
    with pytest.raises(InputError, match="cannot be read as 'utf-8'"):
        load(path, encoding="utf-8")


def test_large_integers_are_read_with_a_note(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,a\n" + "\n".join(f"{10**17 + i},{i % 7}" for i in range(60)))
    assert any("beyond 2^53" in note for note in load(path).notes)
    table = pyarrow.table({"a": pyarrow.array([2**64 - 1, 5] * 20, pyarrow.uint64())})
    assert np.isfinite(from_arrays(table).train.x).all()


@pytest.mark.parametrize("name", ["tree", "id"])
def test_identifiers_are_named(name):
    ids = 3 * np.random.default_rng(0).permutation(40)
    table = pyarrow.table({"a": ROWS["height"], name: ids})
    notes = from_arrays(table).notes
    assert bool(notes) == (name == "id")


@pytest.mark.parametrize(
    ("offset", "scale"),
    [(1.7e9, 1e3), (1.1e6, 1.0), (1, 1e-5), (0, 1e300), (0, 1e-300), (-1e9, 1)],
)
@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_columns_that_float32_would_round_keep_their_values(
    offset, scale, kind, tmp_path
):
    x = np.random.default_rng(0).normal(size=(400, 2))
    x[:, 1] = offset + scale * x[:, 1]
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        pandas.DataFrame(x, columns=["a", "b"]).to_csv(path, index=False)
    else:
        np.save(path, x)
    dataset = load(path)
    preprocessing = dataset.preprocessing
    seen = np.asarray(preprocessing.prepare(preprocessing.stored(dataset.train.x)))
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, rtol=1e-5)
    back = preprocessing.inverse(seen)
    np.testing.assert_allclose((back - dataset.train.x) / [1, scale], 0, atol=1e-5)


@pytest.mark.parametrize("value", [2024, 0.1, 1.7e9 + 1, 1e300, -5])
def test_constant_columns_are_centred_and_named(value):
    frame = pandas.DataFrame({"a": ROWS["height"], "year": [value] * 40})
    dataset = from_arrays(frame)
    assert "column is constant: year" in dataset.notes
    preprocessing = dataset.preprocessing
    seen = np.asarray(preprocessing.prepare(preprocessing.stored(dataset.train.x)))
    np.testing.assert_allclose(seen[:, 1], 0, atol=1e-12)
    np.testing.assert_allclose(preprocessing.inverse(seen)[:, 1], value, rtol=1e-12)
