import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.latent.grids import (
    choose_grid,
    drawn_ratio,
    fit_images,
    quantile_grid,
    tile_images,
)


def test_the_grid_lies_at_the_priors_quantiles():
    grid = quantile_grid(2, steps=5)
    values = stats.norm.ppf([0.05, 0.275, 0.5, 0.725, 0.95])
    np.testing.assert_allclose(grid[0, :, 0], values, atol=1e-5)
    # The first axis runs down a picture, so the second dimension falls along it.
    np.testing.assert_allclose(grid[:, 0, 1], values[::-1], atol=1e-5)
    np.testing.assert_array_equal(grid[0, :, 1], grid[0, 0, 1])


def test_other_dimensions_keep_the_origin():
    origin = np.arange(5.0)
    grid = quantile_grid(5, dims=(3, 1), steps=4, origin=origin)
    assert grid.shape == (4, 4, 5)
    np.testing.assert_array_equal(grid[..., [0, 2, 4]], np.full((4, 4, 3), [0, 2, 4]))
    assert grid[0, -1, 3] == -grid[0, 0, 3] > 0
    assert grid[0, 0, 1] == -grid[-1, 0, 1] > 0
    assert (quantile_grid(5, dims=(3, 1))[..., 0] == 0).all()


def test_one_dimension_gives_a_strip():
    assert quantile_grid(1, dims=(0,), steps=7).shape == (1, 7, 1)


@pytest.mark.parametrize("dims", [(0, 0), (0, 2), (-1, 0), (0, 1, 1), ()])
def test_bad_dimensions_are_refused(dims):
    with pytest.raises(InputError, match="dims must be"):
        quantile_grid(2, dims=dims)


def test_tiles_lie_in_reading_order():
    images = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2, 1)
    picture = tile_images(images)
    assert picture.shape == (4, 6, 1)
    np.testing.assert_array_equal(picture[:2, 2:4], images[0, 1])
    np.testing.assert_array_equal(picture[2:, :2], images[1, 0])


def test_gaps_between_tiles_only():
    picture = tile_images(np.zeros((2, 2, 3, 3, 1)), gap=2, fill=0.5)
    assert picture.shape == (8, 8, 1)
    assert (picture[3:5] == 0.5).all()
    assert (picture[:, 3:5] == 0.5).all()
    assert picture.sum() == 0.5 * (64 - 36)


@pytest.mark.parametrize(
    "shape",
    [(28, 28), (8, 8), (64, 64), (28, 20), (600, 1), (1, 1), (3, 200), (2000, 2000)],
)
def test_a_grid_keeps_the_proportions_of_a_picture_of_squares(shape):
    rows, columns = choose_grid(5, 20, (*shape, 1))
    ratio = drawn_ratio(shape)
    assert 4 <= rows * columns <= 110
    assert 0.15 < rows * ratio / columns < 0.5
    if max(shape) <= 96 and 2 / 3 <= ratio <= 1.5:
        assert (rows, columns) == (5, 20)


def test_images_of_ordinary_size_are_left_alone():
    for shape in ((8, 8, 1), (28, 28, 1), (64, 64, 3), (4, 4, 1)):
        images = np.zeros((2, *shape))
        assert fit_images(images, 60) is images


def test_means_over_pixels_and_repeated_pixels():
    images = np.arange(400.0).reshape(1, 20, 20, 1)
    means = images.reshape(1, 4, 5, 4, 5, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(fit_images(images, 4), means)
    tall = fit_images(np.arange(3.0).reshape(3, 1, 1), 60)  # 3 to 1: enlarged
    assert tall.shape == (24, 8, 1) and (tall[8:16] == 1).all()


def test_a_grid_of_codes_with_two_numbers_of_steps():
    grid = quantile_grid(2, steps=(3, 2))
    assert grid.shape == (2, 3, 2)
    np.testing.assert_array_equal(grid[0, :, 0], grid[1, :, 0])
    assert grid[0, 0, 1] > grid[1, 0, 1]
