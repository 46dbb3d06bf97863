"""The VAE of rows: exact beside NumPy, and independent of what fills its arrays."""

import dataclasses

import jax
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.estimators import VAEImputer, VAETransformer, programs
from flaxvae.estimators.rows import LENGTH, choose_validation

F = 5


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(300, 2))
    x = codes @ rng.normal(size=(2, F)) + 0.3 * rng.normal(size=(300, F))
    return x * [1.0, 10.0, 0.1, 1.0, 3.0] + [0.0, 100.0, 1.0, -2.0, 5.0]


@pytest.fixture(scope="module")
def fitted(rows):
    return VAETransformer(random_state=0).fit(rows)


def by_numpy(vae, rows):
    """The networks in float64, with the arrays of the table's own columns alone."""
    params = vae.variables["params"]

    def dense(layer, x):
        return x @ np.asarray(layer["kernel"], np.float64) + layer["bias"]

    def encode(x):
        layer = params["encoder"]["hidden_0"]
        h = np.where(np.isnan(x), 0.0, x) @ np.float64(layer["kernel"][:F])
        h = np.maximum(h + layer["bias"], 0)
        return np.split(dense(posterior, h), 2, axis=-1)

    def decode(z):
        h = np.maximum(dense(params["decoder"]["hidden_0"], z), 0)
        layer = params["decoder"]["output"]
        return h @ np.float64(layer["kernel"][:, :F]) + layer["bias"][:F]

    (posterior,) = params["posterior"].values()
    log_scale = np.float64(params["likelihood"]["log_scale"][:F])
    assert (np.abs(log_scale) < 6).all()  # where its soft bound is the identity
    moments = rows.mean(axis=0), rows.std(axis=0)
    return encode, decode, log_scale, moments


def test_codes_and_means_are_those_of_a_network_of_the_tables_columns(rows, fitted):
    encode, decode, _, (mean, std) = by_numpy(fitted.vae_, rows)
    codes, _ = encode((rows - mean) / std)
    np.testing.assert_allclose(fitted.transform(rows), codes, atol=1e-4)
    expected = decode(codes) * std + mean
    np.testing.assert_allclose(fitted.inverse_transform(codes), expected, rtol=1e-4)


def test_the_score_is_the_mean_elbo_in_the_rows_own_units(rows, fitted):
    encode, decode, log_scale, (mean, std) = by_numpy(fitted.vae_, rows)
    rng = np.random.default_rng(1)
    code_mean, raw = encode((rows - mean) / std)
    log_var = raw  # within its soft bounds
    kl = 0.5 * (np.exp(log_var) + code_mean**2 - 1 - log_var).sum(axis=1)
    elbos = []
    for _ in range(200):
        z = code_mean + np.exp(log_var / 2) * rng.normal(size=code_mean.shape)
        location, scale = decode(z) * std + mean, np.exp(log_scale) * std
        squares = ((rows - location) / scale) ** 2 + np.log(2 * np.pi * scale**2)
        elbos.append(-0.5 * squares.sum(axis=1) - kl)
    expected = np.mean(elbos)
    deviation = np.std(elbos, axis=0).mean() / np.sqrt(16 * len(rows))
    assert fitted.score(rows) == pytest.approx(expected, abs=5 * deviation + 1e-3)


def test_the_score_has_the_units_of_the_rows(rows, fitted):
    larger = VAETransformer(random_state=0).fit(rows * 1024.0)
    expected = fitted.score(rows) - F * np.log(1024.0)
    assert larger.score(rows * 1024.0) == pytest.approx(expected, abs=1e-3)


def test_a_row_has_the_same_numbers_in_a_table_of_any_length(rows, fitted):
    few, many = rows[:100], rows  # in batches of 256 and of 4,096
    np.testing.assert_array_equal(
        fitted.vae_.elbos(few), fitted.vae_.elbos(many)[: len(few)]
    )
    np.testing.assert_array_equal(
        fitted.transform(few), fitted.transform(many)[: len(few)]
    )
    alone = [fitted.transform(row[None])[0] for row in rows[:3]]
    np.testing.assert_array_equal(alone, fitted.transform(rows)[:3])


def test_columns_that_fill_a_row_change_nothing(rows, fitted):
    """Their decoder, their scale and their encoder may be anything."""
    vae = fitted.vae_
    variables = jax.tree.map(np.array, vae.variables)
    params = variables["params"]
    params["encoder"]["hidden_0"]["kernel"][F:] += 3.0
    params["decoder"]["output"]["kernel"][:, F:] += 3.0
    params["likelihood"]["log_scale"][F:] += 3.0
    changed = dataclasses.replace(vae, variables=variables)
    for method in ("encode", "elbos", "impute"):
        before, after = (getattr(each, method)(rows[:100]) for each in (vae, changed))
        np.testing.assert_allclose(after, before, rtol=1e-6)


def test_rows_that_fill_a_validation_do_not_count():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    batch = programs._fill_validation(x)
    assert batch.x.shape == (programs.VALIDATION, 3)
    weighted = np.asarray(batch.weight)[:, None] * np.asarray(batch.x)
    np.testing.assert_allclose(weighted.mean(axis=0), x.mean(axis=0), atol=1e-6)


