import concurrent.futures
import json
import re

import pytest

pytest.importorskip("torch", reason="the comparison needs the extra torch")

from experiments import benchmark_pytorch as benchmark
from experiments.benchmark_pytorch import Flags, Result
from experiments.contenders import Agreement
from flaxvae.checks import InputError


def make_result(contender, *step_seconds, network="mlp", loss=100.0):
    return Result(
        network=network,
        precision="float32",
        batch_size=128,
        contender=contender,
        steps_per_epoch=10,
        step_seconds=list(step_seconds),
        start_seconds=3.0,
        memory_bytes=10**8,
        loss=loss,
        share=0.5,
    )


RESULTS = [
    make_result("flaxvae", 0.001, 0.004, 0.002),
    make_result("PyTorch, tutorial", 0.01, 0.007, 0.008),
    make_result("PyTorch, tuned", 0.006, 0.003, 0.005),
]


@pytest.mark.slow
def test_a_benchmark_checks_agreement_and_times_everyone(run, tmp_path):
    code, out, err = run(
        "benchmark_pytorch",
        *("--networks", "mlp", "--batch_sizes", 16),
        *("--repeats=2", "--epochs=1", "--seconds=0.01", "--end_to_end=0", "--quick"),
        f"--workdir={tmp_path}",
    )
    assert code == 0, err
    report = json.loads((tmp_path / "results.json").read_text())
    (agreement,) = report["agreement"]
    assert max(agreement["loss"], agreement["gradient"]) < 1e-5
    names = ("flaxvae", "PyTorch, tutorial", "PyTorch, tuned")
    assert [result["contender"] for result in report["results"]] == list(names)
    for result in report["results"]:
        assert len(result["step_seconds"]) == 2
        # Each draws its own z in these few steps; above they had the same.
        assert result["loss"] == pytest.approx(report["results"][0]["loss"], rel=0.04)
        assert result["start_seconds"] >= 0
        assert result["memory_bytes"] >= 0
        assert 0 < result["share"] < 2
        assert f"│ {result['contender']} " in out
    assert report["results"][0]["start_seconds"] > 0.1  # compiling
    assert "random images" in out
    assert "GFLOP/s" in out
    assert re.search(r"torch.compile: left out", out)
    assert (tmp_path / "figures" / "speed.png").stat().st_size > 10_000


def test_the_opponent_is_the_fastest_pytorch_and_ratios_are_of_medians():
    assert benchmark.find_best(RESULTS).contender == "PyTorch, tuned"
    row = benchmark.make_markdown(RESULTS).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "mlp, 128",
        "2 (1 to 4)",
        "64,000",
        "50%",
        "5 (3 to 6), tuned",
        "2.50",
        "4.00",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(networks=("mpl",)), "unknown networks 'mpl'.*mlp"),
        (Flags(networks=("mlp-binary",)), "grey levels.*mlp-binary"),
        (Flags(repeats=0), "repeats must be >= 1, got 0"),
        (Flags(batch_sizes=(1,)), "batch_sizes must be >= 2, got 1"),
        (Flags(seconds=0.0), "seconds must be > 0, got 0"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        benchmark.check_flags(flags)


def test_quick_leaves_what_was_asked_for():
    flags = benchmark.check_flags(Flags(quick=True, repeats=7))
    assert flags.repeats == 7
    assert flags.networks == benchmark.QUICK["networks"]


def test_losses_that_differ_are_an_error(monkeypatch):
    """Nobody is timed who does less than the others."""
    import numpy as np

    task = benchmark.Task("mlp", "float32", 2, 1, np.zeros((8, 2, 2, 1), np.uint8), 1)

    class Corner:
        def __init__(self, make, task):
            self.loss = 100.0 if make is benchmark.CONTENDERS["flaxvae"] else 103.0

        def take_turn(self):
            return benchmark.Turn(1.0, 1.0, self.loss)

        def leave(self):
            return 0

    class Judge:
        def submit(self, function, *args):
            future = concurrent.futures.Future()
            agreement = benchmark.check_agreement
            done = Agreement(0.0, 0.0, 1e6, {}) if function is agreement else None
            future.set_result(done)
            return future

    monkeypatch.setattr(benchmark, "Corner", Corner)
    report = {"agreement": []}
    names = ["flaxvae", "PyTorch, tuned"]
    with pytest.raises(SystemExit, match=r"not learned the same.*103\.00"):
        benchmark.run_task(task, names, 1e9, Flags(repeats=1), report, Judge())
