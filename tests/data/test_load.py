import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Split, hold_out, load


def test_digits_are_real_and_split():
    digits = load("digits", validation_size=100)
    assert digits.shape == (8, 8, 1)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (
        1400,
        100,
        297,
    )
    assert digits.train.x.dtype == np.uint8
    assert digits.train.x.max() == digits.max_value == 16
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
def test_hold_out_refuses_what_leaves_nothing(size):
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
