"""Metrics of a run as tables on the terminal."""

import math
import sys
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from flaxvae.evaluation.estimates import Described
from flaxvae.evaluation.metrics import METRICS, Result
from flaxvae.evaluation.record import Record

MOST_NUMBERS = 8  # of the dimensions of a metric, in a table


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
