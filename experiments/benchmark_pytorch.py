"""Time the same trainings in flaxvae and in PyTorch, side by side.

    pip install -e ".[torch]"
    python -m experiments.benchmark_pytorch --data_dir=FOLDER_WITH_MNIST

Every contender begins with the same weights and sees the same batches, in a process of
its own; before anything is timed, the first loss and gradient of both libraries must
agree. Contenders take turns (A B C A B C ...), so that a machine whose speed drifts
favours none; medians are compared. flaxvae runs through the ordinary `fit`. A first
turn, with compiling and warm-up in it, is reported apart.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import flaxvae
from experiments.command import run_command
from experiments.contenders import (
    CHECKED_BATCHES,
    CONTENDERS,
    Corner,
    Task,
    Turn,
    check_agreement,
    compute_orders,
    describe_machine,
    make_pool,
    measure_jax_matmul,
    measure_torch_matmul,
)
from experiments.presets import PRESETS
from flaxvae import InputError
from flaxvae.checks import check_above, check_at_least, check_choice
from flaxvae.files import write_json

OURS, TUTORIAL = "flaxvae", "PyTorch, tutorial"
COMPILED, GRAPHS = "PyTorch, torch.compile", "PyTorch, CUDA graphs"
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
LOSS_TOLERANCE = 0.02  # of a turn's last epoch: the noise differs
SHARE_GUESSED = 0.3  # of the matrix rate, to choose a turn's number of steps
END_TO_END_EPOCHS = 10
QUICK = {
    "networks": ("mlp", "conv"),
    "batch_sizes": (128,),
    "repeats": 3,
    "epochs": 2,
    "seconds": 0.3,
    "end_to_end": 0,
}


@dataclass(frozen=True)
class Flags:
    """Times the same trainings in flaxvae and in PyTorch, on a CPU or a GPU."""

    networks: tuple[str, ...] = ("mlp", "mlp-deep", "conv", "conv-batchnorm", "resnet")
    """Presets; see experiments/presets.py."""
    batch_sizes: tuple[int, ...] = (128, 1024)
    """Images in a training step."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16"], ...] | None = None
    """None: float32, and on a GPU the other two as well."""
    repeats: int = 5
    """Turns of each contender, after one for warm-up."""
    epochs: int = 3
    """Epochs in a turn; a turn counts with its median epoch."""
    seconds: float = 1.5
    """About how long an epoch is; it has as many of the images as that takes."""
    threads: int = os.cpu_count() or 1
    """Cores and threads of each contender."""
    end_to_end: int = 3
    """Turns from the shell to a model trained for 10 epochs and its test number."""
    data_dir: Path | None = None
    """Folder with MNIST's IDX files; None: MNIST where at hand, else random images."""
    workdir: Path = Path("runs/benchmark_pytorch")
    """Folder for results.json, table.md and the figure."""
    quick: bool = False
    """Fewer networks and turns, no torch.compile: two minutes on two cores."""


@dataclass(frozen=True)
class Result:
    """One contender on one task."""

    network: str
    precision: str
    batch_size: int
    contender: str
    steps_per_epoch: int
    step_seconds: list[float]  # of each turn, a median epoch's
    start_seconds: float  # compiling and warm-up: what the first turn took longer
    memory_bytes: int  # most that training took
    loss: float  # of a turn's last epoch, nats per image
    share: float  # of the rate of a large matrix product

    @property
    def step(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.step_seconds)

    @property
    def images_per_second(self) -> float:
        """At the median."""
        return self.batch_size / self.step


