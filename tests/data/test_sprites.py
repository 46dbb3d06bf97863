"""Sprites drawn from their factors."""

import jax
import numpy as np
import pytest

from flaxvae.data import drawing, load, sprites


@pytest.fixture(scope="module")
def images():
    """Images by factors."""
    render = jax.jit(drawing.draw_sprites)
    return lambda *factors: np.asarray(render(np.array([factors], np.uint8)))[0, ..., 0]


def test_every_combination_once():
    factors = sprites.all_factors()
    assert factors.shape == (737_280, 5)
    assert tuple(factors.max(0) + 1) == (3, 6, 40, 32, 32)
    numbers = np.ravel_multi_index(factors.T.astype(int), drawing.FACTOR_SIZES)
    np.testing.assert_array_equal(numbers, np.arange(737_280))


def centroid(image):
    return np.array(np.nonzero(image)).mean(1)  # row, column


def test_positions_move_the_same_shape(images):
    for shape in range(3):
        first = images(shape, 5, 7, 0, 0)
        last = images(shape, 5, 7, 31, 31)
        right = images(shape, 5, 7, 31, 0)
        assert set(np.unique(first)) == {0, 1}
        moved = centroid(last) - centroid(first)
        np.testing.assert_allclose(moved, 64 - 1 - 2 * 12, atol=0.5)
        np.testing.assert_allclose((centroid(right) - centroid(first))[0], 0, atol=0.5)


def test_nothing_is_cut_off_at_the_edge(images):
    for shape in range(3):
        for turn in range(40):
            corners = [images(shape, 5, turn, x, y) for x in (0, 31) for y in (0, 31)]
            border = [
                c[0].sum() + c[-1].sum() + c[:, 0].sum() + c[:, -1].sum()
                for c in corners
            ]
            assert max(border) == 0
            areas = [c.sum() for c in corners]
            assert max(areas) - min(areas) < 0.05 * max(areas)


@pytest.mark.parametrize(
    ("shape", "area"), [(0, 2.0), (1, np.pi / 2)], ids=["square", "ellipse"]
)
def test_areas_agree_with_geometry(images, shape, area):
    """In units of the radius: a square's corners and an ellipse's end lie on it."""
    for size in range(6):
        radius = drawing.RADIUS * (0.5 + 0.1 * size)
        drawn = np.mean([images(shape, size, turn, 15, 15).sum() for turn in range(40)])
        assert drawn == pytest.approx(area * radius**2, rel=0.05)


def test_orientation_turns_against_the_first(images):
    """A quarter turn of the image is ten of the forty steps, for the heart too."""
    for shape in range(3):
        middle = [images(shape, 5, turn, 15, 15) for turn in (0, 10)]
        center = drawing.RADIUS + 0.5 + 15 * (64 - 1 - 2 * (drawing.RADIUS + 0.5)) / 31
        # The image is turned about its middle; move the sprite's centre there first.
        size = 64
        rows, columns = np.mgrid[:size, :size] - center
        turned = np.zeros_like(middle[0])
        inside = np.nonzero(middle[0])
        down, right = rows[inside], columns[inside]
        new_rows, new_columns = right + center, -down + center
        turned[np.rint(new_rows).astype(int), np.rint(new_columns).astype(int)] = 1
        different = (turned != middle[1]).sum()
        assert different < 0.1 * turned.sum(), shape


def test_symmetries_tell_the_shapes_apart(images):
    def differ(shape, turns):
        return (images(shape, 5, 0, 15, 15) != images(shape, 5, turns, 15, 15)).sum()

    assert differ(0, 10) <= 4  # a square is the same after a quarter turn
    assert differ(1, 10) > 50
    assert differ(1, 20) <= 4  # an ellipse after a half
    assert differ(2, 20) > 50  # a heart only after a whole


def test_the_data_set_stores_factors_and_shows_images():
    dataset = load("sprites", num_examples=500)
    assert dataset.shape == (64, 64, 1)
    assert dataset.train.x.shape[1:] == (5,)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [428, 22, 50]
    np.testing.assert_array_equal(dataset.train.factors, dataset.train.x)
    np.testing.assert_array_equal(dataset.train.labels, dataset.train.x[:, 0])
    assert dataset.factor_names[3] == "position_x"
    assert dataset.levels == 2
    x = jax.jit(dataset.preprocessing)(dataset.train.x[:7], jax.random.key(0))
    assert x.shape == (7, 64, 64, 1)
    assert "not the original file" in dataset.origin
