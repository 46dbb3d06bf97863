"""Compile a preset's training for a TPU slice, on a machine without a TPU.

    pip install -e ".[tpu]"  # in an environment of its own
    python -m experiments.compile_for_tpu --topology=v5e:4x4 --preset=mlp

The TPU compiler is an ordinary program: it takes the real train step and the real run,
split over the chips of a slice that exists on paper, and says what each chip would
hold, compute and send. Whether the training compiles, fits and communicates once a step
is thus known before a TPU is paid for; how fast it is must still be measured on one.
"""

import importlib.util
import math
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments.command import run_command
from experiments.flags import StartFlags
from experiments.presets import PRESETS, Preset
from flaxvae import InputError, training
from flaxvae.batch import DATA_AXIS
from flaxvae.checks import check_at_least, check_choice
from flaxvae.data import Dataset, Split
from flaxvae.files import write_json
from flaxvae.training.parallel import Devices, check_divides
from flaxvae.training.state import count_parameters

# Without these libtpu looks for a TPU and its metadata server, and reports that it
# found none; the last lets several processes compile at the same time.
ENVIRONMENT = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # any: the topology is named apart
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
EXAMPLES = ("v4:2x2x1", "v5e:2x2", "v5e:4x4", "v5p:2x2x1", "v6e:4x4")
VALIDATION_SHARE = 0.05  # held out beside the training examples
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
# An instruction of compiled text: its result's shapes, a collective, "-start" if the
# program goes on meanwhile.
CALL = re.compile(
    rf"^\s+(?:ROOT )?%?[\w.-]+ = (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(", re.M
)
SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Chip:
    """A kind of TPU, in its vendor's figures for one chip."""

    flops: float  # bf16 FLOP/s
    memory: float  # bytes of HBM
    bandwidth: float  # bytes/s from and to HBM
    interconnect: float  # bytes/s to other chips, all links together


# By what JAX calls the device.
CHIPS = {
    "TPU v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16e9, 819e9, 200e9),  # v5e
    "TPU v5": Chip(459e12, 95e9, 2765e9, 600e9),  # v5p
    "TPU v6 lite": Chip(918e12, 32e9, 1640e9, 448e9),  # v6e
}


@dataclass(frozen=True)
class Flags:
    """Compiles a training for a TPU slice; needs libtpu, but no TPU."""

    topology: str = "v5e:4x4"
    """Generation and grid of chips, such as v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4."""
    preset: str = "mlp"
    """Name of a training in experiments/presets.py, or all."""
    batch_size: int = 1024
    """Examples in a training step, over all devices."""
    precision: Literal["default", "high", "highest"] = "default"
    """Of matrix products: factors in bf16, in 3 products of bf16, in 6."""
    train_examples: int = 60_000
    """Training examples, which every device holds; a twentieth more to validate."""
    whole_run: bool = True
    """Compile the run of all epochs, too: a minute, most of it for the shuffling."""
    json: Path | None = None
    """Also write the numbers to this file."""
    # A program for another machine cannot be kept in the cache of this one's.
    start: ClassVar[StartFlags] = StartFlags(compilation_cache=False)


@dataclass(frozen=True)
class Slice:
    """Chips that exist on paper.

    Attributes:
      topology: the name.
      devices: all that share a batch.
      kind: what JAX calls one of them.
      num_chips: a chip before v5e is two devices.
    """

    topology: str
    devices: Devices
    kind: str
    num_chips: int

    @property
    def chip(self) -> Chip | None:
        """The vendor's figures, where known."""
        return CHIPS.get(self.kind)


@dataclass(frozen=True)
class Trial:
    """A training in shapes that are placed on devices, but in no memory."""

    program: training.Program
    devices: Devices
    run: Any  # `flaxvae.training.advance.Run`
    batch: Any
    examples: Any  # of both splits

    @property
    def parameters(self) -> int:
        """Number of trained scalars."""
        return count_parameters(self.run.state.params)

    def compile_step(self) -> Any:
        """Compiles the train step: the state on every device, the batch split."""
        return self.devices.compile(
            self.program.step, self.run.state, self.batch, donate=(0,)
        )

    def compile_run(self) -> Any:
        """Compiles what `fit` calls: any number of steps and epochs, validation too."""
        count = place(np.int32(0), self.devices.replicated)
        advance = self.program.make_advance()
        return self.devices.compile(
            advance, self.run, self.examples, count, count, donate=(0,)
        )


@dataclass(frozen=True)
class Reading:
    """What the compiler says about a program, for one chip.

    FLOPs and bytes accessed count the body of a loop once, so they say nothing about a
    whole run. Bytes accessed include those in the chip's own memory, beside HBM.
    """

    compile_seconds: float
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float
    accessed_bytes: float
    collectives: list[tuple[str, int]]