def main(flags: Flags) -> None:
    """Checks that both agree, lets the contenders take turns, reports."""
    flags = check_flags(flags)
    workdir = flags.workdir.expanduser()
    flaxvae.training.check_writable(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    images, source = load_images(flags)
    with make_pool(flags.threads) as judge:  # who checks and measures, but never trains
        run_benchmark(flags, workdir, images, source, judge)


def run_benchmark(
    flags: Flags, workdir: Path, images: np.ndarray, source: str, judge: Executor
) -> None:
    """Every task in turn; what is known is written down after each."""
    machine = judge.submit(describe_machine).result()
    report: dict[str, Any] = {
        "machine": machine,
        "commit": read_commit(),
        "data": source,
        "flags": {k: str(v) for k, v in dataclasses.asdict(flags).items()},
        "matmul_flops_per_second": {},
        "agreement": [],
        "results": [],
        "end_to_end": None,
    }
    names, notes = choose_contenders(flags, on_gpu=machine["gpu"])
    report["notes"] = notes
    default = ("float32", "tf32", "bfloat16") if machine["gpu"] else ("float32",)
    results: list[Result] = []
    for precision in flags.precisions or default:
        rates = measure_rates(precision, flags.threads, judge)
        report["matmul_flops_per_second"][precision] = rates
        say(f"{precision}: matrix product {max(rates.values()) / 1e9:,.0f} GFLOP/s")
        for network in flags.networks:
            for batch_size in flags.batch_sizes:
                task = Task(
                    network, precision, batch_size, flags.epochs, images, flags.threads
                )
                rate = max(rates.values())
                found = run_task(task, names, rate, flags, report, judge)
                results += found
                report["results"] += [dataclasses.asdict(result) for result in found]
                write_json(workdir / "results.json", report)
    if flags.end_to_end:
        report["end_to_end"] = time_end_to_end(flags)
    write_json(workdir / "results.json", report)
    (workdir / "table.md").write_text(make_markdown(results))
    draw(results, workdir / "figures" / "speed.png", machine)
    print_report(results, report, workdir)


def check_flags(flags: Flags) -> Flags:
    """Refuses values that cannot be used; fills in what ``quick`` stands for."""
    if flags.quick:
        default = Flags()
        chosen = {
            name: value
            for name, value in QUICK.items()
            if getattr(flags, name) == getattr(default, name)
        }
        flags = dataclasses.replace(flags, **chosen)  # type: ignore[arg-type]
    for name in ("repeats", "epochs", "threads"):
        check_at_least(name, getattr(flags, name), 1)
    check_at_least("end_to_end", flags.end_to_end, 0)
    check_above("seconds", flags.seconds, 0)
    for network in flags.networks:
        check_choice("networks", network, PRESETS)
        if PRESETS[network].binarize != "none":
            raise InputError(
                f"networks must be trained on grey levels, got {network!r}, which is "
                f"binarized ({PRESETS[network].binarize})"
            )
    for batch_size in flags.batch_sizes:
        check_at_least("batch_sizes", batch_size, 2)
    for name in ("networks", "batch_sizes"):
        check_at_least(f"number of {name}", len(getattr(flags, name)), 1)
    if importlib.util.find_spec("torch") is None:
        raise InputError('PyTorch must be installed: pip install -e ".[torch]"')
    return flags


def load_images(flags: Flags) -> tuple[np.ndarray, str]:
    """MNIST's training images ``(60000, 28, 28, 1)``, or random ones in their place."""
    try:
        data = flaxvae.data.load("mnist", data_dir=flags.data_dir, validation_size=0)
        return np.asarray(data.train.x), "mnist"
    except InputError:
        if flags.data_dir is not None:
            raise
    shape = (60_000, 28, 28, 1)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8), "random images"


def choose_contenders(flags: Flags, *, on_gpu: bool) -> tuple[list[str], list[str]]:
    """Who takes part here, and why others do not."""
    missing = {}
    if not on_gpu:
        missing[GRAPHS] = "needs a GPU"
        if not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
            missing[COMPILED] = "needs a C++ compiler"
    if flags.quick:
        missing[COMPILED] = missing[GRAPHS] = "left out of --quick"
    notes = [f"{name}: {reason}" for name, reason in missing.items()]
    return [name for name in CONTENDERS if name not in missing], notes


def measure_rates(precision: str, threads: int, judge: Executor) -> dict[str, float]:
    """FLOP/s of a large matrix product in both libraries."""
    ours = judge.submit(measure_jax_matmul, precision).result()
    theirs = judge.submit(measure_torch_matmul, precision, threads).result()
    return {"jax": ours, "torch": theirs}


