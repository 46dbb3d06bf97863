"""Time the same trainings in flaxvae and in PyTorch, side by side.

    pip install -e ".[torch]"
    python -m experiments.benchmark_pytorch --data_dir=FOLDER_WITH_MNIST

Every contender starts from the same weights and sees the same batches, in a process of
its own; before anything is timed, the first losses and gradients of both libraries must
agree. Contenders take turns (A B C A B C ...), so that a machine whose speed drifts
favours none; medians are compared. flaxvae runs through the ordinary `fit`. The first
turn, which includes compiling and warm-up, is reported separately.
"""

import collections
import dataclasses
import importlib.util
import os
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import flaxvae
from experiments.checkout import read_commit
from experiments.documents import find_between
from experiments.pytorch.agreement import (
    CHECKED_BATCHES,
    check_agreement,
    compute_orders,
)
from experiments.pytorch.contenders import CONTENDERS, Task, Turn
from experiments.pytorch.end_to_end import time_end_to_end
from experiments.pytorch.machine import (
    describe_machine,
    measure_jax_matmul,
    measure_torch_matmul,
)
from experiments.pytorch.peers import (
    NumpyroSVI,
    PythaeTrainer,
    runs_in_numpyro,
    runs_in_pythae,
)
from experiments.pytorch.processes import ContenderProcess, make_pool
from experiments.pytorch.report import (
    BEGIN,
    END,
    FLAXVAE,
    NUMPYRO,
    PYTHAE,
    TUTORIAL,
    Result,
    describe_source,
    draw_speed,
    log,
    make_markdown,
    print_report,
    write_table,
)
from flaxvae import InputError
from flaxvae.checks import check_choice
from flaxvae.files import write_json
from flaxvae.models.presets import PRESETS
from flaxvae.settings import check_settings, setting
from flaxvae.training.storage.run_folder import check_writable

Kind = Literal["tutorial", "tuned", "compile", "graphs", "numpyro", "pythae"]
COMPILED, GRAPHS = "PyTorch, torch.compile", "PyTorch, CUDA graphs"
KINDS: dict[Kind, str] = {
    "tutorial": TUTORIAL,
    "tuned": "PyTorch, tuned",
    "compile": COMPILED,
    "graphs": GRAPHS,
    "numpyro": NUMPYRO,
    "pythae": PYTHAE,
}
PEERS = {NUMPYRO: runs_in_numpyro, PYTHAE: runs_in_pythae}
ALL = CONTENDERS | {NUMPYRO: NumpyroSVI, PYTHAE: PythaeTrainer}
README = Path(__file__).parents[1] / "README.md"
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
LOSS_TOLERANCE = 0.02  # of the last epoch's loss: contenders draw other noise
CORES = os.cpu_count() or 1
QUICK = {
    "networks": ("mlp", "conv"),
    "batch_sizes": (128,),
    "precisions": ("float32",),
    "repeats": 3,
    "epochs": 3,  # the first of a turn is slower: programs are loaded
    "seconds": 0.3,
    "end_to_end": 0,
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Times the same trainings in flaxvae and in PyTorch, on a CPU or a GPU."""

    networks: tuple[str, ...] = ("mlp", "mlp-deep", "conv", "conv-batchnorm", "resnet")
    """Models by name; see flaxvae/models/presets.py."""
    batch_sizes: tuple[int, ...] = setting((128, 1024), at_least=2)
    """Images in a training step."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16"], ...] | None = None
    """Precisions of matrix products. Default: float32; on a GPU all three."""
    contenders: tuple[Kind, ...] | None = None
    """Who trains beside flaxvae: kinds of PyTorch; NumPyro, for the MLPs; pythae.
    Default: all that can run on the machine."""
    repeats: int = setting(5, at_least=1)
    """Turns of each contender, after one for warm-up."""
    epochs: int = setting(3, at_least=1)
    """Epochs in a turn; the median epoch counts."""
    seconds: float = setting(1.5, above=0)
    """Approximate duration of an epoch, which sets the number of images in it."""
    threads: int = setting(CORES, at_least=1, at_most=CORES)
    """Cores and threads of each contender."""
    end_to_end: int = setting(3, at_least=0)
    """Turns from the shell to a model trained for 10 epochs and its test loss."""
    data_dir: Path | None = None
    """Folder with MNIST's IDX files. Default: a known copy, else random images."""
    workdir: Path = Path("runs/benchmark_pytorch")
    """Folder for results.json, table.md and the figure."""
    quick: bool = False
    """Fewer networks and turns, float32 alone, and plain torch.compile only if
    contenders names it: a minute on a CPU."""
    write_readme: bool = False
    """Also write the table into the section on speed of experiments/README.md."""

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("networks", "batch_sizes", "precisions", "contenders"):
            if getattr(self, name) == ():
                raise InputError(f"{name} must have a value, got none")
        for network in self.networks:
            check_choice("networks", network, PRESETS)

    def resolve_quick(self) -> "Flags":
        """With --quick, the flags at their defaults take the values of `QUICK`."""
        if not self.quick:
            return self
        default = Flags()
        changed: dict[str, Any] = {
            name: value
            for name, value in QUICK.items()
            if getattr(self, name) == getattr(default, name)
        }
        return dataclasses.replace(self, **changed)


