"""What commands print: tables, and a bar for what takes long."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxvae import Run
from flaxvae.evaluation.active_units import explain_collapse
from flaxvae.evaluation.estimates import Described
from flaxvae.evaluation.metrics import METRICS, Result
from flaxvae.evaluation.record import Record
from flaxvae.evaluation.surgery import describe_parts

MOST_NUMBERS = 8  # of the dimensions of a metric, in a table


@contextlib.contextmanager
def show_count(
    title: str, total: int, *, shown: bool = True
) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal, if there is one; yields what sets the number done."""
    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def evaluate(run: Run, num_examples: int, *, nll_samples: int | None) -> dict[str, Any]:
    """The report of a VAE's test examples.

    Shows a bar while -log p(x) is estimated, and a note if the codes say nothing.
    """
    shown = nll_samples is not None
    with show_count("-log p(x)", num_examples, shown=shown) as count:
        report = run.evaluate(nll_samples=nll_samples, on_progress=count)
    if collapse := explain_collapse(report):
        print_notes([collapse])
    return report


def print_notes(notes: Iterable[str]) -> None:
    """Prints notes on the standard error stream, one line each."""
    for note in notes:
        print(f"NOTE: {note}", file=sys.stderr)


def print_columns(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Prints rows under the names of their columns, all but the first to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Prints names and values as one small table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)


def print_result(result: Result) -> None:
    """Prints one line about a metric that has been computed."""
    outcome = f"{result.seconds:.1f} s"
    if isinstance(result.found, str):
        outcome = "does not apply"
    print(f"{result.name}: {outcome}", file=sys.stderr, flush=True)


def print_metrics(found: Record) -> None:
    """Prints metrics as `flaxvae.Run.measure` returns them, by kind, with their errors.

    Of numbers for each dimension the largest are shown. Metrics that do not apply for
    one reason share a line.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{found['dataset']}, {found['examples']:,} {found['split']} examples"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    table.add_column("value ± std. error", justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("seconds", justify="right")
    for kind, metrics in METRICS.items():
        shown = [name for name in metrics if name in found["metrics"]]
        if shown:
            table.add_section()
            table.add_row(kind, style="bold")
        for name in shown:
            metric = found["metrics"][name]
            table.add_row(f" {name}", "", "", f"{metric['seconds']:.1f}")
            for row in describe_numbers(metric["numbers"]):
                table.add_row(f"   {row[0]}", *row[1:])
    console = Console()
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for name, reason in found["not_applicable"].items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        rest = Table(title="metrics that do not apply", box=box.SIMPLE_HEAD)
        rest.add_column("metric", max_width=30)
        rest.add_column("reason")
        for reason, names in reasons.items():
            rest.add_row(", ".join(names), reason)
        console.print(rest)


def describe_numbers(numbers: Mapping[str, Described]) -> list[tuple[str, str, str]]:
    """Rows of a metric's numbers: name, value with its standard error, unit."""
    rows = []
    for name, number in numbers.items():
        value, error = number["value"], number["standard_error"]
        of_one: float | None
        shown = name.replace("_", " ")
        if not isinstance(value, list):
            of_one = None if isinstance(error, list) else error
            rows.append((shown, format_estimate(value, of_one), number["unit"]))
            continue
        order = sorted(range(len(value)), key=lambda d: -abs(value[d]))[:MOST_NUMBERS]
        for d in sorted(order):
            of_one = error[d] if isinstance(error, list) else None
            of_each = format_estimate(value[d], of_one)
            rows.append((f"{shown}: {d + 1}", of_each, number["unit"]))
        if len(value) > len(order):
            rest = f"{len(value) - len(order)} smaller ones"
            rows.append((f"{shown}: {rest}", "", ""))
    return rows


def format_estimate(value: float, error: float | None) -> str:
    """A number to the second digit of its standard error.

    >>> format_estimate(155.5664, 0.4922), format_estimate(0.051, 0.00293)
    ('155.57 ± 0.49', '0.0510 ± 0.0029')
    >>> format_estimate(2500.0, 130.0), format_estimate(2.0, None)
    ('2500 ± 130', '2')
    """
    if error is None or not error:
        return f"{value:.4g}"
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def describe_bounds(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows about a VAE's ELBO, its parts and -log p(x), with their units."""
    test, own = summary["test"], summary.get("own_units")
    units = summary.get("units", "nats per example")
    rows = [("test -ELBO", f"{-test['elbo']:.2f} {units}")]
    if "elbo_own_units" in test:
        rows.append(("  in own units", f"{-test['elbo_own_units']:.2f} {own}"))
    rows += [
        ("reconstruction", f"{-test['log_likelihood']:.2f} nats"),
        ("KL", f"{test['kl']:.2f} nats"),
        *_describe_levels(test.get("kl_per_level", [])),
        *(describe_parts(summary["surgery"]) if "surgery" in summary else ()),
    ]
    if "nll" in test:
        value, error = f"{test['nll']:.2f} nats", test["nll_monte_carlo_error"]
        if error is not None:  # of several draws
            value = (
                f"{test['nll']:.2f} ± {error:.2f} nats (standard error of the draws)"
            )
        rows.append(("test -log p(x)", value))
        if "nll_own_units" in test:
            rows.append(("  in own units", f"{test['nll_own_units']:.2f} {own}"))
        samples = f"{test['nll_effective_samples']:.1f} draws, mean over examples"
        rows.append(("  effective sample size", samples))
    if "bits_per_dim" in test:
        source = "by -log p(x)" if "nll" in test else "an upper bound, by -ELBO"
        rows.append(
            ("test bits per dimension", f"{test['bits_per_dim']:.3f}, {source}")
        )
    return rows


def _describe_levels(kl: Sequence[float]) -> list[tuple[str, str]]:
    """One row about the KL of each level of latent variables, top level first."""
    if not kl:
        return []
    numbers = " + ".join(f"{each:.2f}" for each in kl)
    return [("  KL per level, top first", f"{numbers} nats")]


def describe_run(summary: dict[str, Any], workdir: Path) -> list[tuple[str, str]]:
    """Rows about a run's size, length, speed and files."""
    best = summary.get("best_epoch")
    epochs = f"{summary['epochs']} on {summary['device']}"
    rows = [
        ("parameters", f"{summary['parameters']:,}"),
        ("epochs", epochs + (f", the best: {best}" if best else "")),
    ]
    if summary.get("skipped_updates"):
        rows.append(("skipped updates", f"{summary['skipped_updates']:,}"))
    if summary.get("seconds_per_epoch") is not None:
        rate = f"{summary['images_per_second']:,.0f} images/s"
        seconds = f"{summary['seconds_per_epoch']:.3g} s"
        rows.append(("median epoch", f"{seconds}, {rate}; compiling excluded"))
    if summary.get("peak_memory_bytes") is not None:
        rows.append(("peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB"))
    names = ["config.json", "metrics.jsonl", "timing.jsonl", "summary.json"]
    files = "\n".join([*names, "checkpoints/", *summary["figures"]])
    return [*rows, ("written to", str(workdir)), ("files", files)]
