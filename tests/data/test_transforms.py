"""Functions from data set to data set."""

import dataclasses

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split, binarize, condition_on_labels, from_arrays
from flaxvae.data.dataset import locate_examples
from flaxvae.data.labelled import choose_labelled
from flaxvae.data.transforms import (
    dequantize,
    fill_gaps,
    map_splits,
    split_dataset,
    standardize,
    take,
)

ROWS = np.random.default_rng(0).normal(2.0, [1.0, 9.0], (60, 2))


def splits(dataset):
    return dataset.train, dataset.validation, dataset.test


def test_map_splits_changes_each_split_once_and_nothing_else(stripes):
    halves = map_splits(stripes, lambda split: split[: len(split) // 2])
    for half, whole in zip(splits(halves), splits(stripes), strict=True):
        np.testing.assert_array_equal(half.x, whole.x[: len(whole) // 2])
        np.testing.assert_array_equal(half.labels, whole.labels[: len(whole) // 2])
    assert halves.class_names == stripes.class_names


def test_conditions_are_the_labels(stripes):
    for split in splits(condition_on_labels(stripes)):
        np.testing.assert_array_equal(split.condition, split.labels)
        assert split.condition.dtype == np.int32
        assert split.batch().condition is split.condition


def test_static_binarization_of_floats_is_in_their_own_units(stripes):
    """Whatever integer would mean 1.0: floats lie in [0, 1]."""
    floats = map_splits(
        stripes, lambda s: dataclasses.replace(s, x=np.float32(s.x / 255.0))
    )
    binary, same = binarize(floats, "static"), binarize(stripes, "static")
    np.testing.assert_array_equal(255 * binary.train.x, same.train.x)


def test_without_labels_there_is_nothing_to_condition_on():
    with pytest.raises(InputError, match="conditioned on, and 'arrays' has none"):
        condition_on_labels(from_arrays(np.zeros((20, 4, 4))))


def test_binarization_and_noise_exclude_each_other(stripes):
    with pytest.raises(InputError, match=r"binarize must be none .* dequantized"):
        binarize(dequantize(stripes), "dynamic")
    with pytest.raises(InputError, match=r"dequantize is for images .* not binarized"):
        dequantize(binarize(stripes, "dynamic"))


def test_transforms_of_images_refuse_tables_and_the_reverse(stripes):
    table = from_arrays(ROWS)
    with pytest.raises(InputError, match="binarize must be none for 'arrays'"):
        binarize(table, "static")
    with pytest.raises(InputError, match="dequantize is for images"):
        dequantize(table)
    with pytest.raises(InputError, match="standardized is for tables, and 'stripes'"):
        standardize(stripes)
    with pytest.raises(InputError, match="impute must be left out for 'stripes'"):
        fill_gaps(stripes, "mean")


def test_moments_are_those_of_the_training_split():
    table = standardize(from_arrays(ROWS, standardized=False))
    moments = table.preprocessing.standardization
    np.testing.assert_allclose(moments.mean, table.train.x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, table.train.x.std(0), rtol=1e-5)


def test_a_series_of_weight_three_counts_as_three_at_each_of_its_time_steps():
    x = np.random.default_rng(0).normal(5.0, 2.0, (20, 7, 2))
    weights = np.where(np.arange(20) % 4 == 1, 3, 1)
    split = Split(x, weights=weights)
    series = Dataset("s", train=split, validation=split[:0], test=split[:0])
    found = standardize(series).preprocessing.standardization
    repeated = np.repeat(x, weights, axis=0).reshape(-1, 2)
    np.testing.assert_allclose(found.mean, repeated.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, repeated.std(0), rtol=1e-6)


def test_weights_reach_the_step_with_the_mean_one():
    split = Split(ROWS[:4], weights=np.array([1, 0, 5, 2]))
    np.testing.assert_allclose(split.batch().weight, [0.5, 0.0, 2.5, 1.0])
    assert split.total_weight == 8.0


def test_every_example_is_as_likely_to_be_labelled_as_the_others_of_its_class():
    labels = np.repeat([0, 1], [10, 30])
    chosen = np.array([choose_labelled(labels, 8, seed=seed) for seed in range(600)])
    assert (np.sum(labels[chosen] == 0, axis=1) == 4).all()
    share = np.bincount(chosen.ravel(), minlength=40) / 600
    expected = np.where(labels == 0, 4 / 10, 4 / 30)
    error = np.sqrt(expected * (1 - expected) / 600)
    np.testing.assert_array_less(abs(share - expected), 4.5 * error)


@pytest.mark.parametrize(("method", "value"), [("mean", 4.0), ("median", 2.0)])
def test_gaps_of_every_split_get_the_value_of_the_training_split(method, value):
    train = np.array([[1.0, 1], [2.0, 1], [9.0, 1], [np.nan, 1]])
    others = (np.array([[np.nan, 5.0], [100.0, 5.0]]),) * 2
    table = from_arrays(
        train, validation=others[0], test=others[1], impute=method, standardized=False
    )
    assert table.train.x[3, 0] == value
    for split in (table.validation, table.test):
        np.testing.assert_array_equal(split.x, [[value, 5], [100, 5]])


def test_a_column_without_a_value_is_named():
    x = ROWS.copy()
    x[:, 1] = np.nan
    with pytest.raises(InputError, match="column '1' must have a value in the train"):
        from_arrays(x, impute="mean")


def test_take_keeps_every_class_in_proportion(stripes):
    few = take(stripes, 40, seed=2)
    assert len(few.train) == 40
    assert few.test is stripes.test
    share = np.bincount(stripes.train.labels) * 40 / 150
    assert (abs(np.bincount(few.train.labels) - share) < 1).all()
    np.testing.assert_array_equal(take(stripes, 40, seed=2).train.x, few.train.x)
    assert not np.array_equal(take(stripes, 40).train.x, few.train.x)
    assert take(stripes, 150) is stripes


@pytest.mark.parametrize("count", [0, 151])
def test_take_refuses_what_there_is_not(stripes, count):
    with pytest.raises(
        InputError, match=f"num_examples must be in 1 to 150, got {count}"
    ):
        take(stripes, count)


def test_only_missing_splits_are_split_off(stripes):
    options = {"validation_size": 10, "test_size": 20, "seed": 0}
    same = zip(splits(split_dataset(stripes, **options)), splits(stripes), strict=True)
    assert all(one is other for one, other in same)
    none = stripes.test[:0]
    whole = dataclasses.replace(stripes, validation=none, test=none)
    assert [len(s) for s in splits(split_dataset(whole, **options))] == [120, 10, 20]
    fixed = split_dataset(whole, **options | {"seed": None})
    assert [len(s) for s in splits(fixed)] == [140, 10, 0]
    np.testing.assert_array_equal(fixed.validation.x, stripes.train.x[140:])


def test_the_choice_of_a_seed_never_changes():
    """Runs of earlier versions can be evaluated on the examples that they held out."""
    rows = np.arange(40.0)[:, None]
    dataset = from_arrays(rows, np.arange(40) % 3, test_size=5, validation_size=4)
    assert dataset.test.x.ravel().tolist() == [4, 11, 24, 27, 34]
    assert dataset.validation.x.ravel().tolist() == [0, 7, 8, 26]
    other = from_arrays(rows, num_examples=12, split_seed=7, test_size=3)
    assert other.train.x.ravel().tolist() == [0, 4, 9, 10, 14, 20, 22, 28, 32]
    assert other.test.x.ravel().tolist() == [12, 19, 30]


def test_static_binarization_never_changes(stripes):
    binary = binarize(stripes, "static")
    sums = [int(split.x.sum()) for split in splits(binary)]
    assert sums == [166515, 24990, 44625]


@pytest.mark.parametrize("num_examples", [None, 60])
def test_examples_that_are_drawn_keep_their_rows(num_examples):
    x = np.arange(300.0).reshape(100, 3)
    data = from_arrays(x, test_size=20, num_examples=num_examples)
    for split in data.splits:
        np.testing.assert_array_equal(np.asarray(split.x), x[split.rows])
    located = locate_examples(data)
    drawn = np.concatenate([split.x for split in data.splits])
    np.testing.assert_array_equal(drawn, x[located["row"]])
    assert list(located) == ["split", "index", "row"]
    whole = from_arrays(x, test=x[:20], validation_size=0)
    assert "row" not in locate_examples(whole)
