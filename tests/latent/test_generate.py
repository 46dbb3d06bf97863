"""Generated samples, and the files they are written to."""

import dataclasses

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest

from flaxvae.checks import InputError
from flaxvae.data import condition_on_labels, from_arrays
from flaxvae.latent import encode_dataset, generate, write_examples
from flaxvae.latent.generate import choose_around, write_codes
from flaxvae.models import build_vae
from flaxvae.training import fit
from flaxvae.training.keys import Stream, stream_key
from tests.latent.untrained import as_run


@pytest.fixture(scope="module")
def vae(stripes):
    return as_run(build_vae(stripes.shape, 2, hidden=(8,)), stripes)


@pytest.fixture(scope="module")
def conditional(stripes):
    model = build_vae(
        stripes.shape, 2, hidden=(8,), conditional="concat", num_classes=8
    )
    return as_run(model, condition_on_labels(stripes))


def test_samples_of_the_prior(vae):
    x, labels = generate(vae, 6)
    assert labels is None
    key = stream_key(vae.key, Stream.FIGURES)
    np.testing.assert_array_equal(x, vae.sample(6, key=key))
    noisy, _ = generate(vae, 6, with_noise=True)
    assert set(np.unique(noisy)) <= {0.0, 1.0}
    assert (generate(vae, 6, seed=1)[0] != x).any()


def test_a_class_of_an_unconditional_model_is_that_of_training_examples(vae, stripes):
    x, labels = generate(vae, 5, label=3, dataset=stripes)
    np.testing.assert_array_equal(labels, 3)
    rows = stripes.train.labels == 3
    of_class = dataclasses.replace(stripes, train=stripes.train[rows])
    expected, _ = generate(vae, 5, sampler="aggregate", dataset=of_class)
    np.testing.assert_array_equal(x, expected)


def test_classes_in_turn_or_one_of_them(conditional):
    x, labels = generate(conditional, 10)
    np.testing.assert_array_equal(labels, [*range(8), 0, 1])
    assert x.shape == (10, 4, 4, 1)
    _, labels = generate(conditional, 4, label=7)
    np.testing.assert_array_equal(labels, 7)


def test_samples_around_examples(conditional, stripes):
    split = condition_on_labels(stripes).test[[4, 1]]
    x, labels = generate(conditional, 3, around=split, spread=0.0)
    expected = conditional.reconstruct(split.x, split.condition)
    assert labels is None
    np.testing.assert_allclose(x, np.repeat(expected, 3, axis=0), atol=1e-5)
    wide, _ = generate(conditional, 3, around=split, spread=3.0)
    assert np.abs(wide - x).max() > 1e-4


def test_examples_to_vary_are_those_of_the_test_split(stripes):
    chosen = choose_around(stripes, (3, 0))
    np.testing.assert_array_equal(chosen.x, stripes.test.x[[3, 0]])


def test_rows_have_the_tables_units():
    rng = np.random.default_rng(0)
    data = from_arrays(rng.normal([100.0, -3.0], [20.0, 0.1], (300, 2)))
    model = build_vae(data.shape, 1, hidden=(8,))
    trained = fit(model, data, epochs=40, batch_size=30, progress=False)
    x, _ = generate(trained, 400, sampler="mixture", dataset=data)
    np.testing.assert_allclose(x.mean(0), [100.0, -3.0], rtol=0.1)
    np.testing.assert_allclose(x.std(0), [20.0, 0.1], rtol=0.4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "num must be >= 1, got 0"),
        ({"label": -1}, "label must be >= 0, got -1"),
        ({"label": 8}, "label must be < 8, got 8"),
        ({"spread": -1.0}, "spread must be >= 0"),
        ({"spread": "1"}, "spread must be a number, got '1'"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"seed": -1}, "seed must be >= 0 and < "),
        ({"sampler": None}, "unknown sampler None: choose from"),
        ({"sampler": "mixture"}, "prior for a model that is conditional"),
        ({"around": "stripes", "label": 1}, "around must stand alone"),
    ],
)
def test_arguments_without_a_meaning_are_refused(conditional, arguments, message):
    with pytest.raises(InputError, match=message):
        generate(conditional, **{"num": 3, **arguments})


