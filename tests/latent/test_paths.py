import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.latent import interpolate, paths
from tests.compiled import list_programs


def test_a_straight_line_with_both_ends():
    path = interpolate(np.array([0.0, 2.0]), np.array([4.0, 0.0]), 5)
    np.testing.assert_allclose(path[:, 0], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(path[:, 1], [2, 1.5, 1, 0.5, 0])


@pytest.mark.parametrize("between", [interpolate, paths.interpolate_spherically])
def test_several_paths_at_once(between):
    start, end = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    found = between(start, end, 4)
    assert found.shape == (3, 4, 2)
    np.testing.assert_allclose(found[:, 0], start, rtol=1e-6)
    np.testing.assert_allclose(found[:, -1], end, rtol=1e-6)
    np.testing.assert_allclose(found[2], between(start[2], end[2], 4), rtol=1e-6)
    mapped = jax.jit(jax.vmap(lambda a, b: between(a, b, 4)))(start, end)
    np.testing.assert_allclose(mapped, found, rtol=1e-5)


def test_an_arc_turns_evenly_at_lengths_between_those_of_its_ends(key):
    start, end = np.asarray(jax.random.normal(key, (2, 50)), np.float64)
    end *= 3.0
    arc = np.asarray(paths.interpolate_spherically(start, end, 7), np.float64)
    lengths = np.linalg.norm(arc, axis=1)
    ends = np.linalg.norm([start, end], axis=1)
    np.testing.assert_allclose(lengths, np.linspace(*ends, 7), rtol=1e-5)
    directions = arc / lengths[:, None]
    angles = np.arccos((directions[:-1] * directions[1:]).sum(1))
    whole = np.arccos(start @ end / np.prod(ends))
    np.testing.assert_allclose(angles, whole / 6, rtol=1e-4)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ([1.0, 2.0], [-2.0, -4.0]),
        ([0.0, 0.0], [1.0, 3.0]),
        ([1.0, 1.0], [2.0, 2.0]),
        ([1.0, 2.0], [1.0, 2.0]),
    ],
)
def test_an_arc_between_codes_of_one_line_is_straight(start, end):
    found = paths.interpolate_spherically(start, end, 5)
    np.testing.assert_allclose(found, np.linspace(start, end, 5), atol=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
def test_a_loop_repeats_without_a_jump(spherical):
    codes = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
    loop = np.asarray(paths.loop(codes, 5, spherical=spherical))
    assert loop.shape == (15, 2)
    np.testing.assert_allclose(loop[::5], codes, atol=1e-6)
    steps = np.linalg.norm(np.diff([*loop, loop[0]], axis=0), axis=1)
    assert 0.1 < steps.min() <= steps.max() < 0.6


def test_a_square_has_its_corners_and_straight_sides():
    corners = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 3.0], [9.0, 9.0]])
    square = np.asarray(paths.square(corners, (4, 3)))  # across, down
    assert square.shape == (3, 4, 2)
    np.testing.assert_allclose(square[[0, 0, -1, -1], [0, -1, 0, -1]], corners)
    np.testing.assert_allclose(square[0], np.linspace(*corners[:2], 4), rtol=1e-6)
    np.testing.assert_allclose(square[:, 0], np.linspace(*corners[::2], 3), rtol=1e-6)
    np.testing.assert_allclose(square[1].mean(0), corners.mean(0), rtol=1e-6)


def test_a_traversal_moves_one_dimension_a_row():
    origin = np.array([1.0, 2.0, 3.0], np.float32)
    codes = np.asarray(paths.traverse(origin, [2, 0], [[-1.0, 1.0], [7.0, 8.0]]))
    assert codes.tolist() == [
        [[1.0, 2.0, -1.0], [1.0, 2.0, 1.0]],
        [[7.0, 2.0, 3.0], [8.0, 2.0, 3.0]],
    ]


def test_values_are_quantiles_of_the_prior_or_deviations_of_the_posterior():
    values = paths.prior_values(9, low=0.1, high=0.9)
    np.testing.assert_allclose(
        stats.norm.cdf(values), np.linspace(0.1, 0.9, 9), atol=1e-6
    )
    mean, std = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    found = paths.posterior_values(mean, std, 5, extent=2.0)
    np.testing.assert_allclose(found[:, 2], mean)
    np.testing.assert_allclose(found[:, -1], mean + 2 * std)
    np.testing.assert_allclose(found[:, 0], mean - 2 * std)


def test_dimensions_by_their_kl():
    kl = jnp.array([0.2, 3.0, 0.0, 1.0])
    assert paths.rank_dimensions(kl).tolist() == [1, 3, 0, 2]
    assert paths.rank_dimensions(kl, 2).tolist() == [1, 3]


PATHS = {
    "line": lambda codes: interpolate(codes[0], codes[1], 13),
    "arc": lambda codes: paths.interpolate_spherically(codes[0], codes[1], 13),
    "loop": lambda codes: paths.loop(codes, 13, spherical=True),
    "square": lambda codes: paths.square(codes, (13, 11)),
    "traversal": lambda codes: paths.traverse(codes[0], [1, 2, 4], codes[:, :3].T),
    "quantiles": lambda codes: paths.prior_values(13, low=codes[0, 0]),
    "deviations": lambda codes: paths.posterior_values(codes[0], codes[1], 13),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_one_program(name, caplog):
    """Of codes of any values."""
    codes = np.linspace(0.1, 0.3, 20).reshape(4, 5)
    first, second = (
        list_programs(caplog, PATHS[name], values) for values in (codes, codes / 2)
    )
    assert len(first) == 1
    assert not second


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interpolate([0.0], [1.0], 1), "steps must be >= 2, got 1"),
        (lambda: paths.loop([[0.0]]), r"two or more, \(N, D\), got \(1, 1\)"),
        (lambda: paths.square(np.zeros((3, 2))), r"four codes, \(4, D\), got \(3, 2\)"),
    ],
)
def test_bad_paths_get_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_traversal_of_whole_numbers_has_the_values_that_are_stated():
    found = np.asarray(paths.traverse([0, 0], [1], [-0.5, 0.5]))
    np.testing.assert_array_equal(found, [[[0, -0.5], [0, 0.5]]])
    for dim in (-1, 2):
        with pytest.raises(InputError, match=f"dims must be .*, got {dim}"):
            paths.traverse([0.0, 0.0], [dim], [1.0])
