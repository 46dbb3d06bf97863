"""Which code, class and example each place of a picture shows."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.latent import panels, series
from flaxvae.latent.grids import as_colors, fit_images
from flaxvae.models import build_autoencoder
from tests.latent.untrained import as_run


class Linear:
    """A decoder that says so: the pixels, or time steps, are z_0, z_1, c and scale.

    Its codes are the first two pixels, its samples the codes 0, 1, 2, ...
    """

    latent_dim = 2
    code_shape = (2,)
    has_levels = False
    model = SimpleNamespace(condition=SimpleNamespace(num_classes=3))
    preprocessing = Preprocessing()

    def __init__(self, data_shape=(2, 2, 1), scale=1.0):
        self.data_shape = data_shape
        self.scale = scale

    def encode(self, x, condition=None):
        return SimpleNamespace(mean=np.reshape(x, (len(x), -1))[:, :2])

    def decode(self, z, condition=None):
        c = np.zeros(len(z)) if condition is None else np.asarray(condition)
        pixels = [z[:, 0], z[:, 1], c, np.full(len(z), self.scale)]
        mean = np.stack(pixels, axis=1).reshape(len(z), *self.data_shape)
        return SimpleNamespace(mean=np.float32(mean))

    def sample(self, num, *, key, sampler=None, condition=None):
        z = np.stack([np.arange(num), np.zeros(num)], axis=1)
        return self.decode(z, condition).mean


def pixels(images):
    return np.reshape(images, (*images.shape[:2], 4))


CLASSES = np.repeat(np.arange(3)[:, None], 4, axis=1)  # a row per class


def test_a_class_has_a_row_of_samples_and_a_code_a_column(key):
    drawn = pixels(panels.class_samples(Linear(), CLASSES, key=key))
    np.testing.assert_array_equal(drawn[..., 2], CLASSES)
    np.testing.assert_array_equal(drawn[..., 0], np.arange(12).reshape(3, 4))
    changed = pixels(panels.class_change(Linear(), CLASSES, key=key))
    np.testing.assert_array_equal(changed[..., 2], CLASSES)
    np.testing.assert_array_equal(changed[..., :2], np.stack([changed[0, :, :2]] * 3))
    assert len(np.unique(changed[0, :, 0])) == 4


def test_a_condition_has_a_row_of_series_and_a_code_a_column(key):
    model = Linear((4, 1))
    drawn = pixels(series.condition_samples(model, np.arange(3), key=key))
    expected = np.broadcast_to(np.arange(3)[:, None], (3, series.COLUMNS))
    np.testing.assert_array_equal(drawn[..., 2], expected)
    order = np.arange(3 * series.COLUMNS).reshape(3, series.COLUMNS)
    np.testing.assert_array_equal(drawn[..., 0], order)
    changed = pixels(series.condition_change(model, np.arange(3), key=key))
    np.testing.assert_array_equal(changed[..., 2], expected)
    np.testing.assert_array_equal(changed[..., :2], np.stack([changed[0, :, :2]] * 3))
    assert len(np.unique(changed[0, :, 0])) == series.COLUMNS


@pytest.mark.parametrize("module", [panels, series])
def test_paths_lead_from_every_second_example_to_the_next(module):
    shape = (2, 2, 1) if module is panels else (4, 1)
    x = np.random.default_rng(0).random((5, *shape), np.float32)
    paths, (starts, ends) = module.interpolations(Linear(shape), Split(x))
    assert len(paths) == len(starts) == len(ends) == 2  # the fifth has no next one
    np.testing.assert_array_equal(starts, x[[0, 2]])
    np.testing.assert_array_equal(ends, x[[1, 3]])
    codes, steps = pixels(paths)[..., :2], paths.shape[1]
    first, last = (np.reshape(each, (2, 4))[:, :2] for each in (starts, ends))
    np.testing.assert_allclose(codes[:, 0], first, rtol=1e-6)
    np.testing.assert_allclose(codes[:, -1], last, rtol=1e-6)
    way = (last - first) / (steps - 1)
    np.testing.assert_allclose(codes[:, 1], first + way, rtol=1e-5)


def test_an_autoencoders_codes_are_drawn_with_the_moments_of_training_codes(key):
    """In each dimension; the VAE's column holds its own paths and samples."""
    rng = np.random.default_rng(0)
    x = np.zeros((400, 2, 2, 1), np.float32)
    x[:, 0, :, 0] = rng.normal([5.0, -3.0], [0.1, 4.0], (400, 2))
    train, test = Split(x), Split(x[:20])
    data = Dataset("d", train=train, validation=train[:0], test=test)
    own, other = Linear(), Linear(scale=2.0)
    (paths, others), (drawn, samples) = panels.comparison(own, other, data, key=key)
    assert (pixels(paths)[..., 3] == 1).all() and (pixels(drawn)[..., 3] == 1).all()
    assert (pixels(others)[..., 3] == 2).all() and (pixels(samples)[..., 3] == 2).all()
    np.testing.assert_array_equal(paths[:, 0, 0], x[[0, 2, 4, 6, 8], 0])
    np.testing.assert_array_equal(pixels(paths)[..., :2], pixels(others)[..., :2])
    eps = (pixels(drawn)[..., :2] - x[:, 0, :, 0].mean(0)) / x[:, 0, :, 0].std(0)
    normal = jax.random.normal(key, eps.shape, "float32")
    np.testing.assert_allclose(eps, normal, rtol=1e-2, atol=1e-2)


def test_a_map_of_codes_is_enlarged_by_repeating_its_entries(monkeypatch):
    entries = np.eye(3, dtype=np.float32)
    monkeypatch.setattr(panels, "codebook_size", lambda trained: len(entries))
    model = SimpleNamespace(
        model=SimpleNamespace(apply=lambda v, n, method: entries[n]), variables={}
    )
    codes = entries[np.array([[[0, 1], [2, 0]]])]  # (1, 2, 2, 3)
    small = panels.code_maps(model, codes, (2, 2))
    large = panels.code_maps(model, codes, (4, 6))
    assert small.min() >= 0 and small.max() <= 1
    np.testing.assert_array_equal(large, small.repeat(2, axis=1).repeat(3, axis=2))


def test_opacity_shows_white_below():
    pixel = np.array([[[0.2, 0.4, 1.0, 0.25]]])
    np.testing.assert_allclose(as_colors(pixel), [[[0.8, 0.85, 1.0]]])
    with_two = as_colors(np.array([[[0.2, 0.4]]]))
    np.testing.assert_allclose(with_two, [[[0.3]]])


def test_a_pixel_of_a_reduced_image_is_the_mean_of_those_below():
    """Also where they are not equally many: 8 pixels become 3, of 2, 3 and 3."""
    image = np.arange(64.0).reshape(8, 8, 1)
    ends = [slice(0, 2), slice(2, 5), slice(5, 8)]
    means = [[image[a, b].mean() for b in ends] for a in ends]
    np.testing.assert_allclose(fit_images(image, 3)[::3, ::3, 0], means)


def test_noisy_examples_are_denoised_by_their_codes(stripes):
    data = dataclasses.replace(stripes, preprocessing=Preprocessing())
    trained = as_run(build_autoencoder(data.shape, 4, hidden=(8,)), data)
    noisy = np.random.default_rng(0).random((3, *data.shape), np.float32)
    expected = trained.decode(trained.encode(noisy).mean).mean
    np.testing.assert_allclose(panels.denoised(trained, noisy), expected, atol=1e-6)
