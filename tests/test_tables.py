"""Runs on tables: columns of every kind, missing values, rows of the table again."""

import dataclasses

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import flaxvae
from flaxvae import Run
from flaxvae.checks import InputError
from flaxvae.models import AutoencoderConfig, VAEConfig, build_vae
from flaxvae.nn.likelihoods import MixedHead
from flaxvae.objectives import IWAE, Reconstruction
from tests.data.people import CATEGORIES, compare, make_people
from tests.evaluation.untrained import untrained

PEOPLE = make_people(400)
CONFIG = VAEConfig(hidden=(32,))
QUICK = {"batch_size": 64, "progress": False}


@pytest.fixture(scope="module")
def dataset():
    return flaxvae.data.from_arrays(PEOPLE, impute="mask")


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "people"
    return flaxvae.fit(
        CONFIG.build(dataset), dataset, epochs=20, workdir=folder, **QUICK
    )


def test_mixed_is_the_default_where_columns_are_not_all_numbers(dataset):
    assert isinstance(CONFIG.build(dataset).likelihood, MixedHead)
    numbers = flaxvae.data.from_arrays(PEOPLE.select(["height", "age"]))
    assert not isinstance(CONFIG.build(numbers).likelihood, MixedHead)
    mixed = VAEConfig(likelihood="mixed").build(numbers).likelihood
    assert [kind for kind, *_ in mixed.columns] == ["real", "integer"]
    rows = flaxvae.data.from_arrays(np.random.default_rng(0).normal(size=(40, 3)))
    assert VAEConfig(likelihood="mixed").build(rows).likelihood.columns == (
        (("real",),) * 3
    )


def test_generated_rows_are_rows_of_the_table(run):
    made = run.generate_table(300)
    assert made.schema.equals(PEOPLE.schema)
    for name, values in CATEGORIES.items():
        assert set(made[name].to_pylist()) <= set(values)
    assert set(made["member"].to_pylist()) == {"yes", "no"}
    assert 5 < made["score"].null_count < 120
    ages = made["age"].to_numpy()
    assert ages.min() >= 18 and ages.max() <= 90
    assert 160 < made["height"].to_numpy().mean() < 180
    x, labels = run.generate(300)
    assert labels is None
    assert run.preprocessing.schema.decode(x).equals(made)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_generated_rows_are_written(run, suffix, tmp_path):
    path = tmp_path / f"made{suffix}"
    loaded = flaxvae.load(run.workdir)
    loaded.generate(30, output=path)
    read = pyarrow.parquet.read_table if suffix == ".parquet" else pyarrow.csv.read_csv
    made = read(path)
    expected = run.generate_table(30)
    assert made.column_names == PEOPLE.column_names
    for name in ("age", "visits", "member", "city"):
        assert made[name].to_pylist() == expected[name].to_pylist()
    with pytest.raises(InputError, match="parquet for rows"):
        run.generate(3, output=tmp_path / "made.png")


def test_a_run_fills_gaps_and_knows_its_columns(run, dataset):
    x = dataset.test.x
    assert np.isnan(x).any()
    filled = run.preprocessing.inverse(np.asarray(run.reconstruct(x)))
    assert np.isfinite(filled).all()
    score = list(run.preprocessing.schema.feature_names).index("score")
    assert abs(filled[:, score]).max() < 20
    codes = run.encode(x).mean
    table = run.preprocessing.schema.decode(x)
    reordered = table.select(table.column_names[::-1])
    np.testing.assert_allclose(run.encode(reordered).mean, codes, atol=1e-5)
    with pytest.raises(InputError, match="city is missing"):
        run.encode(table.drop_columns(["city"]))


def test_numbers_of_rows_with_gaps_are_finite(run, dataset):
    report = run.evaluate(nll_samples=20)
    assert all(np.isfinite(value) for value in report["test"].values())
    assert 0 < -report["test"]["elbo"] < 30