def run_task(
    task: Task,
    names: Sequence[str],
    rate: float,
    flags: Flags,
    report: dict[str, Any],
    judge: Executor,
) -> list[Result]:
    """Checks that both libraries agree, then lets the contenders take turns."""
    title = f"{task.preset}, batch {task.batch_size}, {task.precision}"
    B = task.batch_size
    first = dataclasses.replace(task, images=task.images[: CHECKED_BATCHES * B])
    agreement = judge.submit(check_agreement, first).result()
    per_second = rate * SHARE_GUESSED / agreement.flops
    steps = min(max(2, round(flags.seconds * per_second)), len(task.images) // B)
    orders = judge.submit(compute_orders, steps * B, task.epochs).result()
    apart = max(agreement.loss, agreement.gradient)
    say(f"{title}: loss and gradient agree to {apart:.1e}; {steps} steps an epoch")
    report["agreement"].append(
        {"task": title, "loss": agreement.loss, "gradient": agreement.gradient}
    )
    if apart > TOLERANCE[task.precision]:
        raise SystemExit(
            f"error: {title}: loss or gradient of the two libraries differ by "
            f"{apart:.1e}, which is more than {TOLERANCE[task.precision]:.0e}"
        )
    task = dataclasses.replace(
        task,
        images=task.images[: steps * B],
        weights=agreement.weights,
        orders=orders,
    )
    corners, warm_up = {}, {}
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for name in names:
        corners[name] = Corner(CONTENDERS[name], task)
        warm_up[name] = corners[name].take_turn()
    for i in range(flags.repeats):
        for name, corner in corners.items():
            turn = corner.take_turn()
            turns[name].append(turn)
            each = turn.seconds / steps * 1e3
            say(f"{title}, turn {i + 1}, {name}: {each:.2f} ms a step")
    found = []
    for name, corner in corners.items():
        seconds = [turn.seconds for turn in turns[name]]
        ready = warm_up[name].wall_seconds - task.epochs * statistics.median(seconds)
        found.append(
            Result(
                network=task.preset,
                precision=task.precision,
                batch_size=B,
                contender=name,
                steps_per_epoch=steps,
                step_seconds=[s / steps for s in seconds],
                start_seconds=max(0.0, ready),
                memory_bytes=corner.leave(),
                loss=turns[name][-1].loss,
                share=agreement.flops * steps / statistics.median(seconds) / rate,
            )
        )
    losses = [result.loss for result in found]
    if max(losses) > min(losses) * (1 + LOSS_TOLERANCE):
        raise SystemExit(
            f"error: {title}: the contenders have not learned the same: losses "
            + ", ".join(f"{r.contender} {r.loss:.2f}" for r in found)
        )
    return found


def time_end_to_end(flags: Flags) -> dict[str, Any]:
    """From the shell to a model trained for 10 epochs and its test number."""
    if flags.data_dir is None:
        return {"note": "end to end: needs --data_dir with MNIST's IDX files"}
    folder = str(flags.data_dir.expanduser())
    found: dict[str, Any] = {
        name: {"seconds": [], "test_loss": None} for name in (OURS, TUTORIAL)
    }
    for turn in range(flags.end_to_end):
        for name, one in found.items():
            with tempfile.TemporaryDirectory() as scratch:
                run = Path(scratch) / "run"
                ours = [
                    "experiments.mnist_vae",
                    "--dataset=mnist",
                    f"--data_dir={folder}",
                    "--hidden=400",
                    "--latent_dim=20",
                    f"--epochs={END_TO_END_EPOCHS}",
                    "--no_figures",
                    "--no_compilation_cache",
                    f"--workdir={run}",
                ]
                theirs = ["experiments.torch_tutorial", folder, str(END_TO_END_EPOCHS)]
                command = [sys.executable, "-m", *(ours if name == OURS else theirs)]
                environment = os.environ | {"FLAXVAE_CACHE": scratch}
                began = time.perf_counter()
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                )
                one["seconds"].append(time.perf_counter() - began)
                if name == OURS:
                    summary = json.loads((run / "summary.json").read_text())
                    one["test_loss"] = -summary["test"]["elbo"]
                else:
                    one["test_loss"] = float(done.stdout.split()[-1])
            say(f"end to end, turn {turn + 1}, {name}: {one['seconds'][-1]:.1f} s")
    return found


def read_commit() -> str:
    """The checkout's commit, with a plus where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(
            status, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def find_best(results: Sequence[Result]) -> Result:
    """PyTorch's fastest contender of one task."""
    theirs = [result for result in results if result.contender != OURS]
    return min(theirs, key=lambda result: result.step)


