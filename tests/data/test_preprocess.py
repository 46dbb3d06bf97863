import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, binarize
from flaxvae.data.preprocess import Standardization, scale


def test_scale_maps_integers_to_the_unit_interval_and_keeps_floats():
    x = jnp.array([0, 8, 16], jnp.uint8)
    np.testing.assert_allclose(scale(x, 16.0), [0.0, 0.5, 1.0])
    floats = jnp.array([0.0, 0.2])
    np.testing.assert_array_equal(scale(floats, 16.0), floats)


def test_no_binarization_keeps_grey_levels(stripes, key):
    x = binarize(stripes, "none").preprocessing(jnp.asarray(stripes.train.x), key)
    np.testing.assert_allclose(x, stripes.train.x / 255.0, rtol=1e-6)


def test_dynamic_binarization_draws_at_each_use_with_the_grey_level_as_probability(
    stripes, key
):
    preprocess = binarize(stripes, "dynamic").preprocessing
    batch = jnp.asarray(stripes.train.x[:1])
    draws = jax.vmap(lambda k: preprocess(batch, k))(jax.random.split(key, 4000))
    draws = np.asarray(draws)
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = stripes.train.x[:1] / 255.0
    error = np.sqrt(p * (1 - p) / len(draws))
    assert (abs(draws.mean(0) - p) < 4.5 * error + 1e-6).all()


@pytest.mark.parametrize("method", ["static", "threshold"])
def test_fixed_binarizations_give_zero_and_one_and_never_change(stripes, key, method):
    fixed = binarize(stripes, method)
    preprocess = fixed.preprocessing
    x = preprocess(jnp.asarray(fixed.train.x), key)
    again = preprocess(jnp.asarray(fixed.train.x), jax.random.fold_in(key, 1))
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(binarize(stripes, method).test.x, fixed.test.x)


def test_static_draws_have_the_grey_level_as_probability(stripes):
    ones = binarize(stripes, "static").train.x == 255
    p = stripes.train.x / 255.0
    error = np.sqrt((p * (1 - p)).sum())
    assert abs(ones.sum() - p.sum()) < 4 * error
    assert not ones[stripes.train.x == 0].any()


def test_threshold_is_at_half_grey(stripes, key):
    grey = jnp.asarray(stripes.train.x)
    ones = binarize(stripes, "threshold").preprocessing(grey, key)
    np.testing.assert_array_equal(ones, stripes.train.x >= 127.5)
    middle = Preprocessing(16.0, binarize="threshold").prepare(np.uint8([7, 8, 9]))
    np.testing.assert_array_equal(middle, [0, 1, 1])  # one half becomes one


@pytest.mark.parametrize(("max_value", "dtype"), [(255, np.uint8), (9, np.int32)])
def test_dequantization_fills_the_interval_of_each_integer(max_value, dtype, key):
    """Integer x becomes (x + u) / (max_value + 1), u uniform on [0, 1); its mean is
    that of u = 1/2."""
    preprocessing = Preprocessing(float(max_value), dequantize=True)
    x = jnp.asarray([[0, 1, 4, max_value]], dtype)
    prepared = preprocessing.prepare(x)
    exact = np.array([[0.5, 1.5, 4.5, max_value + 0.5]]) / (max_value + 1)
    np.testing.assert_allclose(prepared, exact, rtol=1e-6)
    draws = jax.vmap(lambda k: preprocessing(x, k))(jax.random.split(key, 4000))
    u = np.float64(draws) * (max_value + 1) - np.asarray(x)
    assert u.min() > -1e-3
    assert u.max() < 1 + 1e-3
    error = np.sqrt(1 / 12 / len(draws))
    np.testing.assert_array_less(abs(u.mean(0) - 0.5), 4.5 * error)
    np.testing.assert_allclose(u.var(0), 1 / 12, rtol=0.06)
    np.testing.assert_allclose(preprocessing(np.float32(exact), key), exact, rtol=1e-6)


MOMENTS = Standardization(np.zeros(2, np.float32), np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("preprocessing", "dtype", "levels"),
    [
        (Preprocessing(), np.uint8, 2),
        (Preprocessing(255.0), np.uint8, 256),
        (Preprocessing(16.0), np.uint8, 17),
        (Preprocessing(), np.float32, None),
        (Preprocessing(255.0, dequantize=True), np.uint8, None),
        (Preprocessing(255.0, binarize="dynamic"), np.uint8, 2),
        (Preprocessing(binarize="threshold"), np.float32, 2),
        (Preprocessing(255.0, render="sprites"), np.uint8, 2),
        (Preprocessing(standardization=MOMENTS), np.float32, None),
    ],
)
def test_levels_are_the_values_that_the_model_sees(preprocessing, dtype, levels):
    assert preprocessing.levels(dtype) == levels


@pytest.mark.parametrize("on_host", [None, np.array([False, True])])
def test_standardization_and_its_inverse_by_hand(on_host):
    mean, std = np.array([10.0, -4.0]), np.array([2.0, 8.0])
    moments = Standardization(mean, std, on_host)
    x = np.array([[12.0, 4.0], [10.0, -8.0]])
    seen = moments.apply(jnp.asarray(moments.stored(x)))
    np.testing.assert_allclose(seen, [[1.0, 1.0], [0.0, -0.5]])
    np.testing.assert_allclose(moments.inverse(np.asarray(seen)), x)
    series = np.array([[[0.5, 2.0]]])  # (N, T, F)
    np.testing.assert_allclose(moments.inverse(series), [[[11.0, 12.0]]])


def test_a_description_restores_the_preprocessing():
    before = Preprocessing(3.0, "dynamic", False, None, "sprites")
    assert Preprocessing.from_description(before.describe()) == before
    table = Preprocessing(standardization=MOMENTS)
    restored = Preprocessing.from_description(table.describe())
    np.testing.assert_array_equal(restored.standardization.std, MOMENTS.std)
    # An old run's description, with fewer entries and those of the data set.
    old = {"name": "a", "shape": [4, 4, 1], "max_value": 16.0}
    assert Preprocessing.from_description(old) == Preprocessing(16.0)


def test_unknown_choices_are_refused():
    with pytest.raises(InputError, match="unknown binarize 'dynamik'"):
        Preprocessing(binarize="dynamik")
    with pytest.raises(InputError, match="unknown render 'sprite'"):
        Preprocessing(render="sprite")