def main(flags: Flags) -> None:
    """Checks that both libraries agree, lets the contenders take turns, reports."""
    if importlib.util.find_spec("torch") is None:
        raise InputError('PyTorch must be installed: pip install -e ".[torch]"')
    flags = flags.resolve_quick()
    if flags.write_readme:
        find_between(README, BEGIN, END)  # before the time is spent
    workdir = flags.workdir.expanduser()
    check_writable(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    images, source = load_images(flags)
    most = len(images) // CHECKED_BATCHES
    if max(flags.batch_sizes) > most:
        raise InputError(
            f"batch_sizes must be <= {most}, for {CHECKED_BATCHES} batches, got "
            f"{max(flags.batch_sizes)}"
        )
    # One process checks and measures; it never trains.
    with make_pool(flags.threads) as checker:
        run_benchmark(flags, workdir, images, source, checker)


def run_benchmark(
    flags: Flags, workdir: Path, images: np.ndarray, source: str, checker: Executor
) -> None:
    """Runs every task, and writes the results so far after each."""
    machine = checker.submit(describe_machine).result()
    if "tf32" in (flags.precisions or ()) and not machine["gpu"]:
        raise InputError("precisions must be float32 or bfloat16 on a CPU, got tf32")
    names, notes = choose_contenders(flags, on_gpu=machine["gpu"])
    report: dict[str, Any] = {
        "machine": machine,
        "commit": read_commit(),
        "data": source,
        "flags": {k: str(v) for k, v in dataclasses.asdict(flags).items()},
        "notes": notes,
        "matmul_flops_per_second": {},
        "agreement": [],
        "results": [],
        "end_to_end": None,
    }
    default = ("float32", "tf32", "bfloat16") if machine["gpu"] else ("float32",)
    results: list[Result] = []
    for precision in flags.precisions or default:
        rates = measure_rates(precision, flags.threads, checker)
        report["matmul_flops_per_second"][precision] = rates
        rate = max(rates.values())
        log(f"{precision}: matrix product {rate / 1e9:,.0f} GFLOP/s")
        for network in flags.networks:
            for batch_size in flags.batch_sizes:
                task = Task(
                    network, precision, batch_size, flags.epochs, images, flags.threads
                )
                of_task = run_task(task, names, rate, flags, report, checker)
                results += of_task
                report["results"] += [dataclasses.asdict(result) for result in of_task]
                write_json(workdir / "results.json", report)
    if flags.end_to_end:
        report["end_to_end"] = time_end_to_end(flags.data_dir, flags.end_to_end)
    write_json(workdir / "results.json", report)
    table = make_markdown(results)
    (workdir / "table.md").write_text(table)
    if flags.write_readme:
        write_table(README, describe_source(report), table)
    draw_speed(results, workdir / "figures" / "speed.png", machine)
    print_report(results, report, workdir)


def load_images(flags: Flags) -> tuple[np.ndarray, str]:
    """MNIST's training images ``(60000, 28, 28, 1)``, or random ones instead."""
    try:
        data = flaxvae.data.load("mnist", data_dir=flags.data_dir, validation_size=0)
        return np.asarray(data.train.x), "mnist"
    except InputError:
        if flags.data_dir is not None:
            raise
    shape = (60_000, 28, 28, 1)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8), "random images"


