"""Arrays and tables in memory become the data sets that files become."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pandas
import polars
import pyarrow
import pytest
import scipy.sparse

import flaxvae
from flaxvae import evaluation
from flaxvae.checks import InputError
from flaxvae.data import Split, condition_on_labels, from_arrays, load

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4
ROWS = RNG.normal(3.0, [1.0, 5.0], (40, 2))
TABLE = {
    "height": [1.0, 2.0, 3.0, 4.0] * 10,
    "count": [10, 20, 30, 40] * 10,
    "kind": ["a", "b", "a", "c"] * 10,
    "class": ["yes", "no"] * 20,
}
OPTIONS = {"label_column": "class", "categorical": ["kind"]}
FRAMES = {
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "lazy": polars.LazyFrame,
    "arrow": pyarrow.table,
}


def splits(dataset):
    return dataset.train, dataset.validation, dataset.test


def same(one, two):
    for a, b in zip(splits(one), splits(two), strict=True):
        assert a.x.dtype == b.x.dtype
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.labels, b.labels)
    for name, value in one.describe().items():
        if name not in ("name", "origin", "source"):
            assert value == two.describe()[name], name


@pytest.mark.parametrize("labels", [None, LABELS, np.array(["b", "a"])[LABELS % 2]])
@pytest.mark.parametrize("x", [GREY, GREY / 255.0, GREY > 99, ROWS])
def test_arrays_are_the_data_set_of_a_file_that_holds_them(tmp_path, x, labels):
    np.savez(tmp_path / "a.npz", x=x, **({} if labels is None else {"y": labels}))
    options = {"test_size": 7, "validation_size": 0.2, "split_seed": 5}
    same(from_arrays(x, labels, **options), load(tmp_path / "a.npz", **options))


def test_defaults_and_choices_are_those_of_load(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    same(from_arrays(GREY), load(tmp_path / "a.npy"))
    options = {"num_examples": 30, "binarize": "static"}
    same(from_arrays(GREY, **options), load(tmp_path / "a.npy", **options))


@pytest.mark.parametrize("convert", [jnp.asarray, np.ndarray.tolist, np.asfortranarray])
def test_whatever_numpy_reads_is_an_array(convert):
    same(from_arrays(convert(GREY), convert(LABELS)), from_arrays(GREY, LABELS))


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (GREY, (6, 5, 1)),
        (GREY[..., None], (6, 5, 1)),
        (np.stack([GREY] * 3, -1), (6, 5, 3)),
        (ROWS, (2,)),
    ],
)
def test_axes(x, shape):
    assert from_arrays(x).shape == shape


def of_polars_categories(table):
    kinds = polars.col("kind", "class").cast(polars.Categorical)
    return polars.DataFrame(table).with_columns(kinds)


@pytest.mark.parametrize("frame", [*FRAMES.values(), of_polars_categories])
def test_tables_are_those_of_a_file(tmp_path, frame):
    pandas.DataFrame(TABLE).to_csv(tmp_path / "a.csv", index=False)
    dataset = from_arrays(frame(TABLE), **OPTIONS)
    same(dataset, load(tmp_path / "a.csv", **OPTIONS))
    assert dataset.columns == ("height", "count", "kind=a", "kind=b", "kind=c")
    assert dataset.class_names == ("no", "yes")
    assert dataset.preprocessing.standardization is not None


def test_a_table_with_the_older_protocol_only():
    class Frame:
        def __init__(self, frame):
            self.frame = frame

        def __len__(self):
            return len(self.frame)

        def __dataframe__(self, **options):
            return pyarrow.table(self.frame).__dataframe__(**options)

    numbers = {name: TABLE[name] for name in ("height", "count")}
    frame = polars.DataFrame(numbers)
    same(from_arrays(Frame(frame)), from_arrays(frame))


@pytest.mark.parametrize(
    "labels",
    [
        pandas.Series(TABLE["class"], index=range(40, 0, -1)),
        pandas.Series(TABLE["class"], dtype="category"),
        pandas.Series(TABLE["class"], dtype=object),
        polars.Series(TABLE["class"]),
        polars.Series(TABLE["class"], dtype=polars.Categorical),
        TABLE["class"],
        np.array(TABLE["class"], object),
        np.array(TABLE["class"], np.dtypes.StringDType()),
        np.array([name.encode() for name in TABLE["class"]], object),
    ],
)
def test_labels_of_every_kind_are_the_same_classes(labels):
    same(from_arrays(GREY, labels), from_arrays(GREY, np.array(TABLE["class"])))


@pytest.mark.parametrize(
    "labels",
    [
        pandas.Series(LABELS, dtype="Int64"),
        polars.Series(LABELS),
        LABELS.astype(object),
        np.array(list(LABELS), object),
        LABELS[:, None],
        jnp.asarray(LABELS),
    ],
)
def test_labels_may_be_numbers_of_every_kind(labels):
    dataset = from_arrays(GREY, labels)
    same(dataset, from_arrays(GREY, LABELS))
    assert dataset.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1e7, 1e7 + 0.25], ("10000000", "10000000.25")),
        (np.float32([0.1, 0.3]), ("0.1", "0.3")),
        ([b"\xe8", "é".encode()], ("\\xe8", "é")),
        ([2**70, 2**70 + 1], ("1180591620717411303424", "1180591620717411303425")),
    ],
)
def test_classes_that_differ_have_names_that_differ(labels, names):
    assert from_arrays(GREY, list(labels) * 20).class_names == names


def test_classes_agree_between_splits_of_other_types():
    text = from_arrays(GREY, ["é", "b"] * 20, test=(GREY[:1], ["é".encode()]))
    assert (text.class_names, text.test.labels) == (("b", "é"), [1])
    large = np.array([2**60, 2**60 + 1] * 20)
    numbers = from_arrays(GREY, large, test=(GREY[:1], large[1:2].astype(np.uint64)))
    assert (numbers.num_classes, numbers.test.labels) == (2, [1])


def test_a_pandas_index_is_not_a_column():
    frame = pandas.DataFrame({"a": ROWS[:, 0], "b": ROWS[:, 1]})
    other = frame.set_index(pandas.Index(RNG.permutation(40), name="number"))
    assert from_arrays(other).columns == ("a", "b")
    same(from_arrays(other), from_arrays(frame))


def test_missing_numbers_of_tables_are_filled():
    heights = [1.0, None, 3.0, 4.0] * 10
    expected = from_arrays(
        polars.DataFrame(TABLE | {"height": heights}), **OPTIONS, impute="mean"
    )
    frame = pandas.DataFrame(TABLE | {"height": pandas.array(heights, dtype="Float64")})
    same(from_arrays(frame, **OPTIONS, impute="mean"), expected)
    with pytest.raises(
        InputError, match="column 'height' must hold numbers, got 10 miss"
    ):
        from_arrays(frame, **OPTIONS)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_categories_are_those_of_all_splits(frame):
    test = {
        "kind": ["d", "a"],
        "class": ["no", "yes"],
        "count": [1.5, 2.0],
        "height": [0, 0],
    }
    dataset = from_arrays(frame(TABLE), test=frame(test), **OPTIONS)
    assert dataset.columns == (
        *("height", "count"),
        *(f"kind={kind}" for kind in "abcd"),
    )
    np.testing.assert_array_equal(
        dataset.test.x, [[0, 1.5, 0, 0, 0, 1], [0, 2, 1, 0, 0, 0]]
    )
    np.testing.assert_array_equal(dataset.test.labels, [0, 1])
    assert len(dataset.train) + len(dataset.validation) == 40


def test_conditions_stay_beside_the_rows_of_a_table():
    frame = polars.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) % 7})
    table = from_arrays(
        frame,
        conditions=np.arange(40),
        test=(frame[:5], None, np.arange(5)),
        standardized=False,
    )
    for split in splits(table):
        np.testing.assert_array_equal(split.x[:, 0], split.condition)


@pytest.mark.parametrize("is_turned", [False, True])
def test_wide_integers_have_one_type_in_all_splits(is_turned):
    """Also where those of one split would fit into 8 bits."""
    both = [np.full((9, 4, 4), top, np.uint16) for top in (200, 4000)]
    x, test = both[:: -1 if is_turned else 1]
    data = from_arrays(x, test=test, max_value=5000)
    assert data.train.x.dtype == data.test.x.dtype == np.uint16
    with pytest.raises(InputError, match="must have the type and shape of the train"):
        from_arrays(both[0].astype(np.uint8), test=both[1])


def test_splits_of_the_user_stay_as_they_are():
    dataset = from_arrays(
        GREY[:20],
        LABELS[:20],
        validation=(GREY[20:25], LABELS[20:25]),
        test=(GREY[25:], LABELS[25:]),
    )
    np.testing.assert_array_equal(dataset.train.x[..., 0], GREY[:20])
    np.testing.assert_array_equal(dataset.validation.labels, LABELS[20:25])
    np.testing.assert_array_equal(dataset.test.x[..., 0], GREY[25:])
    only_test = from_arrays(GREY[:20], test=GREY[20:], validation_size=4)
    assert [len(split) for split in splits(only_test)] == [16, 4, 20]


@pytest.mark.parametrize("conditions", [LABELS, RNG.normal(size=(40, 3))])
def test_conditions_stay_beside_their_examples(conditions):
    dataset = from_arrays(GREY, LABELS, conditions=conditions)
    of = {bytes(x): c for x, c in zip(GREY, conditions, strict=True)}
    for split in splits(dataset):
        for x, condition in zip(split.x, split.condition, strict=True):
            np.testing.assert_allclose(condition, of[bytes(x)], rtol=1e-6)
    kind = np.int32 if conditions.ndim == 1 else np.float32
    assert dataset.train.condition.dtype == kind
    with_test = from_arrays(
        GREY, conditions=conditions, test=(GREY[:9], None, conditions[:9])
    )
    np.testing.assert_allclose(with_test.test.condition, conditions[:9], rtol=1e-6)
    assert with_test.test.labels is None


def test_conditions_may_be_a_table_and_labels_may_condition():
    vectors = RNG.normal(size=(40, 2))
    for frame in (pandas.DataFrame(vectors), polars.DataFrame(vectors)):
        assert from_arrays(GREY, conditions=frame).train.condition.shape[1:] == (2,)
    dataset = condition_on_labels(from_arrays(GREY, TABLE["class"]))
    assert set(dataset.train.condition) == {0, 1}


@pytest.mark.parametrize(
    ("x", "options", "value"),
    [
        (GREY // 16, {}, 255.0),
        (GREY // 16, {"max_value": 15.0}, 15.0),
        (GREY.astype(np.int64) * 200, {}, 65535.0),
        (GREY > 99, {}, 1.0),
    ],
)
def test_the_integer_that_means_white(x, options, value):
    assert from_arrays(x, **options).preprocessing.max_value == value


BAD = [
    ([[1.0, 2.0], [1.0]], {}, "x must be an array of numbers: .*inhomogeneous"),
    (np.array([{}, []], object), {}, "x must hold numbers, got objects"),
    (None, {}, "x must be an array or a table, got None"),
    (np.array([["a"]] * 40), {}, "x must hold numbers, got <U1"),
    (np.zeros((40, 3, 8, 8)), {}, r"x must have at most 4 channels .*transpose \(N, C"),
    (
        np.zeros((40, 8, 8, 6)),
        {},
        r"at most 4 .*select channels, as x\[..., :3",
    ),
    (np.zeros((8, 8, 3, 40)), {}, r"transpose \(H, W, C, N\) by \(3, 0, 1, 2\)"),
    (np.zeros(40), {}, r"x must be images .* or rows .*by x\[:, None\]"),
    (
        GREY * np.nan,
        {},
        "train.x must hold finite numbers, got NaN or infinity in 34 of",
    ),
    (ROWS * np.nan, {}, "finite numbers"),
    (GREY / 2.0, {}, "floats in 0 to 1, got .*scale the images, or state their max_va"),
    (GREY / GREY.max() * 1.000001, {}, "clip what rounding has left outside"),
    (GREY.astype(int) % 3 - 1, {}, r"got -1 to 1: map -1 to 1 by \(x \+ 1\) / 2"),
    (
        np.full((40, 20, 2), np.nan),
        {"layout": "series"},
        "finite numbers.*: fill what is missing, for example between",
    ),
    (GREY, {"max_value": 9.0}, "integers in 0 to 9"),
    (GREY, {"labels": LABELS[1:]}, "train labels must be one for each of 40, got 39"),
    (GREY, {"labels": np.array(["a", 1] * 20, object)}, "all text or all numbers"),
    (GREY, {"labels": ["a", None] * 20}, "none missing, got NoneType, str"),
    (GREY, {"labels": np.array([0, np.nan] * 20)}, "train labels must be finite"),
    (GREY, {"labels": np.ones((40, 2))}, "one number or text for each example"),
    (
        GREY,
        {"labels": LABELS, "test": GREY},
        "must have labels for test too, or for no",
    ),
    (
        GREY,
        {"labels": LABELS, "test": (GREY, np.array(["a"] * 40))},
        "test labels must be like those of training, numbers, got text",
    ),
    (
        GREY,
        {"test": GREY[:, 1:]},
        r"x of test must have the type and shape of the train",
    ),
    (GREY, {"test": GREY / 255.0}, r"got float32 \(6, 5, 1\)"),
    (GREY, {"test": (GREY,)}, r"test must be an array, .*got a tuple of 1"),
    (
        GREY,
        {"test": (GREY, LABELS[:3])},
        "test labels must be one for each of 40, got 3",
    ),
    (GREY, {"conditions": LABELS, "test": GREY}, "must have conditions for test too"),
    (GREY, {"conditions": LABELS[1:]}, "train conditions must be one for each of 40"),
    (GREY, {"conditions": LABELS - 1}, "conditions must be classes >= 0, got -1"),
    (GREY, {"conditions": LABELS / 2}, r"class numbers \(N,\) or vectors of numbers"),
    (GREY, {"conditions": TABLE["class"]}, r"class numbers \(N,\) or vectors"),
    (GREY, {"conditions": ROWS * np.nan}, "train conditions must be finite"),
    (
        GREY,
        {"conditions": ROWS, "test": (GREY, None, ROWS[:, :1])},
        r"test conditions must be like those of training, \(2,\), got \(1,\)",
    ),
    (GREY, {"label_column": "a"}, "label_column must be left out for 'arrays'"),
    (GREY, {"categorical": ["a"]}, "categorical must be left out for 'arrays'"),
    (
        GREY,
        {"impute": "mean"},
        "impute must be left out for 'arrays', which is not a ta",
    ),
    (GREY, {"standardized": True}, "standardized is for tables"),
    (GREY, {"data_dir": "a"}, "unknown choice of data 'data_dir'"),
    (GREY, {"test_size": 40}, "test_size must leave a training example"),
    (GREY, {"labels": ["a", np.nan] * 20}, "train labels must be all text, and none"),
]


@pytest.mark.parametrize(("x", "options", "message"), BAD)
def test_bad_arrays_are_refused_in_one_line(x, options, message):
    with pytest.raises(InputError, match=message) as error:
        from_arrays(x, **options)
    assert "\n" not in str(error.value)


BAD_TABLES = [
    (
        {"kind": [f"name {i}" for i in range(40)]},
        {},
        "40 different texts such as 'name 0': list it in categorical",
    ),
    ({}, {"labels": LABELS} | OPTIONS, "labels must be left out where label_column"),
    (
        {},
        OPTIONS | {"test": GREY},
        "x of test must be a table like the others, got nda",
    ),
    (
        {},
        OPTIONS | {"label_column": "klass"},
        "unknown label_column 'klass'.*mean class",
    ),
    ({"height": [np.inf] * 40}, OPTIONS, "column 'height' must hold finite numbers"),
    ({"class": ["a", None] * 20}, OPTIONS, "must have a label in each row, got 20"),
]


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize(("changes", "options", "message"), BAD_TABLES)
def test_bad_tables_are_refused_in_one_line(frame, changes, options, message):
    with pytest.raises(InputError, match=message) as error:
        from_arrays(frame(TABLE | changes), **options)
    assert "\n" not in str(error.value)


def test_tables_that_do_not_match_are_refused():
    frame = pandas.DataFrame(TABLE)
    for test, message in [
        (
            frame.drop(columns="count"),
            "test table must have the columns height, count,",
        ),
        (frame.assign(count="x"), "same types in all splits: .*count"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            from_arrays(frame, test=test, **OPTIONS)
        assert "\n" not in str(error.value)
    mixed = frame.assign(height=["a", 1.0] * 20)
    with pytest.raises(InputError, match=r"train table cannot be read: .*height"):
        from_arrays(mixed, **OPTIONS)
    twice = pandas.concat([frame[["count"]], frame[["count"]]], axis=1)
    with pytest.raises(InputError, match="count"):
        from_arrays(twice)


class Tensor:
    """What a tensor of PyTorch answers; NumPy alone cannot read it."""

    def __init__(self, values, dtype="torch.float32"):
        self.values, self.dtype, self.is_detached = np.asarray(values), dtype, False
        self.shape, self.ndim = self.values.shape, self.values.ndim

    def detach(self):
        tensor = Tensor(self.values, self.dtype)
        tensor.is_detached = True
        return tensor

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.values.astype(np.float32)).detach()

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        if not self.is_detached:
            raise RuntimeError("call tensor.detach().numpy() instead")
        if self.dtype == "torch.bfloat16":
            raise TypeError("got unsupported ScalarType BFloat16")
        return self.values


def as_objects(parts):
    array = np.empty(len(parts), object)
    array[:] = parts
    return array


FLOATS = (GREY / 256.0).astype(jnp.bfloat16).astype(np.float32)
STRUCTURED = np.zeros(40, [("a", "f4"), ("b", "i8")])
STRUCTURED["a"], STRUCTURED["b"] = np.arange(40), LABELS


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (Tensor(FLOATS), FLOATS),
        (Tensor(FLOATS, "torch.bfloat16"), FLOATS),
        ([Tensor(image) for image in GREY], GREY),
        (jnp.asarray(FLOATS, jnp.bfloat16), FLOATS),
        (jnp.asarray(FLOATS, jnp.float16), FLOATS),
        (jnp.asarray(GREY // 32, jnp.int4), (GREY // 32)),
        (as_objects(list(GREY)), GREY),
        (ROWS.astype(object), ROWS),
        (polars.Series([[1.0, 2.0]] * 40), np.full((40, 2), [1.0, 2.0])),
        (scipy.sparse.csr_array(ROWS), ROWS),
        (np.ma.masked_greater(GREY, 300), GREY),
        (np.matrix(ROWS), ROWS),
        (STRUCTURED, np.stack([np.arange(40), LABELS], 1)),
        (GREY.astype(np.int64), GREY),
    ],
    ids=lambda x: type(x).__name__,
)
def test_arrays_of_other_libraries(x, expected):
    same(from_arrays(x), from_arrays(expected))
    same(load(x), from_arrays(expected))


def test_masked_entries_and_none_are_missing():
    x = np.ma.masked_greater(ROWS, 6)
    hole = np.where(ROWS > 6, np.nan, ROWS)
    assert np.isnan(hole).any()
    same(from_arrays(x, impute="mean"), from_arrays(hole, impute="mean"))
    lists = [[None if v > 6 else v for v in row] for row in ROWS]
    same(from_arrays(lists, impute="mean"), from_arrays(hole, impute="mean"))


class Examples:
    """A data set of PyTorch: examples by number."""

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return Tensor(GREY[i]), int(LABELS[i])


class Loader:
    """A DataLoader: batches, the last one smaller, in memory that is used again."""

    batch_size = 12

    def __len__(self):
        return 4

    def __iter__(self):
        buffer = np.empty((12, 6, 5), np.uint8)
        for first in range(0, 40, 12):
            count = len(GREY[first : first + 12])
            buffer[:count] = GREY[first : first + 12]
            yield [buffer[:count], Tensor(LABELS[first : first + 12])]


def batches():
    return ((GREY[i : i + 16], LABELS[i : i + 16]) for i in range(0, 40, 16))


@pytest.mark.parametrize(
    "make",
    [
        Examples,
        Loader,
        batches,
        lambda: list(batches()),
        lambda: ({"image": x, "label": y} for x, y in batches()),
        lambda: zip(GREY, LABELS, strict=True),
    ],
    ids=["dataset", "loader", "generator", "list", "dicts", "examples"],
)
def test_batches_are_read_into_memory_once(make):
    dataset = from_arrays(make(), test=make())
    expected = from_arrays(GREY, LABELS, test=(GREY, LABELS))
    for a, b in zip(splits(dataset), splits(expected), strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.labels, b.labels)
    assert "40 examples of shape (6, 5) (0.0 MB) were read" in dataset.notes[0]


def test_examples_without_labels_are_read_from_batches():
    for batches, shape in (
        (iter([ROWS[:30], ROWS[30:]]), (2,)),
        (iter(ROWS), (2,)),
        (iter(GREY[..., None]), (6, 5, 1)),
        ([GREY[:30, ..., None], GREY[30:, ..., None]], (6, 5, 1)),
    ):
        dataset = load(batches)
        assert dataset.shape == shape
        assert sum(map(len, splits(dataset))) == 40


def forever():
    while True:
        yield GREY


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (forever(), "x must yield at most 0.0 GB, which are held in memory"),
        (iter(()), "x must yield examples, got none"),
        (
            iter([GREY, GREY[:, 1:]]),
            r"one type and shape, got uint8 \(6, 5\) and uint8",
        ),
        (iter([(GREY, LABELS), GREY]), "labels in every batch, or in none"),
        (iter([(GREY, LABELS[1:])]), "a label for each of 40 examples, got 39"),
        (iter([GREY[:0]]), "got a batch of none"),
        (
            iter([(GREY, LABELS, LABELS)]),
            r"batches x or \(x, labels\), got a tuple of 3",
        ),
        (iter([{"a": GREY}]), "under a name such as x or image, got a"),
        (range(40), "x must yield arrays, got int"),
        ({"x": GREY}, "must be an array, a table, batches .*got dict"),
        ("digits", "got str: flaxvae.data.load reads names and paths"),
        (3.5, r"must be images .* got the shape \(\)"),
        (np.zeros((40, 2), "M8[D]"), "must hold numbers, got datetime64"),
        (np.zeros(40, [("a", "U3")]), "a structured array with the fields a"),
        (np.ma.masked_greater(GREY, 99), "must have no masked entries"),
        (as_objects([GREY[0], GREY[0, 1:]]), "must hold examples of one shape"),
        (scipy.sparse.csr_array((10**6, 10**6)), "a dense array, .*8000.0 GB"),
    ],
)
def test_what_is_not_data_is_one_line(x, message, monkeypatch):
    monkeypatch.setattr("flaxvae.data.streams.MAX_BYTES", 10_000)
    with pytest.raises(InputError, match=message) as error:
        from_arrays(x)
    assert "\n" not in str(error.value)


def test_validation_has_several_names():
    for name in ("val", "valid", "dev", "validation"):
        assert len(from_arrays(GREY, **{name: GREY[:7]}).validation) == 7
    with pytest.raises(InputError, match="val must be left out beside another"):
        from_arrays(GREY, validation=GREY, val=GREY)


def test_labels_may_come_with_the_examples():
    same(load((GREY, LABELS)), from_arrays(GREY, LABELS))
    same(from_arrays(Split(GREY, LABELS)), from_arrays(GREY, LABELS))
    with pytest.raises(InputError, match="labels must be left out"):
        from_arrays((GREY, LABELS), LABELS)


@pytest.fixture(scope="module")
def run():
    """A model that was fitted to arrays directly."""
    vae = flaxvae.models.build_vae((6, 5, 1), 2, hidden=(4,))
    data = (GREY > 99, LABELS)
    return flaxvae.fit(vae, data, epochs=1, batch_size=16, progress=False)


def test_a_model_is_fitted_to_arrays_directly(run):
    same(run.dataset, from_arrays(GREY > 99, LABELS))
    with pytest.raises(InputError, match="a name, a path or arrays, got None"):
        flaxvae.fit(run.model, None)


@pytest.mark.parametrize(
    "measure",
    [
        evaluation.evaluate,
        evaluation.evaluate_elbo,
        evaluation.active_units,
        evaluation.elbo_surgery,
        lambda run, split: evaluation.estimate_nll(run, split, num_samples=2),
        lambda run, split: run.probe(
            dataset=dataclasses.replace(run.dataset, test=split)
        ),
        lambda run, split: flaxvae.fit(
            run.model, dataclasses.replace(run.dataset, train=split), epochs=1
        ),
    ],
)
def test_no_examples_is_one_line(measure, run):
    with pytest.raises(InputError, match="must hold an example, got none"):
        measure(run, run.dataset.test[:0])
