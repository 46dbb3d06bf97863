"""The command: files in the order of the data, thresholds, one-line errors."""

import json

import numpy as np
import pandas
import pytest

from experiments import anomaly_detection
from experiments.anomaly import benchmark
from experiments.anomaly.tables import TABLES
from experiments.command import run_command
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


def test_a_table_gets_a_score_per_row_in_its_order(call, table, tmp_path):
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--contamination=1"], "contamination must be < 1, got 1"),
        (["--label_column=odd", "--normal_class=2"], "unknown normal_class '2'"),
        (["--normal_class=0"], "normal_class must be left out for data without class"),
        (["--output=s.txt"], "output must end in .csv or .parquet, got s.txt"),
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


def test_the_tables_of_validation_can_be_measured():
    tables = [make(np.random.default_rng(0)) for make in TABLES.values()]
    for rows, labels in tables:
        assert np.isfinite(rows).all() and len(rows) == len(labels)
        assert 0.02 < labels.mean() < 0.32
    config = DetectorConfig(steps=3, copies=1, hidden=4)
    found = benchmark.measure("wine_0", 0, config)
    assert all(0 <= found[name] <= 1 for name in ("VAE", *benchmark.DETECTORS))
