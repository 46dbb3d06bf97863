"""Which number is white, and how many levels there are."""

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import from_arrays, load
from flaxvae.data import levels as levels_file
from flaxvae.data.levels import find_binary
from flaxvae.data.rows import blocks

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
ONES = (GREY > 99).astype(np.uint8)


def seen(dataset):
    return np.asarray(dataset.preprocessing.prepare(dataset.train.x))


@pytest.mark.parametrize(
    "x",
    [
        ONES,
        ONES > 0,
        ONES * 1.0,
        ONES * np.uint8(255),
        ONES * np.uint16(65535),
        ONES * np.int64(7),
        ONES * 255.0,
    ],
    ids=lambda x: f"{x.dtype}-{x.max()}",
)
def test_zero_and_one_other_number_are_binary(x):
    dataset = from_arrays(x, test_size=0, validation_size=0)
    assert dataset.levels == 2
    np.testing.assert_array_equal(seen(dataset)[..., 0], ONES)
    guesses = ["read as binary" in note for note in dataset.notes]
    assert guesses == ([True] if x.max() > 1 else [])


def test_max_value_declares_grey_levels():
    dataset = from_arrays(ONES * np.uint8(255), max_value=255)
    assert dataset.levels == 256
    assert dataset.notes == ()


def test_a_third_number_anywhere_means_grey_levels():
    x = ONES * np.uint8(255)
    test = x.copy()
    test[-1, -1, -1] = 3
    assert from_arrays(x, test=test).levels == 256
    assert from_arrays(np.full((20, 4, 4), 255, np.uint8)).levels == 256


@pytest.mark.parametrize(
    ("x", "max_value", "dtype", "levels"),
    [
        (GREY * 1.0, 255, np.uint8, 256),  # whole floats have levels
        (GREY * 257.0, 65535, np.uint16, 65536),
        (GREY / 2.0, 255, np.float32, None),
        (GREY / 255.0, 1, np.float32, None),
        (GREY // 16, 15, np.uint8, 16),
    ],
)
def test_max_value_of_floats_and_integers(tmp_path, x, max_value, dtype, levels):
    dataset = from_arrays(x, max_value=max_value, test_size=0, validation_size=0)
    assert dataset.train.x.dtype == dtype
    assert dataset.levels == levels
    np.testing.assert_allclose(seen(dataset)[..., 0], x / max_value, rtol=1e-6)
    np.save(tmp_path / "a.npy", x)
    same = load(tmp_path / "a.npy", max_value=max_value, test_size=0, validation_size=0)
    np.testing.assert_array_equal(same.train.x, dataset.train.x)


@pytest.mark.parametrize(
    ("x", "max_value", "message"),
    [
        (GREY * 1.0, None, "floats in 0 to 1, got .*such as max_value=255"),
        (GREY * 257.0, None, "such as max_value=65535"),
        (GREY / 127.5 - 1, None, r"map -1 to 1 by \(x \+ 1\) / 2"),
        (GREY * 1.0, 99, "floats in 0 to max_value=99, got"),
        (GREY, 9.5, "max_value must be a whole number"),
        (GREY, 1e6, "max_value must be a whole number up to 65535"),
        (GREY, 0, "max_value must be > 0"),
        (GREY.reshape(40, 30), 255, "max_value is for images, .*image_shape"),
    ],
)
def test_numbers_out_of_the_range_say_what_to_do(x, max_value, message):
    with pytest.raises(InputError, match=message):
        from_arrays(x, max_value=max_value)


def test_a_large_file_is_scanned_once_and_floats_are_scaled_lazily(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("flaxvae.data.rows.LAZY_BYTES", 0)
    monkeypatch.setattr("flaxvae.data.rows.BLOCK_BYTES", 60)  # two images
    count = []

    def counted(x):
        for block in blocks(x):
            count.append(len(block))
            yield block

    monkeypatch.setattr(levels_file, "blocks", counted)
    np.save(tmp_path / "a.npy", ONES * np.uint8(255))
    np.save(tmp_path / "b.npy", GREY)
    np.save(tmp_path / "c.npy", GREY / np.float32(2))
    assert load(tmp_path / "a.npy", test_size=0).levels == 2
    assert sum(count) == 40
    count.clear()
    assert load(tmp_path / "b.npy", test_size=0).levels == 256
    assert len(count) == 1  # the first block shows grey levels
    options = {"test_size": 0, "validation_size": 0, "max_value": 255}
    lazy = load(tmp_path / "c.npy", **options)
    np.testing.assert_allclose(np.asarray(lazy.train.x)[..., 0], GREY / 510, rtol=1e-6)


def test_a_split_of_zeros_is_binary_beside_any_white():
    zeros, white = np.zeros((4, 3), np.uint8), np.full((2, 3), 255, np.uint8)
    assert find_binary([white, zeros]) == find_binary([zeros, white]) == 255
    assert find_binary([zeros, zeros]) == 1
    assert find_binary([white, zeros + np.uint8(1)]) is None