def test_settings_of_a_search_and_tables_of_any_length_share_a_program(rows):
    VAETransformer(random_state=0, max_epochs=1).fit(rows)
    compiled = programs._compile_training.cache_info().misses
    for table in (rows[:50], rows[:, :3], np.tile(rows, (3, 1))[:450]):
        for chosen in ({"beta": 0.5}, {"learning_rate": 1e-4}, {"max_epochs": 3}):
            VAETransformer(**{"random_state": 1, "max_epochs": 2, **chosen}).fit(table)
    assert programs._compile_training.cache_info().misses == compiled


def test_a_training_does_not_depend_on_the_steps_of_a_call(rows, fitted, monkeypatch):
    monkeypatch.setattr(programs, "CHUNK", 200)  # not a whole number of calls
    programs._compile_training.cache_clear()
    again = VAETransformer(random_state=0).fit(rows)
    programs._compile_training.cache_clear()
    np.testing.assert_allclose(again.transform(rows), fitted.transform(rows), atol=1e-3)


def test_a_validation_ends_a_training_that_overfits():
    noise = np.random.default_rng(0).normal(size=(500, 16))
    vae = VAETransformer(max_epochs=500, learning_rate=0.02, random_state=0)
    assert vae.fit(noise).n_iter_ < 500
    assert vae.vae_.elbo.argmax() < len(vae.vae_.elbo) - 1


def test_the_length_of_a_training_follows_from_the_rows():
    assert LENGTH.steps(50, None) == LENGTH.least
    assert LENGTH.steps(1_280, None) == 3_000
    assert LENGTH.steps(10**6, None) == LENGTH.most
    assert LENGTH.steps(1_280, 10) == 100
    rng = np.random.default_rng(0)
    assert len(choose_validation(499, 0.1, rng)) == 0
    assert len(choose_validation(500, 0.1, rng)) == 50
    assert len(choose_validation(10**5, 0.1, rng)) == programs.VALIDATION


def test_samples_have_the_moments_of_the_rows(rows, fitted):
    drawn = fitted.sample(4_000)
    assert drawn.shape == (4_000, F)
    np.testing.assert_array_equal(drawn, fitted.sample(4_000))
    off = (drawn.mean(axis=0) - rows.mean(axis=0)) / rows.std(axis=0)
    assert np.abs(off).max() < 0.25
    assert drawn.std(axis=0) == pytest.approx(rows.std(axis=0), rel=0.25)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * [1.0, 0.0, 1.0],  # a constant column
        lambda x: x + np.array([0.0, 1e30, 0.0]),
        lambda x: x * [1.0, 1e300, 1.0],
        lambda x: x**9,  # heavy tails
        lambda x: x[:, :1],
        lambda x: np.ones_like(x),
        lambda x: np.where(x > 0, x, np.nan),
        lambda x: np.where(np.arange(3) == 1, np.nan, x),  # a column without a number
        lambda x: x[:2],
    ],
)
def test_unusual_tables_have_finite_codes_and_scores(change):
    table = change(np.random.default_rng(0).normal(size=(40, 3)))
    vae = VAETransformer(max_epochs=30, random_state=0).fit(table)
    assert np.isfinite(vae.transform(table)).all()
    assert np.isfinite(vae.score(table))
    assert np.isfinite(vae.inverse_transform(vae.transform(table))).all()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"n_components": 0}, "n_components must be >= 1, got 0"),
        ({"hidden_layer_sizes": "many"}, "hidden_layer_sizes must be an integer"),
        ({"validation_fraction": 1.0}, "validation_fraction must be >= 0 and < 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
        ({"max_epochs": 0}, "max_epochs must be >= 1"),
        ({"beta": -1.0}, "beta must be >= 0"),
        ({"encoder": "conv"}, "encoder must be mlp without image_shape, got conv"),
        ({"image_shape": (2, 2)}, r"H \* W \* C = 5, the number of columns"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(rows, chosen, message):
    vae = VAETransformer(**{"random_state": 0, **chosen})
    with pytest.raises(InputError, match=message):
        vae.fit(rows)


def test_the_imputer_fills_in_conditional_means():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1)) * [1.0, 2.0, -1.0] + 0.3 * rng.normal(size=(400, 3))
    holes = np.zeros_like(x, bool)
    holes[::3, 1] = True
    table = np.where(holes, np.nan, x)
    imputer = VAEImputer(random_state=0)
    filled = imputer.fit_transform(table)
    np.testing.assert_array_equal(filled[~holes], x[~holes])
    covariance = np.cov(x.T)  # of a normal distribution the mean is known
    weights = np.linalg.solve(covariance[[0, 2]][:, [0, 2]], covariance[[0, 2], 1])
    best = (x - x.mean(axis=0))[:, [0, 2]] @ weights + x[:, 1].mean()
    least = np.sqrt(np.mean((best - x[:, 1])[holes[:, 1]] ** 2))
    error = np.sqrt(np.mean((filled - x)[holes] ** 2))
    assert error < 1.2 * least < 0.4 * x[:, 1].std()
    alone = [imputer.transform(row[None])[0] for row in table[:7]]
    np.testing.assert_array_equal(alone, filled[:7])
