"""Progress: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from flaxvae.training.storage.stored import Line

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_DISPLAYS = 0.2  # in a notebook, where each one is a message

Update = Callable[[Line | None, float, float], None]


@contextlib.contextmanager
def show_progress(
    epochs: int, done: int = 0, *, shown: bool = True
) -> Iterator[Update]:
    """Shows how a run goes, on the standard error stream or in a notebook's cell.

    Args:
      epochs: number of epochs of the whole run.
      done: epochs finished before this call.
      shown: False for silence.

    Yields:
      A function to call now and then with the line of the epoch finished last (None if
      there is no new one), the epochs done (a fraction within an epoch) and the number
      of training images a second. In a Jupyter kernel it updates one output of the
      cell, which stays. It draws a bar if the stream is a terminal and rich is
      installed; otherwise it prints the first and the last epoch, and between them at
      most one every five seconds.
    """
    if not shown:
        yield lambda line, epochs_done, images_per_second: None
    elif (display := _notebook_display()) is not None:
        with _show_in_notebook(display, epochs, done) as update:
            yield update
    elif sys.stderr.isatty() and (bar := _try_bar(epochs, done)) is not None:
        with bar as update:
            yield update
    else:
        yield _make_print_lines(epochs, done)


def describe_line(line: Line, images_per_second: float) -> str:
    """The numbers of one epoch, in nats per example."""
    parts = [f"train {_describe_terms(line['train'])}"]
    if line["validation"]:
        parts.append(f"validation {_describe_terms(line['validation'])}")
    if line.get("skipped"):
        parts.append(f"{line['skipped']} updates skipped")
    return ", ".join([*parts, f"{images_per_second:,.0f} examples/s"])


def _describe_splits(line: Line) -> list[str]:
    texts = [
        f"{split:10} {_describe_terms(line[split])}"
        for split in ("train", "validation")
        if line[split]
    ]
    if line.get("skipped"):
        texts.append(f"skipped    {line['skipped']} updates of the epoch")
    return texts


def _describe_terms(terms: dict[str, float]) -> str:
    text = f"loss {terms['loss']:.2f}"
    if "log_likelihood" in terms and "kl" in terms:
        text += (
            f" (reconstruction {-terms['log_likelihood']:.2f}, KL {terms['kl']:.2f})"
        )
    if "classification_loss" in terms:
        text += f" (classification {terms['classification_loss']:.3f})"
    if "squared_error" in terms:
        text += f" (squared error {terms['squared_error']:.5f})"
    return text


def _make_print_lines(epochs: int, done: int) -> Update:
    began = time.monotonic()
    last: float | None = None
    width = len(str(epochs))

    def update(line: Line | None, epochs_done: float, images_per_second: float) -> None:
        nonlocal last
        now = time.monotonic()
        is_due = last is None or now - last >= SECONDS_BETWEEN_LINES
        if line is None or not (is_due or line["epoch"] == epochs):
            return
        last = now
        left = (now - began) / (epochs_done - done) * (epochs - epochs_done)
        print(
            f"epoch {line['epoch']:{width}}/{epochs}: "
            f"{describe_line(line, images_per_second)}, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    return update


def _notebook_display() -> Callable[..., Any] | None:
    """IPython's ``display`` where this process is a Jupyter kernel, or else None."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    # Colab's shell is derived from Jupyter's.
    if not any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__):
        return None
    from IPython.display import display

    return display


@contextlib.contextmanager
def _show_in_notebook(
    display: Callable[..., Any], epochs: int, done: int
) -> Iterator[Update]:
    """A bar and two lines of numbers in one output, which keeps its last state."""
    began = time.monotonic()
    shown_at = began
    state = [float(done), 0.0]  # epochs done, images a second
    numbers: list[str] = []

    def render() -> dict[str, str]:
        now, rate = state
        seconds = time.monotonic() - began
        head = f"epoch {int(now)}/{epochs}"
        pace = f"{seconds:.0f} s, {rate:,.0f} examples/s"
        if done < now < epochs:
            left = seconds / (now - done) * (epochs - now)
            pace = f"{seconds:.0f} s, {left:.0f} s left, {rate:,.0f} examples/s"
        lines = "\n".join(numbers)
        bar = (
            f'<progress value="{now:g}" max="{epochs}" style="width: 16em; '
            'vertical-align: middle"></progress>'
        )
        return {
            "text/plain": "\n".join([f"{head}, {pace}", *numbers]),
            "text/html": f"<div>{head} {bar} {pace}<pre>{lines}</pre></div>",
        }

    handle = display(render(), raw=True, display_id=True)

    def update(line: Line | None, epochs_done: float, images_per_second: float) -> None:
        nonlocal shown_at
        state[:] = epochs_done, images_per_second
        if line:
            numbers[:] = _describe_splits(line)
        if time.monotonic() - shown_at >= SECONDS_BETWEEN_DISPLAYS:
            shown_at = time.monotonic()
            handle.update(render(), raw=True)

    try:
        yield update
    finally:
        handle.update(render(), raw=True)


def _try_bar(
    epochs: int, done: int
) -> contextlib.AbstractContextManager[Update] | None:
    """A bar and two lines of numbers by rich, or None where rich is not installed."""
    try:
        from rich import progress
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        return None

    @contextlib.contextmanager
    def bar() -> Iterator[Update]:
        bars = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.total}"),
            progress.BarColumn(bar_width=24),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("left, {task.fields[rate]} examples/s"),
            auto_refresh=False,
        )
        task = bars.add_task("", total=epochs, completed=done, epoch=done, rate="-")
        with Live(bars, console=Console(stderr=True)) as live:
            numbers: list[Text] = []

            def update(
                line: Line | None, epochs_done: float, images_per_second: float
            ) -> None:
                bars.update(
                    task,
                    completed=epochs_done,
                    epoch=int(epochs_done),
                    rate=f"{images_per_second:,.0f}",
                )
                if line:
                    numbers[:] = [Text(text) for text in _describe_splits(line)]
                live.update(Group(bars, *numbers))

            yield update

    return bar()
