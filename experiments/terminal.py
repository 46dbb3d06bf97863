"""What commands print: tables, and a bar for what takes long."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxvae import Run
from flaxvae.evaluation.active_units import explain_collapse
from flaxvae.evaluation.surgery import describe_parts


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


@contextlib.contextmanager
def count_names(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar that counts calls with names."""
    started = itertools.count()
    with show_count(title, total) as count:
        yield lambda name: count(next(started)) if count else None


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
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)


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
        rate = f"{summary['images_per_second']:,.0f} examples/s"
        seconds = f"{summary['seconds_per_epoch']:.3g} s"
        rows.append(("median epoch", f"{seconds}, {rate}; compiling excluded"))
    if summary.get("peak_memory_bytes") is not None:
        rows.append(("peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB"))
    names = ["config.json", "metrics.jsonl", "timing.jsonl", "summary.json"]
    names += ["gallery.html", "checkpoints/"]
    files = "\n".join([*names, *summary["figures"]])
    return [*rows, ("written to", str(workdir)), ("files", files)]