def test_samplers_without_examples_are_refused(vae, stripes):
    with pytest.raises(InputError, match="dataset must be stated"):
        generate(vae, 3, sampler="aggregate")
    with pytest.raises(InputError, match="label must be a class of 'stripes', got 9"):
        generate(vae, 3, label=9, dataset=stripes)
    unlabelled = from_arrays(stripes.train.x, name="bare")
    with pytest.raises(InputError, match="left out for 'bare', which has no labels"):
        generate(vae, 3, label=1, dataset=unlabelled)


IMAGES = np.linspace(0, 1, 12 * 16).reshape(12, 4, 4, 1).astype(np.float32)


def test_arrays_with_labels(tmp_path):
    write_examples(tmp_path / "new" / "SAMPLES.NPZ", IMAGES)
    assert np.load(tmp_path / "new" / "SAMPLES.NPZ")["x"].shape == IMAGES.shape
    output = tmp_path / "new" / "samples.npz"
    write_examples(output, IMAGES, np.arange(12))
    with np.load(output) as arrays:
        np.testing.assert_array_equal(arrays["x"], IMAGES)
        np.testing.assert_array_equal(arrays["labels"], range(12))
    with pytest.raises(InputError, match="output must not exist yet"):
        write_examples(output, IMAGES)


def test_a_folder_of_images(tmp_path):
    write_examples(tmp_path / "gray", IMAGES, np.full(12, 4))
    names = sorted(path.name for path in (tmp_path / "gray").iterdir())
    assert names == [f"{i:02}-4.png" for i in range(12)]
    with PIL.Image.open(tmp_path / "gray" / "11-4.png") as picture:
        assert picture.size == (4, 4)
        np.testing.assert_allclose(
            np.asarray(picture), 255 * IMAGES[11, ..., 0], atol=0.5
        )
    write_examples(tmp_path / "color", np.repeat(IMAGES, 3, axis=-1))
    with PIL.Image.open(tmp_path / "color" / "00.png") as picture:
        assert picture.mode == "RGB"
    with pytest.raises(InputError, match="for images of 2 channels"):
        write_examples(tmp_path / "two", np.repeat(IMAGES, 2, axis=-1))
    assert not (tmp_path / "two").exists()


def test_rows_with_their_columns(tmp_path):
    rows = np.array([[1.5, -2.0], [0.25, 3.0]])
    write_examples(tmp_path / "a.csv", rows, columns=("weight", "angle"))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ['"weight","angle"', "1.5,-2", "0.25,3"]
    write_examples(tmp_path / "b.CSV", rows)
    (tmp_path / "b.CSV").rename(tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text().startswith('"column 1","column 2"')
    for x, name, message in (
        (rows, "c", "output must be .npz, .csv or .parquet for rows"),
        (IMAGES, "c.csv", "output must be .npz or a folder for images"),
    ):
        with pytest.raises(InputError, match=message):
            write_examples(tmp_path / name, x)


def test_codes_are_written_with_their_examples(vae, stripes, tmp_path):
    codes = encode_dataset(vae, stripes)
    paths = write_codes(codes, tmp_path / "new")
    assert [path.name for path in paths] == ["codes.npz", "codes.parquet"]
    with np.load(paths[0]) as arrays:
        assert arrays["codes"].shape == (210, 2)
        assert arrays["split"][172] == "validation" and arrays["split"][173] == "test"
        assert arrays["index"][173] == 0
        np.testing.assert_array_equal(arrays["codes"][173:], codes.test.x)
        np.testing.assert_array_equal(arrays["label"][:150], stripes.train.labels)
    table = pyarrow.parquet.read_table(paths[1])
    assert table.column_names == ["split", "index", "label", "z1", "z2"]
    np.testing.assert_array_equal(table["z2"].to_numpy()[173:], codes.test.x[:, 1])
    bare = dataclasses.replace(codes, test=codes.test[:0], train=codes.train[:0])
    validation = dataclasses.replace(codes.validation, labels=None)
    bare = dataclasses.replace(bare, validation=validation)
    write_codes(bare, tmp_path)
    assert "label" not in np.load(tmp_path / "codes.npz").files
