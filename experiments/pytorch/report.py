"""The benchmark's results: statistics, tables and the figure."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.documents import write_between

FLAXVAE, TUTORIAL = "flaxvae", "PyTorch, tutorial"
NUMPYRO, PYTHAE = "NumPyro, SVI", "pythae"
# Lines of a README between which `write_table` writes.
BEGIN, END = "<!-- benchmark_pytorch: begin -->", "<!-- benchmark_pytorch: end -->"


@dataclass(frozen=True)
class Result:
    """One contender on one task.

    Attributes:
      network: name of the preset.
      precision: of matrix products.
      batch_size: images in a step.
      contender: a key of `CONTENDERS`.
      steps_per_epoch: steps in an epoch.
      step_seconds: seconds per step in the median epoch of each turn.
      start_seconds: compiling and warm-up, the extra time of the first turn.
      memory_bytes: the largest memory of the training.
      loss: mean loss of the last turn's last epoch, in nats per image.
      share: FLOP/s of the training, relative to those of a large matrix product.
    """

    network: str
    precision: str
    batch_size: int
    contender: str
    steps_per_epoch: int
    step_seconds: list[float]
    start_seconds: float
    memory_bytes: int
    loss: float
    share: float

    @property
    def step(self) -> float:
        """Median over turns of the seconds per step."""
        return statistics.median(self.step_seconds)

    @property
    def images_per_second(self) -> float:
        """Images per second at the median step."""
        return self.batch_size / self.step


def find_best(results: Sequence[Result]) -> Result:
    """The fastest PyTorch among the results of one task."""
    torch_results = [r for r in results if r.contender.startswith("PyTorch")]
    return min(torch_results, key=lambda result: result.step)


def group_by_task(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each task, in the order of the tasks."""
    groups: dict[tuple[str, int, str], list[Result]] = {}
    for result in results:
        task = (result.network, result.batch_size, result.precision)
        groups.setdefault(task, []).append(result)
    return list(groups.values())


def make_markdown(results: Sequence[Result]) -> str:
    """A Markdown table with a row per task.

    The column of any precision compares with the fastest PyTorch of all results of the
    same network and batch.
    """
    lines = [
        "| network, batch | flaxvae, ms per step (min to max) | images/s | share of "
        "the matrix rate | best PyTorch, ms (min to max) | its time / flaxvae's | "
        "of any precision | tutorial's time / flaxvae's | NumPyro's | pythae's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for group in group_by_task(results):
        by_name = {result.contender: result for result in group}
        ours, best = by_name[FLAXVAE], find_best(group)
        others = map(by_name.get, (TUTORIAL, NUMPYRO, PYTHAE))
        kind = best.contender.removeprefix("PyTorch, ")
        task = (ours.network, ours.batch_size)
        of_any = find_best([r for r in results if (r.network, r.batch_size) == task])
        precision = "" if ours.precision == "float32" else f", {ours.precision}"
        cells = [
            f"{ours.network}, {ours.batch_size}{precision}",
            format_times(ours),
            f"{ours.images_per_second:,.0f}",
            f"{ours.share:.0%}",
            f"{format_times(best)}, {kind}",
            f"{best.step / ours.step:.2f}",
            f"{of_any.step / ours.step:.2f}",
            *(f"{r.step / ours.step:.2f}" if r else "" for r in others),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def format_times(result: Result) -> str:
    """Median, minimum and maximum of the milliseconds per step."""
    times = [t * 1e3 for t in result.step_seconds]
    return f"{result.step * 1e3:.3g} ({min(times):.3g} to {max(times):.3g})"


def draw_speed(results: Sequence[Result], path: Path, machine: dict[str, Any]) -> None:
    """Draws the speed of each contender relative to the fastest PyTorch.

    A bar is the ratio at the median, its whiskers the range of the turns.
    """
    from matplotlib.figure import Figure

    from flaxvae.latent.figures import save_figure
    from flaxvae.latent.figures.style import CLASS_COLORS

    groups = group_by_task(results)
    names = list(dict.fromkeys(result.contender for result in results))
    height = 0.8 / len(names)
    size = (8, 1.4 + 0.22 * len(names) * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        offset = (i - (len(names) - 1) / 2) * height
        for row, group in enumerate(groups):
            result = next((r for r in group if r.contender == name), None)
            if result is None:
                continue
            best = find_best(group).step
            speed = best / result.step
            ends = [best / t for t in result.step_seconds]
            axes.barh(
                row + offset,
                speed,
                height * 0.9,
                color=CLASS_COLORS[i],
                label=name if row == 0 else None,
                xerr=[[speed - min(ends)], [max(ends) - speed]],
                error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": "#333333"},
            )
            axes.text(
                max(ends) + 0.02,
                row + offset,
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
    axes.set_xlabel("training speed relative to the fastest PyTorch (median, range)")
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
    """Prints the numbers of every contender, and the machine that they belong to."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 130)
    for group in group_by_task(results):
        console.print(_make_table(group))
    end_to_end = report["end_to_end"] or {}
    if FLAXVAE in end_to_end:
        _print_end_to_end(end_to_end)
    for precision, rates in report["matmul_flops_per_second"].items():
        both = " and ".join(f"{r / 1e9:,.0f} ({n})" for n, r in rates.items())
        print(f"matrix product in {precision}: {both} GFLOP/s")
    print(describe_source(report))
    for note in [*report["notes"], *filter(None, [end_to_end.get("note")])]:
        print(f"without {note}")
    print(f"written to {workdir}: results.json, table.md, figures/speed.png")


def describe_source(report: dict[str, Any]) -> str:
    """The machine, the versions, the commit and the data of the numbers."""
    machine = report["machine"]
    versions = machine["versions"]
    return (
        f"{machine['device'] if machine['gpu'] else machine['processor']}, "
        f"{report['flags']['threads']} threads, JAX {versions['jax']}, PyTorch "
        f"{versions['torch']}, commit {report['commit']}, {report['data']}"
    )


def write_table(path: Path, source: str, table: str) -> None:
    """Writes the numbers of a benchmark between the marks of a README, atomically."""
    write_between(path, BEGIN, END, f"{source}:\n\n{table}")


def log(line: str) -> None:
    """Prints progress on the standard error stream."""
    print(line, file=sys.stderr, flush=True)


def _make_table(group: Sequence[Result]) -> Any:
    from rich.table import Table

    first = group[0]
    ours = next(result for result in group if result.contender == FLAXVAE)
    table = Table(
        title=f"{first.network}, batch {first.batch_size}, {first.precision}; "
        f"{first.steps_per_epoch} steps per epoch"
    )
    columns = (
        *("", "ms per step (min to max)", "images/s", "time / flaxvae's"),
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
    return table


def _print_end_to_end(end_to_end: dict[str, Any]) -> None:
    median = {n: statistics.median(one["seconds"]) for n, one in end_to_end.items()}
    print(
        "from the shell to the test loss, mlp: "
        + ", ".join(
            f"{n} {median[n]:.1f} s (test loss {one['test_loss']:.2f})"
            for n, one in end_to_end.items()
        )
        + f"; PyTorch takes {median[TUTORIAL] / median[FLAXVAE]:.2f} times as long"
    )
