"""The ledger: rows are read, run, continued, shortened, recorded and rendered."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from experiments.flags import read_flags
from experiments.reproduce import __main__ as page
from experiments.reproduce import ledger, rows, runs
from flaxvae import InputError

FOLDERS = {name: Path("data") for name in rows.FOLDERS}
ROW = rows.Row(
    name="a-row",
    run="a-row",
    title="A VAE",
    commands=(
        ("mnist_vae", "--data_dir={mnist}", "--epochs=40", "--workdir={run}/first"),
        ("evaluate", "--nll_samples=5000", "--seed=3", "--workdir={run}"),
    ),
    number="test.nll",
    error="test.error",
    published=86.0,
    source="Somebody 2020",
    tolerance=0.5,
    protocol="test images",
    deviations="none",
)
RESULT = ledger.Result(
    row="a-row",
    fingerprint=ROW.fingerprint,
    number=86.4,
    error=0.0123,
    seed=3,
    epochs=40,
    device="cpu",
    seconds=750.0,
    commit="0123abc",
    date="2026-01-02",
    versions={"jax": "0.10"},
)


@pytest.fixture
def process(monkeypatch):
    """Commands that write what a run would, in place of processes."""
    calls, codes = [], {}

    def run(words):
        calls.append(words[2:])
        folder = Path(words[-1].removeprefix("--workdir="))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "timing.jsonl").write_text('{"epoch": 1, "seconds": 6.0}\n')
        (folder / "metrics.jsonl").write_text("{}\n" * 4)
        test = {"nll": 86.25, "error": 0.01}
        (folder / "summary.json").write_text(json.dumps({"test": test}))
        return codes.get(len(calls), 0)

    monkeypatch.setattr(runs, "run_process", run)
    return calls, codes


OWN_RUNS = [row for row in rows.read_rows().values() if row.run == row.name]


@pytest.mark.parametrize("row", OWN_RUNS, ids=lambda row: row.name)
def test_the_commands_of_every_row_are_accepted(row, tmp_path):
    for program, *words in row.expand(tmp_path / "run", FOLDERS):
        module = importlib.import_module(f"experiments.{program}")
        read_flags(module.Flags, program, words)
        assert f"{tmp_path}/run" in " ".join(words)  # its files are found again


def test_rows_are_checked(tmp_path):
    path = tmp_path / "rows.toml"

    def refused(text, message):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            rows.read_rows(path)

    refused("[a\n", r"rows.toml must be TOML")
    refused('[a]\ntitel = "x"\ncommands = ["x"]', "unknown field of a 'titel'.*title")
    refused('[a]\ncommands = ["x"]', "row a must have title, number, protocol")
    with pytest.raises(InputError, match=r"unknown name in a-row's commands 'mnsit'"):
        dataclasses.replace(ROW, commands=(("mnist_vae", "--data_dir={mnsit}"),))
    with pytest.raises(InputError, match="unknown better of a-row 'more'"):
        dataclasses.replace(ROW, better="more")
    with pytest.raises(InputError, match="a row's name must be of"):
        dataclasses.replace(ROW, name="a row")


def test_a_row_is_met_within_its_tolerance():
    assert ROW.is_met(86.5)
    assert not ROW.is_met(86.51)
    higher = dataclasses.replace(ROW, better="higher")
    assert higher.is_met(85.5)
    assert not higher.is_met(85.49)
    stricter = dataclasses.replace(ROW, tolerance=-0.5)
    assert stricter.is_met(85.5)
    assert not stricter.is_met(85.6)


def test_a_result_belongs_to_the_commands_that_measured_it():
    assert ledger.describe_status(ROW, None) == "not run"
    assert ledger.describe_status(ROW, RESULT) == "met"
    worse = dataclasses.replace(RESULT, number=86.6)
    assert ledger.describe_status(ROW, worse) == "not met"
    changed = dataclasses.replace(ROW, commands=(("mnist_vae", "--epochs=3"),))
    assert ledger.describe_status(changed, RESULT) == "run with other settings"
    renamed = dataclasses.replace(ROW, title="Another title", published=80.0)
    assert renamed.fingerprint == ROW.fingerprint


def test_rows_without_a_published_number_are_measured(tmp_path):
    alone = dataclasses.replace(ROW, published=None, source="", deviations="")
    assert ledger.describe_status(alone, None) == "not run"
    assert ledger.describe_status(alone, RESULT) == "measured"
    rendered = ledger.make_markdown({"a-row": alone}, {"a-row": RESULT})
    assert "|  | 86.40 ± 0.01 | measured |" in rendered
    with pytest.raises(InputError, match="a-row must have all or none of published"):
        dataclasses.replace(ROW, source="")


def test_rows_with_the_same_commands_share_a_run(process, tmp_path):
    path = tmp_path / "rows.toml"
    same = 'title = "x"\nprotocol = "x"\nnumber = "test.{}"\n'
    path.write_text(
        f'[a]\n{same.format("nll")}commands = ["score --workdir={{run}}"]\n'
        f'[b]\n{same.format("error")}commands_of = "a"\n'
    )
    a, b = rows.read_rows(path).values()
    assert a.commands == b.commands
    assert (a.run, b.run) == ("a", "a")
    assert a.folder == b.folder
    assert a.fingerprint != b.fingerprint
    calls, _ = process
    assert runs.measure(a, tmp_path, FOLDERS).number == 86.25
    assert runs.measure(b, tmp_path, FOLDERS).number == 0.01
    assert len(calls) == 1


def test_a_row_is_measured(process, tmp_path):
    calls, _ = process
    result = runs.measure(ROW, tmp_path, FOLDERS)
    run = tmp_path / ROW.folder
    assert calls[0] == [
        *("experiments.mnist_vae", "--data_dir=data", "--epochs=40"),
        f"--workdir={run}/first",
    ]
    assert (result.number, result.error) == (86.25, 0.01)
    assert (result.seed, result.epochs) == (3, 8)  # two trainings
    negative = dataclasses.replace(ROW, negative=True)
    assert runs.read_number(negative, run)[0] == -86.25


def test_an_interrupted_row_goes_on(process, tmp_path):
    calls, codes = process
    codes[2] = 143
    with pytest.raises(runs.CommandError, match=r"evaluate .* ended with code 143"):
        runs.measure(ROW, tmp_path, FOLDERS)
    runs.measure(ROW, tmp_path, FOLDERS)
    names = [words[0].removeprefix("experiments.") for words in calls]
    assert names == ["mnist_vae", "evaluate", "evaluate"]


def test_a_budget_shortens_a_row(process, tmp_path):
    calls, _ = process
    # 6 seconds an epoch: 70 % of two minutes are 14 epochs.
    number, error, changes = runs.measure_shortened(ROW, tmp_path, FOLDERS, 2.0)
    assert (number, error) == (86.25, 0.01)
    assert changes == "14 of 40 epochs, 100 of 5000 nll_samples"
    assert [words[2] for words in calls[:2]] == ["--epochs=1", "--epochs=14"]
    assert calls[2][1] == "--nll_samples=100"
    full = tmp_path / ROW.folder
    assert not full.exists()
    assert runs.measure_shortened(ROW, tmp_path, FOLDERS, 60.0)[2].startswith("40 of")


def test_shortened_commands_keep_their_other_words():
    words = ["mnist_vae", "--epochs=30", "--kl_epochs=10", "--seeds=5", "--hidden", "2"]
    short = runs.shorten(words, lambda n: int(n / 10))
    assert short == [
        *("mnist_vae", "--epochs=3", "--kl_epochs=1", "--seeds=1", "--hidden", "2")
    ]


def test_a_number_is_the_mean_of_several(tmp_path):
    (tmp_path / "areas.csv").write_text("table,VAE\nx,0.9\nx,0.8\nx,0.7\n")
    row = dataclasses.replace(ROW, file="areas.csv", number="VAE")
    number, error = runs.read_number(row, tmp_path)
    assert number == pytest.approx(0.8)
    assert error == pytest.approx(0.1 / 3**0.5)
    (tmp_path / "errors.json").write_text('{"error": {"M2": [0.9, 0.8, 0.7]}}')
    row = dataclasses.replace(ROW, file="errors.json", number="error.M2", error=None)
    assert runs.read_number(row, tmp_path) == (number, error)


def test_results_are_kept_and_rendered(tmp_path):
    ledger.write_result(RESULT, tmp_path)
    assert ledger.read_results(tmp_path) == {"a-row": RESULT}
    second = dataclasses.replace(ROW, name="b-row")
    both = {"a-row": ROW, "b-row": second}
    text = ledger.make_markdown(both, {"a-row": RESULT})
    first, last = text.splitlines()[2:]
    assert "| 86.00 nats, Somebody 2020 | 86.40 ± 0.01 | met | 40 epochs, " in first
    assert "seed 3, cpu, 12 min, 0123abc, 2026-01-02" in first
    assert "|  | not run |  |" in last
    page = tmp_path / "README.md"
    page.write_text(f"before\n{ledger.BEGIN}\nold\n{ledger.END}\nafter\n")
    ledger.write_readme(text, page)
    ledger.write_readme(text, page)
    expected = f"before\n{ledger.BEGIN}\n{text}\n{ledger.END}\nafter\n"
    assert page.read_text() == expected
    page.write_text("no comments")
    with pytest.raises(InputError, match="must have the lines <!-- ledger -->"):
        ledger.write_readme(text, page)


def test_the_figure_has_a_row_for_each_result(tmp_path):
    both = {"a-row": ROW, "b-row": dataclasses.replace(ROW, name="b-row")}
    heights = []
    for results in (("a-row",), ("a-row", "b-row")):
        found = {name: dataclasses.replace(RESULT, row=name) for name in results}
        ledger.draw_ledger(both, found, tmp_path / "ledger.png")
        heights.append(len(imread(tmp_path / "ledger.png")))
    assert heights[1] > heights[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "one of list, row, all and render must be given, got 0"),
        ({"list": True, "all": True}, "must be given, got 2"),
        (
            {"all": True, "budget": 3.0, "record": True},
            "shortened runs are not recorded",
        ),
        ({"all": True, "budget": 0.0}, "budget must be > 0, got 0"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        page.Flags(**flags)


def test_rows_are_chosen():
    measured = {"a-row": RESULT}
    both = {"a-row": ROW, "b-row": dataclasses.replace(ROW, name="b-row")}
    flags = page.Flags(all=True, mnist_dir=Path("data"))
    assert [row.name for row in page.choose_rows(flags, both, measured)] == ["b-row"]
    with pytest.raises(InputError, match="mnist_dir must be given for the row b-row"):
        page.choose_rows(page.Flags(all=True), both, measured)
    with pytest.raises(InputError, match="unknown row 'c-row': choose from a-row"):
        page.choose_rows(page.Flags(row=("c-row",)), both, measured)


def test_a_failure_does_not_end_the_other_rows(process, tmp_path, capsys):
    calls, codes = process
    codes[1] = 1
    flags = page.Flags(row=("x",), mnist_dir=Path("data"), workdir=tmp_path)
    other = dataclasses.replace(ROW, name="b-row", run="b-row")
    with pytest.raises(SystemExit) as end:
        page.run_rows(flags, [ROW, other])
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert "error: a-row: mnist_vae" in err
    assert "b-row: 86.25 ± 0.01 nats, met (published 86.00 nats)" in out
    assert (tmp_path / "b-row.json").exists()
    codes[len(calls) + 1] = 130
    with pytest.raises(SystemExit) as end:
        page.run_rows(flags, [ROW, other])
    assert end.value.code == 130
