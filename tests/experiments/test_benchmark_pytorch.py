import concurrent.futures
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

pytest.importorskip("torch", reason="the comparison needs the extra torch")

from experiments.documents import find_between
from experiments.pytorch import benchmark
from experiments.pytorch.agreement import Agreement, check_agreement, compute_orders
from experiments.pytorch.benchmark import Flags
from experiments.pytorch.contenders import CONTENDERS, Task, Turn
from experiments.pytorch.end_to_end import time_end_to_end
from experiments.pytorch.machine import begin_memory, used_memory
from experiments.pytorch.peers import (
    NumpyroSVI,
    PythaeTrainer,
    runs_in_numpyro,
    runs_in_pythae,
)
from experiments.pytorch.report import (
    BEGIN,
    END,
    Result,
    draw_speed,
    find_best,
    make_markdown,
    write_table,
)
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
        *("--contenders", "tutorial", "tuned", f"--workdir={tmp_path}"),
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
        assert result["memory_bytes"] > 0
        assert 0 < result["share"] < 2
        assert f"│ {result['contender']} " in out
    assert report["results"][0]["start_seconds"] > 0.1  # compiling
    assert "random images" in out
    assert "GFLOP/s" in out
    assert re.search(r"torch.compile: not asked for", out)
    assert (tmp_path / "figures" / "speed.png").stat().st_size > 10_000


