"""What the compiler reports about a program: memory, work and communication."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from flaxvae.checks import InputError

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
# An instruction of a compiled program's text: the shapes of its result, a collective,
# and "-start" if it is asynchronous.
INSTRUCTION = re.compile(
    rf"^\s+(?:ROOT )?%?[\w.-]+ = (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(", re.M
)
SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Reading:
    """What the compiler reports about a program, for one chip.

    FLOPs and accessed bytes count the body of a loop once, so they do not describe a
    whole run. Accessed bytes include those in the chip's own memory, not only HBM.
    """

    compile_seconds: float
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float
    accessed_bytes: float
    collectives: list[tuple[str, int]]

    @property
    def reduced_bytes(self) -> int:
        """Bytes that are summed over the chips."""
        return sum(size for kind, size in self.collectives if kind == "all-reduce")


def compile_and_read(
    compile_program: Callable[[], Any], devices_per_chip: int
) -> Reading:
    """Compiles a program and reads the compiler's report.

    Args:
      compile_program: returns the result of `Devices.compile`.
      devices_per_chip: the compiler's numbers are per device.

    Raises:
      InputError: the program needs more memory than a device has.
    """
    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return Reading(
        compile_seconds=seconds,
        argument_bytes=devices_per_chip * memory.argument_size_in_bytes,
        output_bytes=devices_per_chip * memory.output_size_in_bytes,
        temporary_bytes=devices_per_chip * memory.temp_size_in_bytes,
        peak_bytes=devices_per_chip * memory.peak_memory_in_bytes,
        flops=devices_per_chip * cost["flops"],
        accessed_bytes=devices_per_chip * cost["bytes accessed"],
        collectives=read_collectives(compiled.as_text()),
    )


def read_collectives(text: str) -> list[tuple[str, int]]:
    """The communication between devices in the text of a compiled program.

    >>> read_collectives("  %sum = f32[400,40]{1,0} all-reduce(%a), to_apply=%add")
    [('all-reduce', 64000)]

    Args:
      text: ``compiled.as_text()``, which lists each operation once, however often a
        loop repeats it.

    Returns:
      The kind of each collective operation, one of `COLLECTIVES`, and the bytes of its
      result on a device, in the order of the text.
    """
    found = []
    for result, kind, start in INSTRUCTION.findall(text):
        if start and kind != "all-reduce":  # (operands, results, ...)
            result = _split_tuple(result)[1]
        found.append((kind, count_bytes(result)))
    return found


def count_bytes(shapes: str) -> int:
    """Bytes of all arrays in a text of shapes.

    >>> count_bytes("(f32[400,40]{1,0}, bf16[], pred[3])")
    64005
    """
    bits = 0
    for name, sizes in SHAPE.findall(shapes):
        digits = re.search(r"\d+", name)  # pred and token have none
        width = int(digits[0]) if digits else 8 * (name == "pred")
        bits += width * math.prod(int(size) for size in sizes.split(",") if size)
    return bits // 8


def _split_tuple(text: str) -> list[str]:
    """The entries of a tuple: ``a`` and ``(b, c)`` of ``(a, (b, c))``."""
    entries, depth = [""], 0
    for letter in text[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            entries.append("")
        else:
            entries[-1] += letter
    return entries
