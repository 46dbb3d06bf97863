"""The results of the rows: kept as files, shown as tables and as a figure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.documents import write_between
from experiments.reproduce.rows import Row
from flaxvae.files import write_json
from flaxvae.latent.figures import save_figure

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"
FIGURE = HERE.parent / "assets" / "ledger.webp"
BEGIN, END = "<!-- ledger -->", "<!-- end of ledger -->"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the commands of a row measured, in full.

    Attributes:
      row: name of the row.
      fingerprint: that of the row when it was measured.
      number: ours.
      error: its standard error, or None where none is stated.
      seed: of the training.
      epochs: of it, or None for what is not trained by epochs.
      device: what trained it.
      seconds: of all commands, from their start to their end.
      commit: of flaxvae; ``unknown`` outside of a checkout.
      date: on which it ended, as year-month-day.
      versions: of the packages that change numbers.
    """

    row: str
    fingerprint: str
    number: float
    error: float | None
    seed: int
    epochs: int | None
    device: str
    seconds: float
    commit: str
    date: str
    versions: dict[str, str]


def read_results(folder: Path = RESULTS) -> dict[str, Result]:
    """All results by row."""
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return {each["row"]: Result(**each) for each in found}


def write_result(result: Result, folder: Path = RESULTS) -> Path:
    """Stores a result under the name of its row; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.row}.json"
    write_json(path, asdict(result))
    return path


def describe_status(row: Row, result: Result | None) -> str:
    """Whether a row is met, not met, not run, or was run with other settings.

    A row without a published number is measured.
    """
    if result is None:
        return "not run"
    if result.fingerprint != row.fingerprint:
        return "run with other settings"
    if row.published is None:
        return "measured"
    return "met" if row.is_met(result.number) else "not met"


def describe_number(number: float, error: float | None = None) -> str:
    """A number with as many decimals as its size asks for, and its error."""
    decimals = 2 if abs(number) >= 10 else 3 if abs(number) >= 0.1 else 5
    text = f"{number:.{decimals}f}"
    if error is None:
        return text
    return f"{text} ± {error:.{decimals if error >= 10**-decimals else decimals + 1}f}"


def describe_row(row: Row, result: Result | None) -> list[str]:
    """The cells of a row: what, published, ours, status, and how it was measured."""
    ours = how = ""
    if result is not None:
        ours = describe_number(result.number, result.error)
        epochs = "" if result.epochs is None else f"{result.epochs} epochs, "
        how = (
            f"{epochs}seed {result.seed}, {result.device}, "
            f"{describe_seconds(result.seconds)}, {result.commit}, {result.date}"
        )
    status = describe_status(row, result)
    return [row.name, describe_published(row), ours, status, how]


def describe_published(row: Row) -> str:
    """The published number with its unit, or nothing."""
    return "" if row.published is None else add_unit(row, row.published)


def add_unit(row: Row, number: float, error: float | None = None) -> str:
    """A number of a row, its error and the row's unit, if it has one."""
    return f"{describe_number(number, error)} {row.unit}".rstrip()


def describe_seconds(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def make_markdown(rows: Mapping[str, Row], results: Mapping[str, Result]) -> str:
    """The ledger as a Markdown table."""
    lines = [
        "| row | what | published | ours | | epochs, seed, device, time, commit, date "
        "| differs from the paper in |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        _, published, ours, status, how = describe_row(row, results.get(name))
        what = f"{row.title}; {row.protocol}"
        published = f"{published}, {row.source}".strip(", ")
        cells = [f"`{name}`", what, published, ours, status, how, row.deviations]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_readme(text: str, path: Path = README) -> None:
    """Puts a table between the two comments of a Markdown file.

    Raises:
      InputError: it has not each comment once.
    """
    write_between(path, BEGIN, END, text)


def draw_ledger(
    rows: Mapping[str, Row], results: Mapping[str, Result], path: Path = FIGURE
) -> None:
    """Draws published against ours: how much better ours is, in % of the published.

    Rows without a published number are left out, and those that were not run, or with
    other settings.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    from flaxvae.latent.figures.style import CLASS_COLORS

    shown = [
        (row, row.published, results[name])
        for name, row in rows.items()
        if row.published is not None
        and describe_status(row, results.get(name)) in ("met", "not met")
    ]
    figure = Figure(figsize=(8, 1.3 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for y, (row, published, result) in enumerate(shown):
        scale = 100 / abs(published) * (1 if row.better == "higher" else -1)
        gain = (result.number - published) * scale
        error = abs(scale) * (result.error or 0.0)
        color = CLASS_COLORS[0] if row.is_met(result.number) else CLASS_COLORS[1]
        axes.plot([0, gain], [y, y], color=color, linewidth=1.5)
        axes.errorbar(gain, y, xerr=error, fmt="o", color=color, markersize=5)
        text = f"{describe_number(result.number)} ({describe_number(published)})"
        side = 1 if gain >= 0 else -1
        axes.annotate(
            text,
            (gain + side * error, y),
            (7 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            fontsize=7,
        )
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [row.name for row, _, _ in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    # Most are within a few percent, some far beyond.
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.margins(x=0.3)
    axes.set_xlabel("better than published by (%), logarithmic beyond 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Ours (published); blue: met, orange: not met", fontsize=9)
    save_figure(figure, path)


def as_rows(
    rows: Mapping[str, Row], results: Mapping[str, Result]
) -> Sequence[Sequence[str]]:
    """The cells of every row, for the terminal."""
    return [describe_row(row, results.get(name)) for name, row in rows.items()]
