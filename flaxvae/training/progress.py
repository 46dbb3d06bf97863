"""Progress: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from flaxvae.training.storage.stored import Line

SECONDS_BETWEEN_LINES = 5.0

Update = Callable[[Line | None, float, float], None]


@contextlib.contextmanager
def show_progress(
    epochs: int, done: int = 0, *, shown: bool = True
) -> Iterator[Update]:
    """Shows how a run goes, on the standard error stream.

    Args:
      epochs: number of epochs of the whole run.
      done: epochs finished before this call.
      shown: False for silence.

    Yields:
      A function to call now and then with the line of the epoch finished last (None if
      there is no new one), the epochs done (a fraction within an epoch) and the number
      of training images a second. It draws a bar if the stream is a terminal and rich
      is installed; otherwise it prints the first and the last epoch, and between them
      at most one every five seconds.
    """
    if not shown:
        yield lambda line, epochs_done, images_per_second: None
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
    return ", ".join([*parts, f"{images_per_second:,.0f} images/s"])


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
            progress.TextColumn("left, {task.fields[rate]} images/s"),
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
