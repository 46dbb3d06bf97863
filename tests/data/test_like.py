"""New data, read as a run has read its own."""

import dataclasses
import json

import numpy as np
import pandas
import PIL.Image
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.data import Dataset, binarize, from_arrays, load
from flaxvae.data.transforms import dequantize
from flaxvae.models import VAEConfig
from flaxvae.training import Engine

RNG = np.random.default_rng(0)
PEOPLE = pandas.DataFrame(
    {"h": RNG.normal(170, 8, 60), "w": RNG.normal(70, 9, 60), "c": ["x", "y", "z"] * 20}
)
IMAGES = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)
LABELS = ["cat", "dog", "owl"] * 20
ALL = {"test_size": 0, "validation_size": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table, loaded from its folder."""
    folder = tmp_path_factory.mktemp("runs") / "people"
    data = from_arrays(PEOPLE, label_column="c", **ALL)
    vae = VAEConfig(latent_dim=2, hidden=(8,)).build(data)
    options = {"epochs": 1, "progress": False, "engine": Engine(devices=1)}
    flaxvae.fit(vae, data, workdir=folder, **options)
    return flaxvae.load(folder)


def test_a_table_is_read_by_its_names_with_the_runs_moments(run, tmp_path):
    shifted = PEOPLE.assign(h=PEOPLE.h + 50, extra=1)[["c", "w", "extra", "h"]]
    shifted.to_csv(tmp_path / "new.csv", sep=";", index=False)
    new = run.load(tmp_path / "new.csv")
    assert (len(new.train), len(new.validation), len(new.test)) == (0, 0, 60)
    np.testing.assert_allclose(new.test.x, PEOPLE[["h", "w"]] + [50, 0], rtol=1e-6)
    assert new.preprocessing.standardization is run.preprocessing.standardization
    assert new.columns == ("h", "w") and new.class_names == ("x", "y", "z")
    assert new.test.labels.tolist() == [0, 1, 2] * 20
    assert any("not used: extra" in note for note in new.notes)
    frame = run.load(PEOPLE.drop(columns="c"))
    assert frame.test.labels is None
    np.testing.assert_allclose(frame.test.x, PEOPLE[["h", "w"]], rtol=1e-6)
    codes = run.encode(frame.test.x).mean
    np.testing.assert_allclose(run.encode(PEOPLE).mean, codes, atol=1e-6)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (PEOPLE[["h", "c"]], "must have the columns h, w: w is missing"),
        (PEOPLE.assign(h="tall"), "column 'h' must hold numbers"),
        (PEOPLE.assign(c="q"), "categories that the model knows, got 'q'"),
        (PEOPLE[:0], "must hold a row, got none"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(run, frame, message):
    with pytest.raises(InputError, match=message):
        run.load(frame)


def test_labels_and_weights_may_stand_beside_a_new_table(run):
    frame, weights = PEOPLE.drop(columns="c"), np.arange(60.0)
    for new in (
        run.load(frame, labels=["z", "x"] * 30, weights=weights),
        run.load((frame, np.array(["z", "x"] * 30)), weights=weights),
    ):
        assert new.test.labels.tolist() == [2, 0] * 30
        np.testing.assert_array_equal(new.test.weights, weights)
    assert run.load(frame, labels=["q"] * 60).class_names == ("x", "y", "z", "q")
    with pytest.raises(InputError, match="labels must be left out for a table with"):
        run.load(PEOPLE, labels=PEOPLE.c)


@pytest.mark.parametrize(
    "options", [{"image_shape": (3, 2), "max_value": 9}, {"layout": "series"}]
)
def test_images_and_series_that_come_from_a_table_are_read_by_its_names(
    options, tmp_path
):
    pixels = RNG.integers(0, 10, (60, 6))
    frame = pandas.DataFrame(pixels, columns=list("abcdef")).assign(y=LABELS)
    data = from_arrays(frame, label_column="y", **options, **ALL)
    data = Dataset.from_description(data.describe())
    changed = frame[[*"fyedcba"]].assign(more="?")
    changed.to_csv(tmp_path / "new.csv", index=False)
    for source in (changed, tmp_path / "new.csv"):
        new = load(source, like=data)
        np.testing.assert_array_equal(new.test.x.reshape(60, 6), pixels)
        assert [new.class_names[i] for i in new.test.labels] == LABELS
    plain = dataclasses.replace(data, table=None)  # as of arrays
    rows = load(frame.drop(columns="y"), like=plain)
    np.testing.assert_array_equal(rows.test.x.reshape(60, 6), pixels)


def test_scores_of_a_new_table_stand_in_its_order(run, tmp_path):
    far = PEOPLE.copy()
    far.loc[7, "h"] = 400.0
    output = tmp_path / "scores.parquet"
    scores = run.score(far, output=output)
    assert np.argmin(scores["elbo"]) == 7
    written = pandas.read_parquet(output)
    assert list(written) == ["index", "label", "elbo", "log_likelihood", "kl"]
    np.testing.assert_array_equal(written["elbo"], scores["elbo"])
    split = run.load(far).test
    np.testing.assert_array_equal(run.score(split)["elbo"], scores["elbo"])
    assert run.score(split)["label"].tolist() == ["x", "y", "z"] * 20
    with pytest.raises(InputError, match="output must not exist yet"):
        run.score(run.load(far), output=output)
    with pytest.raises(InputError, match=r"must end in \.csv or \.parquet"):
        run.score(run.load(far), output=tmp_path / "scores.xlsx")


@pytest.fixture(scope="module")
def grey():
    return from_arrays(IMAGES, LABELS, **ALL)


def test_images_are_read_in_the_runs_units_shape_and_classes(grey, tmp_path):
    seen = grey.preprocessing.prepare(grey.train.x)
    for x in (
        IMAGES,
        IMAGES.astype(np.int64),
        IMAGES.reshape(60, 30),
        IMAGES / 255,
        (IMAGES / 255).astype(np.float32).reshape(60, 30),
        IMAGES.astype(np.float64),
    ):
        new = load(x, like=grey, labels=["owl"] * 60)
        np.testing.assert_allclose(new.preprocessing.prepare(new.test.x), seen, 1e-6)
        assert set(new.test.labels) == {2} and new.class_names == grey.class_names
    dark = load(IMAGES // 128, like=grey)
    assert "0 and 1 only, of 255 grey levels" in dark.notes[0]
    np.save(tmp_path / "new.npy", IMAGES.reshape(60, 30, order="F"))
    columns = IMAGES.transpose(0, 2, 1).reshape(60, 30)
    new = from_arrays(columns, like=grey, image_order="F")
    np.testing.assert_array_equal(new.test.x[..., 0], IMAGES)


def test_a_named_set_is_not_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    digits = load("digits")
    new = load("digits", like=digits)
    np.testing.assert_array_equal(new.test.x, digits.test.x)


def test_a_folder_is_resized_and_its_classes_are_numbered(grey, tmp_path):
    for name in ("owl", "yak"):
        (tmp_path / name).mkdir()
        image = PIL.Image.fromarray(np.full((12, 10, 3), 200, np.uint8))
        image.save(tmp_path / name / "a.png")
    color = from_arrays(RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8), **ALL)
    new = load(tmp_path, like=color)
    assert new.shape == (6, 5, 3) and (new.test.x == 200).all()
    image.convert("L").save(tmp_path / "owl" / "a.png")
    image.convert("L").save(tmp_path / "yak" / "a.png")
    new = load(tmp_path, like=grey)
    assert new.test.labels.tolist() == [2, 3]
    assert new.class_names == ("cat", "dog", "owl", "yak")
    assert any("does not know: yak" in note for note in new.notes)


def test_binarization_is_that_of_the_run(grey):
    static = binarize(grey, "static")
    new = load(IMAGES, like=static)
    assert set(np.unique(new.test.x)) == {0, 255} and new.levels == 2
    np.testing.assert_array_equal(new.test.x, static.train.x)
    ones = load((IMAGES > 128).astype(np.uint8), like=static)
    np.testing.assert_array_equal(ones.test.x[..., 0] > 0, IMAGES > 128)
    assert load(IMAGES, like=binarize(grey, "dynamic")).levels == 2


def test_grey_floats_are_grey_for_a_run_of_zeros_and_ones(grey):
    """Whole floats are grey levels, as the same integers are, not all of them white."""
    for kind in ("dynamic", "threshold", "static"):
        like = binarize(grey, kind)
        for x in (IMAGES.astype(np.float32), IMAGES / 255, IMAGES.astype(np.int64)):
            found = load(x, like=like)
            np.testing.assert_array_equal(found.test.x, load(IMAGES, like=like).test.x)
            assert not found.notes
    assert not load(IMAGES.astype(np.float32), like=grey).notes


def test_images_of_16_bits_are_refused_by_static_zeros_and_ones(grey):
    wide = IMAGES.astype(np.uint16) * 257
    for kind in ("static", "dynamic"):
        with pytest.raises(InputError, match="integers in 0 to 255, got 0 to 65535"):
            load(wide, like=binarize(grey, kind))


def test_a_guessed_white_far_above_the_numbers_is_a_note():
    """Such as that of images of 12 bits."""
    for x, high in ((IMAGES // 4, 63), (IMAGES.astype(np.uint16) * 16, 4080)):
        data = from_arrays(x, **ALL)
        assert any(f"hold 0 to {high} of" in note for note in data.notes)
        stated = from_arrays(x, **ALL, max_value=high)
        assert not stated.notes and not load(x, like=stated).notes
        assert stated.preprocessing.prepare(stated.train.x).max() == 1


def test_images_of_8_bits_have_the_white_of_a_run_of_16(tmp_path):
    wide = from_arrays(IMAGES.astype(np.uint16) * 257, **ALL)
    for i, image in enumerate(IMAGES):
        PIL.Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    for new in (load(IMAGES, like=wide), load(tmp_path, like=wide)):
        np.testing.assert_array_equal(new.test.x, wide.train.x)
        assert not [note for note in new.notes if "grey levels" in note]
    dark = load(IMAGES.astype(np.uint16), like=wide)  # numbers of 16 bits
    np.testing.assert_array_equal(dark.test.x[..., 0], IMAGES)
    assert "0 to 255 only, of 65535 grey levels" in dark.notes[0]


def test_floats_of_a_dequantized_run_are_its_levels(grey):
    like = dequantize(grey)
    new = load(IMAGES / 255, like=like)
    np.testing.assert_array_equal(new.test.x[..., 0], IMAGES)
    assert new.test.x.dtype == np.uint8
    with pytest.raises(InputError, match="multiples of 1/255, which it dequantizes"):
        load((IMAGES + 0.5) / 256, like=like)
    assert load((IMAGES + 0.5) / 256, like=grey).test.x.dtype == np.float32


@pytest.mark.parametrize("is_file", [False, True])
def test_fractional_floats_are_divided_as_those_of_the_run(tmp_path, is_file):
    x = RNG.uniform(0, 1000, (60, 6, 5))
    data = from_arrays(x, max_value=1000, **ALL)
    described = json.loads(json.dumps(data.describe()))
    like = Dataset.from_description(described)
    for new in (x, np.round(x), np.round(x).astype(np.uint16), x / 1000):
        if is_file:
            np.save(tmp_path / "new.npy", new)
            new = tmp_path / "new.npy"
        found = load(new, like=like)
        assert found.preprocessing.divisor == 1000
        np.testing.assert_allclose(found.test.x[..., 0], x / 1000, atol=6e-4)
    slopes = data.preprocessing.log_slopes(data.train.x)
    np.testing.assert_allclose(slopes, -30 * np.log(1000))


def test_true_is_white(grey):
    new = load(IMAGES > 128, like=grey)
    np.testing.assert_array_equal(new.test.x[..., 0], 255 * (IMAGES > 128))
    assert not new.notes
    fractional = from_arrays(IMAGES * 0.5, max_value=255, **ALL)
    new = load(IMAGES > 128, like=fractional)
    np.testing.assert_array_equal(new.test.x[..., 0], IMAGES > 128)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((4, 7, 7)), {}, "rows of 6 x 5 x 1 = 30 numbers, or images"),
        (IMAGES.astype(int) * 9, {}, "integers in 0 to 255"),
        (IMAGES, {"test_size": 3}, "unknown choice of data beside like 'test_size'"),
        (IMAGES, {"test": IMAGES}, "test must be left out beside like"),
        (IMAGES, {"name": "new"}, "name must be left out beside like"),
        (IMAGES, {"max_value": 9}, "max_value must be left out beside like"),
        (IMAGES, {"separator": ";"}, "separator must be left out for 'arrays'"),
        (IMAGES, {"missing_values": ["?"]}, "missing_values must be left out for"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(grey, x, options, message):
    with pytest.raises(InputError, match=message):
        from_arrays(x, like=grey, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_rows_beyond_float32_are_standardized_in_any_type(dtype):
    x = np.round(RNG.normal(2**24, 40, (60, 2)) / 2) * 2
    data = from_arrays(x, **ALL)
    assert data.preprocessing.standardization.on_host.all()
    new = load(x.astype(dtype), like=data)
    seen = [
        d.preprocessing.prepare(s.x) for d, s in ((new, new.test), (data, data.train))
    ]
    np.testing.assert_allclose(*seen, atol=1e-6)


def test_like_must_know_its_data():
    with pytest.raises(InputError, match="like must be a run or a data set, got int"):
        load(IMAGES, like=3)


def test_weights_come_with_arrays_and_tables(tmp_path):
    weights = np.arange(1, 61) / 10
    data = from_arrays(IMAGES, weights=weights, test_size=10, validation_size=5)
    every = [data.train.weights, data.validation.weights, data.test.weights]
    assert list(map(len, every)) == [45, 5, 10]
    assert sorted(np.concatenate(every)) == pytest.approx(sorted(weights))
    PEOPLE.assign(n=weights).to_csv(tmp_path / "a.csv", index=False)
    table = load(tmp_path / "a.csv", weight_column="n", **ALL)
    assert table.columns == ("h", "w", "c=x", "c=y", "c=z")
    np.testing.assert_allclose(table.train.weights, weights)
    counts = np.arange(60) % 3
    moments, copied = (
        from_arrays(x, weights=w, **ALL).preprocessing.standardization
        for x, w in ((PEOPLE, counts), (PEOPLE.loc[np.repeat(range(60), counts)], None))
    )
    np.testing.assert_allclose(moments.mean[:2], copied.mean[:2], rtol=1e-6)
    np.testing.assert_allclose(moments.std[:2], copied.std[:2], rtol=1e-6)
    with pytest.raises(InputError, match="train weights must be one for each of 60"):
        from_arrays(IMAGES, weights=[1.0])
    with pytest.raises(InputError, match="unknown weight_column 'm'"):
        load(tmp_path / "a.csv", weight_column="m")
    with pytest.raises(InputError, match="weights must be left out where weight_col"):
        from_arrays(PEOPLE.assign(n=weights), weights=weights, weight_column="n")
    with pytest.raises(InputError, match="must be >= 0 and not all 0"):
        from_arrays(IMAGES, weights=-weights)