def group_by_task(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each task, in the order of their tasks."""
    groups: dict[tuple[str, int, str], list[Result]] = {}
    for result in results:
        task = (result.network, result.batch_size, result.precision)
        groups.setdefault(task, []).append(result)
    return list(groups.values())


def make_markdown(results: Sequence[Result]) -> str:
    """A table with a row a task, for a page like the README."""
    lines = [
        "| network, batch | flaxvae, ms a step (min to max) | images/s | of the matrix "
        "rate | best PyTorch, ms (min to max) | its time over flaxvae's | the "
        "tutorial's |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in group_by_task(results):
        of = {result.contender: result for result in group}
        ours, best = of[OURS], find_best(group)
        kind = best.contender.removeprefix("PyTorch, ")
        precision = "" if ours.precision == "float32" else f", {ours.precision}"
        cells = [
            f"{ours.network}, {ours.batch_size}{precision}",
            format_times(ours),
            f"{ours.images_per_second:,.0f}",
            f"{ours.share:.0%}",
            f"{format_times(best)}, {kind}",
            f"{best.step / ours.step:.2f}",
            f"{of[TUTORIAL].step / ours.step:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def format_times(result: Result) -> str:
    """Median, least and most milliseconds a step."""
    times = [t * 1e3 for t in result.step_seconds]
    return f"{result.step * 1e3:.3g} ({min(times):.3g} to {max(times):.3g})"


def draw(results: Sequence[Result], path: Path, machine: dict[str, Any]) -> None:
    """Bars: speed over that of the best PyTorch, with the turns' range."""
    from matplotlib.figure import Figure

    from flaxvae.latent.figures import CLASS_COLORS, save_figure

    groups = group_by_task(results)
    names = list(dict.fromkeys(result.contender for result in results))
    height = 0.8 / len(names)
    size = (8, 1.4 + 0.22 * len(names) * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        for row, group in enumerate(groups):
            found = [result for result in group if result.contender == name]
            if not found:
                continue
            best = find_best(group).step
            speed = best / found[0].step
            ends = [best / t for t in found[0].step_seconds]
            axes.barh(
                row + (i - (len(names) - 1) / 2) * height,
                speed,
                height * 0.9,
                color=CLASS_COLORS[i],
                label=name if row == 0 else None,
                xerr=[[speed - min(ends)], [max(ends) - speed]],
                error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": "#333333"},
            )
            axes.text(
                max(ends) + 0.02,
                row + (i - (len(names) - 1) / 2) * height,
                f"{speed:.2f}",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
    labels = [
        f"{group[0].network}\nbatch {group[0].batch_size}, {group[0].precision}"
        for group in groups
    ]
    axes.set_yticks(range(len(groups)), labels, fontsize=8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.axvline(1, color="#333333", linewidth=0.8, linestyle=":")
    axes.set_xlabel("training speed over that of the fastest PyTorch (medians, ranges)")
    axes.spines[["top", "right"]].set_visible(False)
    device = machine["device"] if machine["gpu"] else machine["processor"]
    figure.suptitle(f"Training speed on {device}", fontsize=10)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    save_figure(figure, path)


def print_report(
    results: Sequence[Result], report: dict[str, Any], workdir: Path
) -> None:
    """Prints every contender's numbers, and on what they were measured."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 130)
    for group in group_by_task(results):
        first = group[0]
        ours = next(result for result in group if result.contender == OURS)
        table = Table(
            title=f"{first.network}, batch {first.batch_size}, {first.precision}; "
            f"{first.steps_per_epoch} steps an epoch"
        )
        columns = (
            *("", "ms a step (min to max)", "images/s", "time over flaxvae's"),
            *("matrix rate", "start (s)", "memory (MB)", "loss"),
        )
        for column in columns:
            table.add_column(column, justify="right" if column else "left")
        for result in group:
            table.add_row(
                result.contender,
                format_times(result),
                f"{result.images_per_second:,.0f}",
                f"{result.step / ours.step:.2f}",
                f"{result.share:.0%}",
                f"{result.start_seconds:.1f}",
                f"{result.memory_bytes / 1e6:,.0f}",
                f"{result.loss:.1f}",
            )
        console.print(table)
    machine, whole = report["machine"], report["end_to_end"]
    if whole and "note" in whole:
        report["notes"].append(whole["note"])
    elif whole:
        median = {n: statistics.median(one["seconds"]) for n, one in whole.items()}
        print(
            f"shell to {END_TO_END_EPOCHS} epochs and test number, mlp: "
            + ", ".join(
                f"{n} {median[n]:.1f} s (test loss {one['test_loss']:.2f})"
                for n, one in whole.items()
            )
            + f"; {median[TUTORIAL] / median[OURS]:.2f} times as long"
        )
    for precision, rates in report["matmul_flops_per_second"].items():
        both = " and ".join(f"{r / 1e9:,.0f} ({n})" for n, r in rates.items())
        print(f"matrix product in {precision}: {both} GFLOP/s")
    versions = machine["versions"]
    print(
        f"{machine['device'] if machine['gpu'] else machine['processor']}, "
        f"{report['flags']['threads']} threads, JAX {versions['jax']}, PyTorch "
        f"{versions['torch']}, commit {report['commit']}, {report['data']}"
    )
    for note in report["notes"]:
        print(f"without {note}")
    print(f"written to {workdir}: results.json, table.md, figures/speed.png")


def say(line: str) -> None:
    """Shows how far things are, on the standard error stream."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main, Flags)