def main(flags: Flags) -> None:
    """Compiles, and prints a table for each preset."""
    check_choice("preset", flags.preset, [*PRESETS, "all"])
    check_at_least("batch_size", flags.batch_size, 1)
    check_at_least("train_examples", flags.train_examples, 1)
    if flags.batch_size > flags.train_examples:
        raise InputError(
            f"batch_size must be <= {flags.train_examples}, the number of training "
            f"examples, got {flags.batch_size}"
        )
    path = flags.json and flags.json.expanduser()
    if path and not path.parent.is_dir():
        raise InputError(f"json must be in a folder that exists, got {path}")
    target = find_slice(flags.topology)
    check_divides(flags.batch_size, target.devices.count)
    reports = {}
    for name in PRESETS if flags.preset == "all" else [flags.preset]:
        reports[name] = compile_preset(name, target, flags)
        print_table(name, reports[name], target, flags)
    if path:
        write_json(path, reports)


def find_slice(topology: str) -> Slice:
    """The slice of a name; nothing of the kind need be at hand.

    Raises:
      InputError: there is no such slice, or libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            'libtpu must be installed: pip install -e ".[tpu]" in an environment of '
            "its own"
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    # What runs here runs on the host; nothing compiled can be read back from a cache.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    from jax.experimental import topologies

    name = topology or "none"  # libtpu takes the empty name for a slice of its choice
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except jax.errors.JaxRuntimeError as error:
        if "INVALID_ARGUMENT" not in str(error):
            raise
        raise InputError(
            f"unknown topology {topology!r}: give a generation and a grid that it "
            f"comes in, such as {', '.join(EXAMPLES)}"
        ) from error
    devices: Any = tuple(found.devices)
    num_chips = len({tuple(device.coords) for device in devices})
    return Slice(topology, Devices(devices), devices[0].device_kind, num_chips)


def make_trial(
    preset: Preset, devices: Devices, *, batch_size: int, train_examples: int
) -> Trial:
    """Puts a preset's training together, in shapes alone."""
    held_out = round(VALIDATION_SHARE * train_examples)
    shape = (train_examples + held_out, *preset.data_shape)
    images = Split(np.broadcast_to(np.uint8(0), shape))  # one byte of memory
    dataset = Dataset(
        "shapes",
        train=images[:train_examples],
        validation=images[train_examples:],
        test=images[:0],
        max_value=255.0,
        binarize=preset.binarize,
    )
    program = training.make_program(
        preset.build(dataset.shape),
        dataset,
        preset.objective,
        training.adam(),
        batch_size=batch_size,
        devices=devices,
    )
    run = jax.eval_shape(lambda: program.create(0, preset.weights))
    batch = jax.ShapeDtypeStruct((batch_size, *dataset.shape), np.uint8)
    split = NamedSharding(devices.replicated.mesh, PartitionSpec(DATA_AXIS))
    examples = (dataset.train.x, dataset.validation.x)
    everywhere = devices.replicated
    return Trial(
        program,
        devices,
        run=place(run, everywhere),
        batch=place(batch, split),
        examples=place(examples, everywhere),
    )


