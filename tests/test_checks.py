import math

import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import (
    InputError,
    as_integer,
    as_integers,
    check_above,
    check_at_least,
    check_below,
    check_choice,
    check_event_shape,
    check_seed,
    show,
)


def test_messages_name_rule_name_and_value():
    with pytest.raises(InputError, match=r"^latent_dim must be >= 1, got 0$"):
        check_at_least("latent_dim", 0, 1)
    with pytest.raises(InputError, match=r"^rate must be > 0, got -0.1$"):
        check_above("rate", -0.1, 0)


def test_choices_and_suggestion():
    with pytest.raises(InputError) as error:
        check_choice("prior", "vmap", ["vamp", "normal"])
    assert str(error.value) == (
        "unknown prior 'vmap': choose from normal, vamp (did you mean vamp?)"
    )
    with pytest.raises(InputError, match=r"choose from normal, vamp$"):
        check_choice("prior", "xyz", ["vamp", "normal"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_values_are_refused(value):
    with pytest.raises(InputError):
        check_at_least("beta", value, 0)
    with pytest.raises(InputError):
        check_above("beta", value, 0)


@pytest.mark.parametrize("value", ["1", None, [1], 1j, np.ones(1), b"1"])
@pytest.mark.parametrize("check", [check_at_least, check_above, check_below])
def test_what_is_not_a_number_is_refused(check, value):
    with pytest.raises(InputError, match="spread must be a number, got"):
        check("spread", value, 0)


@pytest.mark.parametrize("value", [1, None, ["vamp"], np.ones(2), 0.5])
def test_a_choice_is_a_text(value):
    with pytest.raises(InputError, match=r"unknown prior .*: choose from normal, vamp"):
        check_choice("prior", value, ["vamp", "normal"])


def test_good_values_pass():
    check_at_least("n", 1, 1)
    check_above("n", 0.1, 0)
    check_choice("prior", "vamp", ["vamp", "normal"])
    check_event_shape("output", (5, 28, 28, 1), (28, 28, 1), 3)
    check_seed(2**32 - 1)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_fit_into_32_bits(seed):
    with pytest.raises(InputError, match="seed must be >= 0 and <"):
        check_seed(seed)


def test_names_from_a_file_do_not_break_the_line():
    assert str(InputError("no column 'a\nb'\r\nin x")) == "no column 'a b' in x"


@pytest.mark.parametrize("value", [2, 2.0, np.int64(2), np.float32(2), jnp.int32(2)])
def test_any_whole_number_is_an_integer(value):
    assert as_integer("num", value) == 2
    assert type(as_integer("num", value)) is int


@pytest.mark.parametrize("value", [2.5, "2", None, True, np.bool_(True), [2], np.nan])
def test_what_is_not_a_whole_number_is_refused(value):
    with pytest.raises(InputError, match="num must be an integer, got"):
        as_integer("num", value)


@pytest.mark.parametrize(
    "value", [3, [3], (np.int64(3),), np.array([3.0]), range(3, 4)]
)
def test_one_whole_number_or_several(value):
    assert as_integers("around", value) == (3,)


@pytest.mark.parametrize("value", ["3", None, [1.5], (None,), [[1]], np.array(["3"])])
def test_others_are_refused(value):
    with pytest.raises(InputError, match="around must be an integer, got"):
        as_integers("around", value)


def test_sizes_fit_into_32_bits():
    with pytest.raises(InputError, match="num must be < 2147483648, got 1000000000"):
        as_integer("num", 1e30, 1)


def test_long_values_are_named_by_their_kind():
    assert show(jnp.zeros((3, 2))) == "an array of shape (3, 2)"
    assert show(np.float64(0.5)) == "0.5"
    assert show(object()) == "a object"
    assert show(math.sin) == "the function sin"
    assert show(InputError) == "the class InputError"
