import dataclasses

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import DataConfig, Dataset, Split, from_arrays, load
from flaxvae.data.sources import SOURCES, Source
from flaxvae.data.transforms import hold_out
from flaxvae.settings import describe_settings, field_docs, settings_from_description


def test_digits_are_real_and_split():
    digits = load("digits", validation_size=100)
    assert digits.shape == (8, 8, 1)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (
        1400,
        100,
        297,
    )
    assert digits.train.x.dtype == np.uint8
    assert digits.train.x.max() == digits.preprocessing.max_value == 16
    assert set(np.unique(digits.test.labels)) == set(range(10))
    everything = np.concatenate([digits.train.x, digits.validation.x, digits.test.x])
    assert everything.sum() == 561718  # of sklearn.datasets.load_digits().data


def test_the_split_is_the_same_every_time():
    np.testing.assert_array_equal(load("digits").test.x, load("digits").test.x)


@pytest.mark.parametrize(("size", "count"), [(0, 0), (0.25, 5), (7, 7), (7.0, 7)])
def test_hold_out_takes_a_count_or_a_fraction(size, count):
    split = Split(np.arange(20)[:, None], np.arange(20))
    rest, held = hold_out(split, size)
    assert (len(rest), len(held)) == (20 - count, count)
    np.testing.assert_array_equal(
        np.concatenate([rest.labels, held.labels]), split.labels
    )


@pytest.mark.parametrize("size", [-1, -0.1, 20, 21, 0.99, float("nan")])
def test_hold_out_refuses_to_leave_nothing(size):
    with pytest.raises(InputError, match="validation_size must"):
        hold_out(Split(np.zeros((20, 1))), size)


def test_bad_names():
    with pytest.raises(
        InputError, match=r"unknown dataset 'mnits'.*did you mean mnist"
    ):
        load("mnits")
    with pytest.raises(InputError, match="unknown binarize 'statc'"):
        load("digits", binarize="statc")
    with pytest.raises(InputError, match="data_dir must be left out"):
        load("digits", data_dir="/tmp")


def test_load_is_short_for_the_settings():
    settings = {"num_examples": 300, "split_seed": 3, "binarize": "threshold"}
    short, long = (
        load("digits", **settings),
        DataConfig(dataset="digits", **settings).load(),
    )
    assert short.describe() == long.describe()
    np.testing.assert_array_equal(short.validation.x, long.validation.x)


def test_paths_may_be_path_objects(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((40, 4, 4), np.uint8))
    assert (
        load(tmp_path / "a.npy").describe() == load(str(tmp_path / "a.npy")).describe()
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_size": -1}, "validation_size must be >= 0, got -1"),
        ({"test_size": float("nan")}, "test_size must be >= 0, got nan"),
        ({"num_examples": 0}, "num_examples must be >= 1, got 0"),
        ({"num_examples": 2.5}, "num_examples must be an integer, got 2.5"),
        ({"split_seed": -1}, r"seed must be >= 0 and < 2\*\*32, got -1"),
        ({"binarize": "statc"}, "unknown binarize 'statc'.*mean static"),
        ({"impute": "maen"}, "unknown impute 'maen'.*mean mean"),
        (
            {"binarize": "static", "dequantize": True},
            "dequantize is for images stored as integers and not binarized",
        ),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(settings, message):
    with pytest.raises(InputError, match=message):
        DataConfig(**settings)


def test_a_mistyped_setting_gets_a_suggestion():
    with pytest.raises(InputError, match=r"'binarise'.*did you mean binarize"):
        load("digits", binarise="static")
    with pytest.raises(InputError, match="'valid_size'"):
        from_arrays(np.zeros((20, 4, 4)), valid_size=3)


@pytest.mark.parametrize("dataset", [np.zeros((9, 4)), [[1.0, 2.0]], None])
def test_settings_name_their_data(dataset):
    with pytest.raises(InputError, match=r"flaxvae\.data\.from_arrays"):
        DataConfig(dataset=dataset)


def test_arrays_in_place_of_a_name_are_read():
    assert load(np.zeros((9, 4))).shape == (4,)
    with pytest.raises(InputError, match="a name, a path or arrays, got None"):
        load(None)


def test_settings_come_back_from_their_description():
    config = DataConfig(
        dataset="a.csv",
        categorical=["kind"],
        data_dir="~/data",
        image_shape=[28, 28],
        image_size=np.int64(64),
    )
    assert config.image_size == (64, 64)
    assert settings_from_description(DataConfig, describe_settings(config)) == config
    assert DataConfig(categorical="kind").categorical == ("kind",)
    fields = {field.name for field in dataclasses.fields(DataConfig)}
    assert field_docs(DataConfig).keys() == fields


@pytest.mark.parametrize("has_fixed_splits", [True, False])
def test_a_source_is_one_entry_of_the_dict(monkeypatch, has_fixed_splits):
    x = np.arange(40, dtype=np.float32)[:, None]

    def load_numbers(folder):
        assert folder is None
        split = Split(x)
        return Dataset("numbers", split, split[:0], split[:0])

    source = Source(load_numbers, has_fixed_splits=has_fixed_splits)
    monkeypatch.setitem(SOURCES, "numbers", source)
    dataset = load("numbers", validation_size=4)
    if has_fixed_splits:
        np.testing.assert_array_equal(dataset.validation.x, x[-4:])
        assert len(dataset.test) == 0
    else:
        assert len(dataset.test) == 4
        assert not np.array_equal(dataset.validation.x, x[-4:])
    with pytest.raises(InputError, match=r"choose from .*numbers"):
        load("nombers")


def test_a_source_without_files_takes_no_folder(tmp_path):
    without = [name for name, source in SOURCES.items() if not source.needs_files]
    assert {"digits", "sprites"} <= set(without)
    for name in without:
        with pytest.raises(InputError, match="data_dir must be left out for dataset"):
            load(name, data_dir=tmp_path)
