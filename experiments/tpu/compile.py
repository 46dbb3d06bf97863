"""Compile a preset's training for a TPU slice, on a machine without a TPU.

    pip install -e ".[tpu]"  # in an environment of its own
    python -m experiments.compile_for_tpu --topology=v5e:4x4 --preset=mlp

The TPU compiler is an ordinary program: it compiles the real train step and the real
run, split over the chips of a slice that exists on paper, and reports what each chip
would hold, compute and send. Whether the training compiles, fits and communicates once
per step is thus known before a TPU is paid for; how fast it is must still be measured.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax

from experiments.command import Start
from experiments.tpu.hlo import compile_and_read
from experiments.tpu.roofline import find_floor
from experiments.tpu.slices import Slice, find_slice
from experiments.tpu.trial import MODELS, make_trial
from flaxvae import InputError
from flaxvae.checks import check_choice
from flaxvae.files import write_json
from flaxvae.settings import check_settings, setting
from flaxvae.training.parallel import check_divides


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compiles a training for a TPU slice; needs libtpu, but no TPU."""

    topology: str = "v5e:4x4"
    """Generation and grid of chips, such as v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4."""
    preset: str = "mlp"
    """Model by name, see flaxvae/models/presets.py, or all."""
    batch_size: int = setting(1024, at_least=1)
    """Examples in a training step, over all devices."""
    precision: Literal["default", "high", "highest"] = "default"
    """Matrix products: factors in bf16, in 3 products of bf16, in 6."""
    train_examples: int = setting(60_000, at_least=1)
    """Training examples, which every device holds; 5 % more for validation."""
    whole_run: bool = True
    """Also compile the run of all epochs: a minute, mostly for the shuffling."""
    json: Path | None = None
    """Also write the numbers to this file."""
    # A program for another machine cannot be kept in the cache of this one's.
    start: ClassVar[Start] = Start(compilation_cache=False)

    def __post_init__(self) -> None:
        check_settings(self)
        check_choice("preset", self.preset, [*MODELS, "all"])
        if self.batch_size > self.train_examples:
            raise InputError(
                f"batch_size must be <= {self.train_examples}, the number of training "
                f"examples, got {self.batch_size}"
            )


def main(flags: Flags) -> None:
    """Compiles the training of each preset and prints a table."""
    path = flags.json and flags.json.expanduser()
    if path and not path.parent.is_dir():
        raise InputError(f"json must be in a folder that exists, got {path}")
    target = find_slice(flags.topology)
    check_divides(flags.batch_size, target.devices.count)
    reports = {}
    for name in MODELS if flags.preset == "all" else [flags.preset]:
        print(f"compiling {name} ...", file=sys.stderr)
        reports[name] = compile_preset(name, target, flags)
        print_table(name, reports[name], target)
    if path:
        write_json(path, reports)


def compile_preset(name: str, target: Slice, flags: Flags) -> dict[str, Any]:
    """Compiles the training of one preset; returns its numbers as JSON."""
    per_chip = target.devices_per_chip
    with jax.default_matmul_precision(flags.precision):
        trial = make_trial(
            name,
            target.devices,
            batch_size=flags.batch_size,
            train_examples=flags.train_examples,
        )
        step = compile_and_read(trial.compile_step, per_chip)
        run = compile_and_read(trial.compile_run, per_chip) if flags.whole_run else None
    floor = None
    if target.chip is not None:
        floor = find_floor(
            target.chip,
            target.num_chips,
            flops=step.flops,
            moved_bytes=step.argument_bytes + step.output_bytes,
            reduced_bytes=step.reduced_bytes,
        )
    return {
        "topology": target.topology,
        "kind": target.kind,
        "chips": target.num_chips,
        "devices": target.devices.count,
        "batch_size": flags.batch_size,
        "train_examples": flags.train_examples,
        "precision": flags.precision,
        "parameters": trial.parameters,
        "step": asdict(step),
        "run": run and asdict(run),
        "floor": floor,
    }


def print_table(name: str, report: dict[str, Any], target: Slice) -> None:
    """Prints the numbers of one preset: the train step, and the whole run beside it."""
    from rich.console import Console
    from rich.table import Table

    readings = [r for r in (report["step"], report["run"]) if r]
    step, floor, chip = report["step"], report["floor"], target.chip
    batch_size = report["batch_size"]
    table = Table(
        title=f"{name}, {report['parameters']:,} parameters, batch {batch_size} "
        f"on {target.num_chips} x {target.kind} ({target.topology})"
    )
    columns = ("train step", f"run, {report['train_examples']:,} examples")
    table.add_column("per chip", style="bold")
    for column in columns[: len(readings)]:
        table.add_column(column, justify="right")

    def show_peak(reading: dict[str, Any]) -> str:
        peak = reading["peak_bytes"]
        return _mega(peak) + (f" ({peak / chip.memory:.2%} of HBM)" if chip else "")

    def show_collectives(reading: dict[str, Any]) -> str:
        lines = [f"{kind} {size:,} B" for kind, size in reading["collectives"]]
        return "\n".join(lines) or "none"

    table.add_row("examples in a batch", f"{batch_size / target.num_chips:g}")
    table.add_row("arguments", *(_mega(r["argument_bytes"]) for r in readings))
    table.add_row("temporaries", *(_mega(r["temporary_bytes"]) for r in readings))
    table.add_row("peak memory", *map(show_peak, readings))
    table.add_row("FLOPs", f"{step['flops'] / 1e6:,.1f} M")
    table.add_row("accessed, incl. on-chip", _mega(step["accessed_bytes"]))
    table.add_row("collectives", *map(show_collectives, readings))
    table.add_row("4 bytes per parameter", f"{4 * report['parameters']:,} B")
    if floor:
        table.add_row("products, full speed", _micro(floor["compute"]))
        table.add_row("HBM, full speed", _micro(floor["memory"]))
        table.add_row("all-reduce, full speed", _micro(floor["all_reduce"]))
        table.add_row("floor of a step", _micro(floor["step"]))
    table.add_row("compiled in", *(f"{r['compile_seconds']:.1f} s" for r in readings))
    Console().print(table)


def _mega(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:,.1f} µs"
