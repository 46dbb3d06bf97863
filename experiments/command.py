"""What every command shares: flags from a dataclass, one-line errors, exit codes."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro

from experiments.flags import StartFlags, flag_values
from flaxvae import InputError
from flaxvae.training import (
    Interrupted,
    NonFiniteError,
    hosts,
    use_compilation_cache,
)

OK, FAILED, BAD_INPUT = 0, 1, 2
INTERRUPTED = 128  # and the signal's number: 130 for Ctrl-C, 143 for SIGTERM

Flags = TypeVar("Flags")


def run_command(
    command: Callable[[Flags], None],
    flags_class: type[Flags],
    args: Sequence[str] | None = None,
) -> None:
    """Reads the flags, runs the command, and exits with its code.

    0: done. 1: training met a non-finite number, or a disk is full. 2: a flag or a file
    cannot be used. 130, 143: ended by Ctrl-C or SIGTERM; a run in training has saved
    its state, and the same command continues it. The reason is one line on the
    standard error stream.
    """
    program = f"python -m {flags_class.__module__}"
    if flags_class.__module__ == "__main__":
        program = f"python -m experiments.{Path(sys.argv[0]).stem}"
    flags = tyro.cli(flags_class, prog=program, args=args, use_underscores=True)
    try:
        start(getattr(flags, "start", StartFlags()))
        command(flags)
        code, reason = OK, None
    except InputError as error:
        code, reason = BAD_INPUT, f"error: {error}"
    except (NonFiniteError, OSError) as error:
        code, reason = FAILED, f"error: {error}"
    except jax.errors.JaxRuntimeError:
        if not hosts.are_connected():
            raise
        code = FAILED
        reason = (
            "error: another process of the run has ended or cannot be reached: the "
            "same command, started everywhere, continues the run"
        )
    except Interrupted as error:
        code, reason = INTERRUPTED + error.number, f"interrupted: {error}"
    except KeyboardInterrupt:
        code = INTERRUPTED + signal.SIGINT
        reason = "interrupted: the same command continues a run"
    if reason:
        print(reason, file=sys.stderr, flush=True)
    if code and hosts.are_connected():
        os._exit(code)  # an orderly end would wait for processes that wait for this one
    sys.exit(code)


def start(flags: StartFlags) -> None:
    """Sets up what must be set up before the first array is made."""
    hosts.connect(flags.coordinator, flags.num_processes, flags.process_id)
    if flags.compilation_cache:
        use_compilation_cache()


def name_workdir(command: str, dataset: str, flags: Any, ignored: set[str]) -> Path:
    """A folder named by the data and by every flag that is not at its default.

    So each setting gets a folder of its own, and repeating a command finds its own
    run: ``runs/mnist_vae/mnist,latent_dim=20``.
    """
    parts = [dataset]
    defaults = flag_values(type(flags)())
    for name, value in flag_values(flags).items():
        if name in ignored or value == defaults[name]:
            continue
        if isinstance(value, tuple):
            value = "-".join(map(str, value))
        parts.append(f"{name}={value}")
    return Path("runs") / command / ",".join(parts)