def choose_contenders(flags: Flags, *, on_gpu: bool) -> tuple[list[str], list[str]]:
    """The contenders that can run on this machine, and why others are left out."""
    missing = {}
    if not on_gpu:
        missing[GRAPHS] = "needs a GPU"
        if not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
            missing[COMPILED] = "needs a C++ compiler"
    if flags.quick and flags.contenders is None:  # with CUDA graphs it is faster
        missing[COMPILED] = "left out by --quick"
    for name, module in ((NUMPYRO, "numpyro"), (PYTHAE, "pythae")):
        if importlib.util.find_spec(module) is None:
            missing[name] = 'needs pip install -e ".[peers]"'
    if flags.contenders is not None:
        asked = {FLAXVAE, *(KINDS[kind] for kind in flags.contenders)}
        missing |= {name: "not asked for" for name in ALL if name not in asked}
    notes = [f"{name}: {reason}" for name, reason in missing.items()]
    return [name for name in ALL if name not in missing], notes


def measure_rates(precision: str, threads: int, checker: Executor) -> dict[str, float]:
    """FLOP/s of a large matrix product in both libraries."""
    in_jax = checker.submit(measure_jax_matmul, precision).result()
    in_torch = checker.submit(measure_torch_matmul, precision, threads).result()
    return {"jax": in_jax, "torch": in_torch}


def run_task(
    task: Task,
    names: Sequence[str],
    rate: float,
    flags: Flags,
    report: dict[str, Any],
    checker: Executor,
) -> list[Result]:
    """Checks that both libraries agree, then lets the contenders take turns.

    Args:
      task: the training, with all images.
      names: keys of `ALL`.
      rate: FLOP/s of a large matrix product.
      flags: the command's.
      report: the agreement is added to it.
      checker: a process that checks and measures.

    Raises:
      SystemExit: the libraries disagree, or the contenders' final losses differ.
    """
    title = f"{task.preset}, batch {task.batch_size}, {task.precision}"
    B = task.batch_size
    first = dataclasses.replace(task, images=task.images[: CHECKED_BATCHES * B])
    agreement = checker.submit(check_agreement, first).result()
    steps = max(2, round(flags.seconds / agreement.step_seconds))
    steps = min(steps, len(task.images) // B)
    difference = max(agreement.loss, agreement.gradient)
    log(
        f"{title}: loss and gradient agree to {difference:.1e}; {steps} steps per epoch"
    )
    report["agreement"].append(
        {"task": title, "loss": agreement.loss, "gradient": agreement.gradient}
    )
    if difference > TOLERANCE[task.precision]:
        raise SystemExit(
            f"error: {title}: loss or gradient of the two libraries differ by "
            f"{difference:.1e}, which is more than {TOLERANCE[task.precision]:.0e}"
        )
    task = dataclasses.replace(
        task,
        images=task.images[: steps * B],
        weights=agreement.weights,
        orders=checker.submit(compute_orders, steps * B, task.epochs).result(),
    )
    for peer, can_train in PEERS.items():
        if not can_train(task.preset, task.precision):
            names = [name for name in names if name != peer]
    started = {name: ContenderProcess(ALL[name], task) for name in names}
    for process in started.values():
        process.wait()
    processes, warm_up = {}, {}
    turns: dict[str, list[Turn]] = collections.defaultdict(list)
    for name, process in started.items():
        try:
            warm_up[name] = process.take_turn()
        except Exception as error:  # of PyTorch's compiler, which not all machines run
            process.abandon()
            if name not in (COMPILED, GRAPHS):
                raise
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            report["notes"].append(f"{title}, {name}: failed ({reason})")
            log(report["notes"][-1])
            continue
        processes[name] = process
    if not {*processes} - {FLAXVAE, *PEERS}:
        raise SystemExit(f"error: {title}: no kind of PyTorch could be timed")
    for i in range(flags.repeats):
        for name, process in processes.items():
            turn = process.take_turn()
            turns[name].append(turn)
            milliseconds = turn.seconds / steps * 1e3
            log(f"{title}, turn {i + 1}, {name}: {milliseconds:.2f} ms per step")
    results = []
    for name, process in processes.items():
        seconds = [turn.seconds for turn in turns[name]]
        median = statistics.median(seconds)
        results.append(
            Result(
                network=task.preset,
                precision=task.precision,
                batch_size=B,
                contender=name,
                steps_per_epoch=steps,
                step_seconds=[s / steps for s in seconds],
                start_seconds=max(
                    0.0, warm_up[name].wall_seconds - task.epochs * median
                ),
                memory_bytes=process.close(),
                loss=turns[name][-1].loss,
                share=agreement.flops * steps / median / rate,
            )
        )
    losses = [result.loss for result in results]
    if max(losses) > min(losses) * (1 + LOSS_TOLERANCE):
        raise SystemExit(
            f"error: {title}: the contenders have not learned the same: losses "
            + ", ".join(f"{r.contender} {r.loss:.2f}" for r in results)
        )
    return results