def test_other_objectives_and_streamed_examples_take_gaps(dataset):
    engine = flaxvae.training.Engine(device_memory_budget=20_000)
    bare = dataclasses.replace(dataset, validation=dataset.validation[:0])
    again = flaxvae.fit(
        CONFIG.build(dataset),
        bare,
        objective=IWAE(num_samples=2),
        epochs=1,
        engine=engine,
        **QUICK,
    )
    assert np.isfinite(again.history[-1]["train"]["elbo"])


def test_models_that_cannot_leave_values_out_are_refused(dataset):
    elbo, error = flaxvae.objectives.ELBO(), Reconstruction()
    for config, objective, ending in [
        (VAEConfig(likelihood="normal"), elbo, "Head: or choose likelihood=mixed$"),
        (AutoencoderConfig(), error, "got mask and Autoencoder$"),
        (AutoencoderConfig(likelihood="mixed"), error, "got mask and Autoencoder$"),
    ]:
        model = config.build(dataset)
        with pytest.raises(InputError, match=f"impute must be mean or .*{ending}"):
            flaxvae.fit(model, dataset, objective=objective, epochs=1, **QUICK)
    vae = build_vae(dataset.shape, likelihood="mixed")
    with pytest.raises(InputError, match="must be built for the columns"):
        flaxvae.fit(vae, dataset, epochs=1, **QUICK)


def test_classes_are_a_column_of_generated_rows():
    dataset = flaxvae.data.from_arrays(
        PEOPLE, label_column="colour", drop_columns=["score"]
    )
    dataset = flaxvae.data.condition_on_labels(dataset)
    vae = VAEConfig(hidden=(8,), conditional=True).build(dataset)
    made = Run.of(untrained(vae, dataset), dataset).generate_table(6)
    assert made["colour"].to_pylist() == ["blue", "green", "red"] * 2
    assert set(made.column_names) == set(PEOPLE.column_names) - {"score"}


def test_a_normal_likelihood_generates_rows_of_the_table_too():
    dataset = flaxvae.data.from_arrays(PEOPLE, impute="median")
    vae = VAEConfig(hidden=(8,), likelihood="normal").build(dataset)
    made = Run.of(untrained(vae, dataset), dataset).generate_table(50)
    assert made.schema.equals(PEOPLE.schema)
    assert set(made["plan"].to_pylist()) <= set(CATEGORIES["plan"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["year", "seconds", "offset"])
def test_elbos_are_of_the_order_of_the_number_of_columns(kind):
    rng = np.random.default_rng(0)
    column = {
        "year": np.full(400, 2024),
        "seconds": np.round(1.7e9 + 1e3 * rng.normal(size=400)),
        "offset": 1.1e6 + rng.normal(size=400),
    }[kind]
    table = pyarrow.table({"a": rng.normal(size=400), "b": column})
    dataset = flaxvae.data.from_arrays(table)
    vae = VAEConfig(hidden=(8,)).build(dataset)
    run = flaxvae.fit(vae, dataset, epochs=2, **QUICK)
    assert abs(run.evaluate()["test"]["elbo"]) < 6
    for x in (
        run.generate(100)[0],
        run.preprocessing.inverse(np.asarray(run.reconstruct(dataset.test.x))),
    ):
        assert abs(np.mean(x[:, 1]) - column.mean()) < 2 * column.std() + 1


@pytest.mark.slow
def test_ten_thousand_generated_rows_are_like_those_of_the_table(tmp_path):
    """Columns within 0.1 of their distributions, pairs of their correlations."""
    people = make_people(10_000)
    dataset = flaxvae.data.from_arrays(people, impute="mask")
    run = flaxvae.fit(VAEConfig().build(dataset), dataset, progress=False)
    distances, correlation = compare(people, run.generate_table(10_000))
    assert max(distances.values()) < 0.06, distances
    assert correlation < 0.1
