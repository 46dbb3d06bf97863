"""A sweep's members as a table, and as pictures."""

import csv
import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from matplotlib.image import imread

from flaxvae.evaluation import evaluate_elbo, tabulate
from flaxvae.latent import draw_sweep
from flaxvae.models import build_vae
from flaxvae.training import Member
from tests.evaluation.untrained import untrained

GRID = {"beta": [1.0, 4.0], "seed": [0, 1]}
TERMS = ("elbo", "log_likelihood", "kl")


@pytest.fixture(scope="module")
def members(stripes):
    """Of a sweep of two epochs, with random parameters and numbers."""
    rng = np.random.default_rng(0)
    model = untrained(build_vae(stripes.shape, 2, hidden=(8,)), stripes)

    def train(seed):
        history = [
            {"epoch": n, "validation": {name: rng.normal() for name in TERMS}}
            for n in (1, 2)
        ]
        return dataclasses.replace(model, seed=seed, epochs=2, history=history)

    return [
        Member({"beta": beta, "seed": seed}, train(seed))
        for beta, seed in itertools.product(*GRID.values())
    ]


def test_the_table_and_the_pictures_of_a_sweep(members, stripes, tmp_path):
    rows = tabulate(members, folder=tmp_path)
    assert [(row["beta"], row["seed"]) for row in rows] == [
        (1.0, 0), (1.0, 1), (4.0, 0), (4.0, 1),
    ]  # fmt: skip
    last = members[2].trained.history[-1]["validation"]
    assert rows[2]["validation_elbo"] == last["elbo"]
    assert rows[2]["epochs"] == 2 and rows[2]["failure"] is None
    assert "test_elbo" not in rows[0]
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert float(lines[3]["validation_kl"]) == rows[3]["validation_kl"]
    table = pyarrow.parquet.read_table(tmp_path / "results.parquet")
    assert table.to_pylist() == rows

    paths = draw_sweep(rows, GRID, tmp_path / "figures", title="stripes")
    assert [path.name for path in paths] == [
        "rate_distortion.png",
        "elbo_against_beta.png",
    ]
    assert imread(paths[0]).shape[1] >= 1000


@pytest.mark.parametrize(("best_epoch", "counting"), [(2, 2), (None, 3)])
def test_the_best_epoch_counts_or_else_the_last(best_epoch, counting):
    history = [
        {"epoch": n, "validation": {name: 10.0 * n + i for i, name in enumerate(TERMS)}}
        for n in (1, 2, 3)
    ]
    trained = SimpleNamespace(
        history=history, best_epoch=best_epoch, parameters=7, epochs=3, timing={}
    )
    (row,) = tabulate([Member({"beta": 1.0}, trained)])
    for i, name in enumerate(TERMS):
        assert row[f"validation_{name}"] == 10.0 * counting + i
    assert (row["best_epoch"], row["epochs"]) == (best_epoch, 3)


def test_the_test_split_is_measured_by_each_members_seed(members, stripes):
    rows = tabulate(members, stripes)
    for row, member in zip(rows, members, strict=True):
        seed = member.setting["seed"]
        expected = evaluate_elbo(member.trained, stripes.test, seed=seed)
        assert row["test_elbo"] == expected["elbo"]


def test_a_failed_member_has_a_row_without_numbers(members, stripes, tmp_path):
    failed = Member(members[0].setting, members[0].trained, "loss is nan at step 3")
    rows = tabulate([failed], stripes)
    assert rows[0]["failure"] == "loss is nan at step 3"
    assert rows[0]["test_elbo"] is None
    assert draw_sweep(rows, GRID, tmp_path, title="stripes") == []
    assert not np.any(list(tmp_path.iterdir()))
