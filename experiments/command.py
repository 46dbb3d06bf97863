"""What every command shares: flags from a dataclass, one-line errors, exit codes."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from flaxvae import InputError
from flaxvae.training import NonFiniteError

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Flags = TypeVar("Flags")


def run_command(
    command: Callable[[Flags], None],
    flags_class: type[Flags],
    args: Sequence[str] | None = None,
) -> None:
    """Reads the flags, runs the command, and exits with its code.

    0: done. 1: training met a non-finite number, or a disk is full. 2: a flag or a file
    cannot be used. 130: interrupted by Ctrl-C; what was saved stays. The reason is one
    line on the standard error stream.
    """
    program = f"python -m {flags_class.__module__}"
    if flags_class.__module__ == "__main__":
        program = f"python -m experiments.{Path(sys.argv[0]).stem}"
    flags = tyro.cli(flags_class, prog=program, args=args, use_underscores=True)
    try:
        command(flags)
        code, reason = OK, None
    except InputError as error:
        code, reason = BAD_INPUT, f"error: {error}"
    except (NonFiniteError, OSError) as error:
        code, reason = FAILED, f"error: {error}"
    except KeyboardInterrupt:
        code, reason = INTERRUPTED, "interrupted: the same command continues a run"
    if reason:
        print(reason, file=sys.stderr)
    sys.exit(code)


def name_workdir(command: str, dataset: str, flags: Any, ignored: set[str]) -> Path:
    """A folder named by the data and by every flag that is not at its default.

    So each setting gets a folder of its own, and repeating a command finds its own
    run: ``runs/mnist_vae/mnist,latent_dim=20``.
    """
    parts = [dataset]
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        if field.name in ignored or value == field.default:
            continue
        if isinstance(value, tuple):
            value = "-".join(map(str, value))
        parts.append(f"{field.name}={value}")
    return Path("runs") / command / ",".join(parts)