def place(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes of a tree of arrays, or of shapes, on the devices of ``sharding``."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def compile_preset(name: str, target: Slice, flags: Flags) -> dict[str, Any]:
    """Compiles one preset's training; returns its numbers, as they go into JSON."""
    per_chip = target.devices.count // target.num_chips
    print(f"compiling {name} ...", file=sys.stderr)
    with jax.default_matmul_precision(flags.precision):
        trial = make_trial(
            PRESETS[name],
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
            reduced_bytes=sum(
                size for kind, size in step.collectives if kind == "all-reduce"
            ),
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


def compile_and_read(compile_program: Callable[[], Any], per_chip: int) -> Reading:
    """Compiles a program, and reads what the compiler says about it.

    Args:
      compile_program: returns what `Devices.compile` returns.
      per_chip: devices on a chip; the compiler speaks of devices.

    Raises:
      InputError: the program needs more memory than a device has.
    """
    began = time.perf_counter()
    try:
        compiled = compile_program()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise InputError(
            "batch_size and train_examples must be small enough for the memory of a "
            f"chip: {reason}"
        ) from error
    seconds = time.perf_counter() - began
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return Reading(
        compile_seconds=seconds,
        argument_bytes=per_chip * memory.argument_size_in_bytes,
        output_bytes=per_chip * memory.output_size_in_bytes,
        temporary_bytes=per_chip * memory.temp_size_in_bytes,
        peak_bytes=per_chip * memory.peak_memory_in_bytes,
        flops=per_chip * cost["flops"],
        accessed_bytes=per_chip * cost["bytes accessed"],
        collectives=read_collectives(compiled.as_text()),
    )


def read_collectives(text: str) -> list[tuple[str, int]]:
    """The communication between devices in a compiled program's text.

    Args:
      text: of ``compiled.as_text()``, where each operation stands once, however often
        a loop carries it out.

    Returns:
      The kind of each collective operation, one of `COLLECTIVES`, and the bytes of its
      result on a device, in the order of the text.
    """
    found = []
    for result, kind, start in CALL.findall(text):
        if start and kind != "all-reduce":  # (operands, results, ...)
            result = _read_tuple(result)[1]
        found.append((kind, count_bytes(result)))
    return found


def count_bytes(shapes: str) -> int:
    """Bytes of all arrays in text such as ``(f32[400,40]{1,0}, bf16[])``."""
    bits = 0
    for name, sizes in SHAPE.findall(shapes):
        digits = re.search(r"\d+", name)  # none in pred and token
        width = int(digits[0]) if digits else 8 * (name == "pred")
        bits += width * math.prod(int(size) for size in sizes.split(",") if size)
    return bits // 8


def _read_tuple(text: str) -> list[str]:
    """The parts of a tuple: ``a`` and ``(b, c)`` of ``(a, (b, c))``."""
    parts, depth = [""], 0
    for letter in text[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def find_floor(
    chip: Chip,
    num_chips: int,
    *,
    flops: float,
    moved_bytes: float,
    reduced_bytes: float,
) -> dict[str, float]:
    """Seconds that a step takes at the least, if the vendor's figures hold.

    floor = max(flops / peak, moved_bytes / HBM bandwidth)
            + 2 (n - 1) / n * reduced_bytes / interconnect bandwidth

    on n chips: products and memory at full speed and at the same time; then the sum of
    the gradients, which needs all of them, and which every update needs. It is a
    floor: launches, latencies, element-wise work, intermediate results in HBM and
    products of more than bf16 precision (3 or 6 times as long) come on top.

    Args:
      chip: the vendor's figures.
      num_chips: n.
      flops: of a step and chip.
      moved_bytes: that a chip must at least read from HBM or write to it: a step's
        arguments and results.
      reduced_bytes: that are summed over the chips.

    Returns:
      ``compute``, ``memory``, ``all_reduce`` and, of these, ``step``.
    """
    compute = flops / chip.flops
    memory = moved_bytes / chip.bandwidth
    # Each chip sends and receives its share of the sums, then its share of the result.
    all_reduce = 2 * (num_chips - 1) / num_chips * reduced_bytes / chip.interconnect
    return {
        "compute": compute,
        "memory": memory,
        "all_reduce": all_reduce,
        "step": max(compute, memory) + all_reduce,
    }


def print_table(name: str, report: dict[str, Any], target: Slice, flags: Flags) -> None:
    """Prints one preset's numbers, the train step beside the whole run."""
    from rich.console import Console
    from rich.table import Table

    readings = [r for r in (report["step"], report["run"]) if r]
    step, floor, chip = report["step"], report["floor"], target.chip
    table = Table(
        title=f"{name}, {report['parameters']:,} parameters, batch {flags.batch_size} "
        f"on {target.num_chips} x {target.kind} ({target.topology})"
    )
    columns = ("train step", f"run, {flags.train_examples:,} examples")
    table.add_column("on each chip", style="bold")
    for column in columns[: len(readings)]:
        table.add_column(column, justify="right")

    def show_peak(reading: dict[str, Any]) -> str:
        peak = reading["peak_bytes"]
        return _mega(peak) + (f" ({peak / chip.memory:.2%} of HBM)" if chip else "")

    def show_collectives(reading: dict[str, Any]) -> str:
        lines = [f"{kind} {size:,} B" for kind, size in reading["collectives"]]
        return "\n".join(lines) or "none"

    table.add_row("examples of a batch", f"{flags.batch_size / target.num_chips:g}")
    table.add_row("arguments", *(_mega(r["argument_bytes"]) for r in readings))
    table.add_row("temporaries", *(_mega(r["temporary_bytes"]) for r in readings))
    table.add_row("peak memory", *map(show_peak, readings))
    table.add_row("FLOPs", f"{step['flops'] / 1e6:,.1f} M")
    table.add_row("accessed, on-chip too", _mega(step["accessed_bytes"]))
    table.add_row("collectives", *map(show_collectives, readings))
    table.add_row("4 bytes a parameter", f"{4 * report['parameters']:,} B")
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


if __name__ == "__main__":
    run_command(main, Flags)