def test_the_opponent_is_the_fastest_pytorch_and_ratios_are_of_medians():
    assert find_best(RESULTS).contender == "PyTorch, tuned"
    row = make_markdown(RESULTS).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "mlp, 128",
        "2 (1 to 4)",
        "64,000",
        "50%",
        "5 (3 to 6), tuned",
        "2.50",
        "2.50",
        "4.00",
        "",
        "",
    ]
    rounded = [dataclasses.replace(r, precision="bfloat16") for r in RESULTS[:2]]
    row = make_markdown([*RESULTS, *rounded]).splitlines()[-1]
    assert "| 8 (7 to 10), tutorial | 4.00 | 2.50 | 4.00 |" in row  # tuned: float32
    peers = [make_result("NumPyro, SVI", 0.003), make_result("pythae", 0.001)]
    assert find_best([*RESULTS, *peers]).contender == "PyTorch, tuned"
    assert make_markdown([*RESULTS, *peers]).endswith("| 4.00 | 1.50 | 0.50 |\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"networks": ("mpl",)}, "unknown networks 'mpl'.*mlp"),
        ({"networks": ()}, "networks must have a value, got none"),
        ({"repeats": 0}, "repeats must be >= 1, got 0"),
        ({"end_to_end": -1}, "end_to_end must be >= 0, got -1"),
        ({"batch_sizes": (1,)}, "batch_sizes must be >= 2, got 1"),
        ({"batch_sizes": ()}, "batch_sizes must have a value, got none"),
        ({"seconds": 0.0}, "seconds must be > 0, got 0"),
        ({"precisions": ("float16",)}, "unknown precisions 'float16'"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        Flags(**flags)


def test_quick_keeps_flags_that_were_set():
    flags = Flags(quick=True, repeats=7).resolve_quick()
    assert flags.repeats == 7
    assert flags.networks == benchmark.QUICK["networks"]
    assert Flags(repeats=7).resolve_quick() == Flags(repeats=7)


def test_contenders_are_chosen_by_name(monkeypatch):
    found = benchmark.importlib.util.find_spec
    monkeypatch.setattr(
        benchmark.importlib.util,
        "find_spec",
        lambda name: None if name in ("numpyro", "pythae") else found(name),
    )
    flags = benchmark.Flags(contenders=("tuned", "graphs"))
    names, notes = benchmark.choose_contenders(flags, on_gpu=True)
    assert names == ["flaxvae", "PyTorch, tuned", "PyTorch, CUDA graphs"]
    assert notes == [
        "NumPyro, SVI: not asked for",
        "pythae: not asked for",
        "PyTorch, tutorial: not asked for",
        "PyTorch, torch.compile: not asked for",
    ]
    names, notes = benchmark.choose_contenders(benchmark.Flags(), on_gpu=True)
    assert not {"NumPyro, SVI", "pythae"} & {*names}
    needed = 'needs pip install -e ".[peers]"'
    assert notes == [f"NumPyro, SVI: {needed}", f"pythae: {needed}"]


def test_quick_takes_the_faster_kind_of_compiled_pytorch_unless_told_otherwise():
    quick = benchmark.Flags(quick=True)
    names, notes = benchmark.choose_contenders(quick, on_gpu=True)
    assert "PyTorch, CUDA graphs" in names
    assert "PyTorch, torch.compile: left out by --quick" in notes
    named = dataclasses.replace(quick, contenders=("tuned", "compile"))
    names, _ = benchmark.choose_contenders(named, on_gpu=True)
    assert names == ["flaxvae", "PyTorch, tuned", "PyTorch, torch.compile"]


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="it counts from the start there"
)
def test_memory_is_counted_from_its_beginning():
    block = np.ones(2**26)
    del block
    before = begin_memory()
    block = np.ones(2**25)
    assert 0.95 < used_memory(before) / block.nbytes < 1.5  # Linux counts in parts


@pytest.fixture(scope="module")
def task():
    """Two epochs of three batches, from weights that both libraries agree on."""
    images = np.random.default_rng(0).integers(0, 256, (48, 28, 28, 1), np.uint8)
    task = Task("mlp", "float32", 16, 2, images, 1)
    weights, orders = check_agreement(task).weights, compute_orders(48, 2)
    return dataclasses.replace(task, weights=weights, orders=orders)


@pytest.mark.parametrize(
    ("library", "peer", "twin", "tolerance"),
    [
        ("numpyro", NumpyroSVI, "PyTorch, tuned", 5e-3),
        ("pythae", PythaeTrainer, "PyTorch, tutorial", 1e-6),  # the same noise, too
    ],
)
def test_a_peer_learns_the_same_from_the_same_weights(
    task, library, peer, twin, tolerance
):
    pytest.importorskip(library, reason="the comparison needs the extra peers")
    contender = peer(task)
    turns = [contender.take_turn() for _ in range(2)]
    assert turns[0].loss == turns[1].loss  # each begins with the same weights
    expected = CONTENDERS[twin](task).take_turn().loss
    assert turns[0].loss == pytest.approx(expected, rel=tolerance)


def test_peers_have_their_networks_and_precisions():
    assert runs_in_pythae("conv", "tf32")
    assert not runs_in_pythae("mlp", "bfloat16")
    assert runs_in_numpyro("mlp-deep", "tf32")
    assert not runs_in_numpyro("mlp", "bfloat16")
    assert not runs_in_numpyro("mlp-binary", "float32")  # tanh
    assert not runs_in_numpyro("conv", "float32")


def test_the_table_is_written_between_its_marks(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):  # it can be written again
        write_table(path, "a machine", "| table |\n")
        text = f"before\n{BEGIN}\na machine:\n\n| table |\n{END}\nafter\n"
        assert path.read_text() == text
    assert find_between(benchmark.README, BEGIN, END)
    for text in ("", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"README.md must have the lines <!-- "):
            write_table(path, "a machine", "table")
        assert path.read_text() == text


def test_torch_must_be_installed(monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"PyTorch must be installed: pip install"):
        benchmark.main(Flags())


def test_both_libraries_agree_on_the_first_steps():
    images = np.random.default_rng(0).integers(0, 256, (48, 28, 28, 1), np.uint8)
    agreement = check_agreement(Task("mlp", "float32", 16, 1, images, 1))
    assert max(agreement.loss, agreement.gradient) < 1e-5
    sizes = [784 * 400, 400 * 40, 20 * 400, 400 * 784]
    # Forward two FLOPs per weight and image, backward four: all but the gradient of x.
    assert agreement.flops == 16 * (6 * sum(sizes) - 2 * sizes[0])
    assert agreement.weights["encoder.hidden_0.weight"].shape == (400, 784)


def test_orders_are_permutations_that_differ_between_epochs():
    orders = compute_orders(50, 2)
    assert orders.dtype == np.int64
    np.testing.assert_array_equal(np.sort(orders), [np.arange(50)] * 2)
    assert (orders[0] != orders[1]).any()


def test_end_to_end_needs_mnist():
    assert time_end_to_end(None, 3) == {
        "note": "end to end: needs --data_dir with MNIST's IDX files"
    }


def test_the_figure_has_a_row_per_task(tmp_path):
    results = [
        *RESULTS,
        *(make_result(r.contender, 0.01, network="conv") for r in RESULTS),
    ]
    machine = {"gpu": False, "processor": "a processor"}
    draw_speed(results, tmp_path / "speed.png", machine)
    draw_speed(RESULTS, tmp_path / "one.png", machine)
    heights = [len(imread(tmp_path / name)) for name in ("speed.png", "one.png")]
    assert heights[0] > heights[1]


def test_losses_that_differ_are_an_error(monkeypatch):
    """A contender that does less than the others is not timed."""
    task = Task("mlp", "float32", 2, 1, np.zeros((8, 2, 2, 1), np.uint8), 1)

    class Process:
        def __init__(self, create, task):
            self.loss = 100.0 if create is CONTENDERS["flaxvae"] else 103.0

        def wait(self):
            pass

        def take_turn(self):
            return Turn(1.0, 1.0, self.loss)

        def close(self):
            return 0

    class Checker:
        def submit(self, function, *args):
            future = concurrent.futures.Future()
            checked = function is check_agreement
            future.set_result(Agreement(0.0, 0.0, 1e6, 0.1, {}) if checked else None)
            return future

    monkeypatch.setattr(benchmark, "ContenderProcess", Process)
    report = {"agreement": []}
    names = ["flaxvae", "PyTorch, tuned"]
    with pytest.raises(SystemExit, match=r"not learned the same.*103\.00"):
        benchmark.run_task(task, names, 1e9, Flags(repeats=1), report, Checker())


def test_a_compiler_that_fails_is_named_and_the_others_go_on(monkeypatch):
    task = Task("mlp", "float32", 2, 1, np.zeros((8, 2, 2, 1), np.uint8), 1)

    class Process:
        def __init__(self, create, task):
            self.fails = create is CONTENDERS[benchmark.COMPILED]

        def wait(self):
            pass

        def abandon(self):
            pass

        def take_turn(self):
            if self.fails:
                raise RuntimeError("no compiler\nand more")
            return Turn(1.0, 1.0, 100.0)

        def close(self):
            return 0

    agreement = Agreement(0.0, 0.0, 1e6, 0.1, {})
    monkeypatch.setattr(benchmark, "check_agreement", lambda task: agreement)
    monkeypatch.setattr(benchmark, "ContenderProcess", Process)
    report = {"agreement": [], "notes": []}
    flags = Flags(repeats=1)
    names = ("flaxvae", benchmark.COMPILED, "PyTorch, tuned")
    with concurrent.futures.ThreadPoolExecutor() as checker:
        results = benchmark.run_task(task, names, 1e9, flags, report, checker)
        assert [r.contender for r in results] == ["flaxvae", "PyTorch, tuned"]
        assert report["notes"] == [
            "mlp, batch 2, float32, PyTorch, torch.compile: failed (no compiler)"
        ]
        with pytest.raises(SystemExit, match="no kind of PyTorch could be timed"):
            benchmark.run_task(task, names[:2], 1e9, flags, report, checker)
